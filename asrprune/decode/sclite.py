"""The files of a scored decoding, laid out as sclite's ``sum`` and ``pra`` reports."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from asrprune.decode.score import Alignment, Counts, Score, score, some
from asrprune.errors import UserError
from asrprune.files import write_json, write_text


def write_score(directory: Path, refs: Mapping[str, str], hyps: Mapping[str, str], speakers: Mapping[str, str]) -> Score:
    """Score and write ref.trn, hyp.trn, utterances.tsv, result.txt and, last, score.json into ``directory``.

    ``speakers`` maps utterance ids to speakers (utt2spk). result.txt is laid out as sclite's ``sum`` and ``pra`` reports,
    so what reads those reads it.

    Raises:
        UserError: as ``score``, or an utterance has no speaker.
    """
    result = score(refs, hyps)
    unassigned = [key for key in result.ids if key not in speakers]
    if unassigned:
        raise UserError(f"utterances without a speaker: {some(unassigned)}; every utterance needs one, add them to utt2spk")
    names = {key: f"({speakers[key]}-{key})" for key in result.ids}
    for file, texts in (("ref.trn", refs), ("hyp.trn", hyps)):
        write_text(directory / file, "".join(" ".join([*texts[key].split(), names[key]]) + "\n" for key in result.ids))
    rows = [(key, c.ref_words, c.cor, c.sub, c.del_, c.ins) for key, c in zip(result.ids, result.utterance_counts, strict=True)]
    header = ("id", "ref_words", "cor", "sub", "del", "ins")
    write_text(directory / "utterances.tsv", "".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]))
    by_speaker = _group(result, speakers)
    write_text(directory / "result.txt", f"{_speaker_table(result, by_speaker)}\n{_pra(result, by_speaker, names)}")
    write_json(directory / "score.json", result.to_dict())
    return result


def _group(result: Score, speakers: Mapping[str, str]) -> dict[str, list[int]]:
    """Positions of each speaker's utterances, speakers in bytewise order."""
    groups: dict[str, list[int]] = {}
    for position, key in enumerate(result.ids):
        groups.setdefault(speakers[key], []).append(position)
    return dict(sorted(groups.items()))


def _speaker_table(result: Score, by_speaker: Mapping[str, list[int]]) -> str:
    """The table of sclite's ``-o sum``: a row per speaker, then sum, mean, standard deviation and median over speakers."""
    rows = [_numbers([result.utterance_counts[position] for position in group]) for group in by_speaker.values()]
    width = max(6, *map(len, by_speaker)) + 2
    spread = np.std(rows, axis=0, ddof=1) if len(rows) > 1 else np.zeros(8)
    lines = [_row(f" {name}".ljust(width), row) for name, row in zip(by_speaker, rows, strict=True)]
    thin, thick = "-" * (width + 56), "=" * (width + 56)
    rule = f"|{'-' * width}+{'-' * 13}+{'-' * 41}|"
    table = [
        f",{thin}.",
        f"|{_centred('hyp.trn', width + 56)}|",
        f"|{thin}|",
        f"|{' SPKR'.ljust(width)}| # Snt # Wrd | Corr    Sub    Del    Ins    Err  S.Err |",
        *(line for row in lines for line in (rule, row)),
        f"|{thick}|",
        _row(" Sum/Avg".ljust(width), _numbers(result.utterance_counts)),
        f"|{thick}|",
        _row(_centred(" Mean ", width), np.mean(rows, axis=0), digits=1),
        _row(_centred(" S.D. ", width), spread, digits=1),
        _row(_centred("Median", width), np.median(rows, axis=0), digits=1),
        f"`{thin}'",
    ]
    margin = " " * max(0, (80 - len(table[0])) // 2)
    title = _centred("SYSTEM SUMMARY PERCENTAGES by SPEAKER", 80)
    return "\n".join([title, "", *(margin + line for line in table)]) + "\n"


def _centred(text: str, width: int) -> str:
    """As sclite centres: an odd blank goes to the right."""
    return (" " * ((width - len(text)) // 2) + text).ljust(width)


def _numbers(counts: Sequence[Counts]) -> list[float]:
    """One row of the table: sentences, words, then percentages correct, sub, del, ins, err and of sentences with errors."""
    total = sum(counts, Counts(0, 0, 0, 0))
    of_words = (total.cor, total.sub, total.del_, total.ins, total.errors)
    wrong = sum(c.errors > 0 for c in counts)
    return [len(counts), total.ref_words, *(n / total.ref_words * 100 for n in of_words), wrong / len(counts) * 100]


def _row(name: str, numbers: Sequence[float] | np.ndarray, digits: int = 0) -> str:
    sentences, words, *rates = (_half_up(number) for number in numbers)
    sizes = f"{sentences:5.{digits}f} {words:6.{digits}f} "
    return f"|{name}|{sizes}|{' '.join(f'{rate:5.1f} ' for rate in rates)}|"


def _half_up(number: float) -> float:
    """Rounded to one digit as sclite does (6.25 is 6.3), where Python's formats round halves to even."""
    return math.floor(number * 10 + 0.5) / 10


def _pra(result: Score, by_speaker: Mapping[str, list[int]], names: Mapping[str, str]) -> str:
    """The alignments as sclite's ``-o pra`` writes them, without folding long lines."""
    blocks = []
    for number, (speaker, group) in enumerate(by_speaker.items()):
        blocks.append(f"Speaker sentences{number:4d}:  {speaker}   #utts: {len(group)}\n")
        blocks += [_pra_block(names[result.ids[position]], result.alignments[position]) for position in group]
    return "".join(blocks)


def _pra_block(name: str, alignment: Alignment) -> str:
    columns = [_pra_column(*pair, edit) for pair, edit in zip(alignment.pairs, alignment.edits, strict=True)]
    ref, hyp, marks = ("".join(cells) for cells in zip(*columns, strict=True))
    c = alignment.counts
    return f"id: {name}\nScores: (#C #S #D #I) {c.cor} {c.sub} {c.del_} {c.ins}\nREF:  {ref}\nHYP:  {hyp}\nEval: {marks}\n\n"


def _pra_column(ref: str | None, hyp: str | None, edit: str) -> tuple[str, str, str]:
    """Reference, hypothesis and mark, padded alike; errors are in upper case, unless case is all that differs."""
    if edit == "C" or (ref and hyp and ref.upper() == hyp.upper()):
        above, below = str(ref), str(hyp)
    else:
        above, below = (ref or "").upper(), (hyp or "").upper()
    above, below = above or "*" * len(below), below or "*" * len(above)
    width = max(len(above), len(below)) + 1
    return above.ljust(width), below.ljust(width), ("" if edit == "C" else edit).ljust(width)
