"""The files of a scored decoding, in the format of sclite's ``sum`` and ``pra`` reports."""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, BinaryIO

import numpy as np

from asrprune.data.packed import Packed
from asrprune.data.tables import joined, sha256_of_rows, some
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_file
from asrprune.scoring.wer import Alignment, Score, Tally, Texts, aligned, check_texts

_FILES = ("ref.trn", "hyp.trn", "utterances.tsv", "result.txt")
_PIECE = 1 << 20  # bytes to copy at once


def write_score(
    directory: Path, refs: Texts, hyps: Texts, speakers: Texts, *, ignore_case: bool = False, output_sha256: str | None = None
) -> Score:
    """Score and write ref.trn, hyp.trn, utterances.tsv, result.txt and, last, score.json into ``directory``.

    ``speakers`` are the rows of utt2spk. result.txt has the format of sclite's ``sum`` and ``pra`` reports. Only some numbers
    per utterance and the texts of a few thousand utterances are kept in memory.
    Letter case counts, as with ``sclite -s``, unless ``ignore_case``. ``output_sha256`` of the text goes into score.json.

    Raises:
        UserError: see ``check_texts``; or an utterance has no speaker.
    """
    try:
        check_texts(refs, hyps)
    except UserError as error:
        raise UserError(f"{directory}: {error}, or remove this directory if you do not need it") from None
    _check_speakers(refs, speakers)
    counted = [((key, text.lower()) for key, text in texts) if ignore_case else texts for texts in (refs, hyps)]
    tally, alignments = Tally(), aligned(*counted)
    with ExitStack() as files:
        ref_trn, hyp_trn, table, report = (files.enter_context(atomic_file(directory / name)) for name in _FILES)
        runs = _Runs(files.enter_context(TemporaryFile(dir=directory)))
        table.write("id\tref_words\tcor\tsub\tdel\tins\n")
        for (key, speaker), (words, characters) in zip(_speakers_of(refs, speakers), alignments, strict=True):
            name, c = f"({speaker}-{key})", words.counts
            tally.add(words, characters)
            ref_trn.write(" ".join([*words.ref, name]) + "\n")
            hyp_trn.write(" ".join([*words.hyp, name]) + "\n")
            table.write(f"{key}\t{c.ref_words}\t{c.cor}\t{c.sub}\t{c.del_}\t{c.ins}\n")
            runs.add(speaker, _pra_block(name, words))
        hashes = {"text_sha256": sha256_of_rows(refs), "output_sha256": output_sha256}
        result = tally.score(ignore_case).model_copy(update=hashes)
        _write_report(report.buffer, runs, tally.utterances)
    result.write(directory / "score.json")
    return result


def _check_speakers(refs: Texts, speakers: Texts) -> None:
    unassigned = Packed(ref[0] for ref, speaker in joined(refs, speakers) if ref and not speaker)
    if unassigned:
        raise UserError(f"utterances without a speaker: {some(unassigned)}; every utterance needs one, add them to utt2spk")


def _speakers_of(refs: Texts, speakers: Texts) -> Iterator[tuple[str, str]]:
    """Return (utterance, speaker) for the utterances in ``refs``."""
    return (speaker for ref, speaker in joined(refs, speakers) if ref and speaker)


class _Runs:
    """Runs of consecutive utterances of one speaker, and a file with sclite's ``-o pra`` text of each utterance.

    In a valid data directory each speaker has one run, so the file is read in the order in which it was written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.speakers = Packed()
        self.utterances, self._bytes = array("q", [0]), array("q", [0])  # run i begins at entry i and ends at entry i + 1

    def add(self, speaker: str, block: str) -> None:
        """Add an utterance."""
        if self.speakers[-1:] != [speaker]:
            self.speakers.append(speaker)
            self.utterances.append(self.utterances[-1])
            self._bytes.append(self._bytes[-1])
        self.utterances[-1] += 1
        self._bytes[-1] += self._file.write(block.encode())

    def copy(self, run: int, report: BinaryIO) -> None:
        """Copy the texts of a run to ``report``."""
        begin, end = self._bytes[run], self._bytes[run + 1]
        self._file.seek(begin)
        for place in range(begin, end, _PIECE):
            report.write(self._file.read(min(_PIECE, end - place)))


def _write_report(report: BinaryIO, runs: _Runs, counts: np.ndarray) -> None:
    """Write result.txt: the table by speaker, then the alignments, speakers in bytewise order; ``counts`` (U, 4)."""
    order = np.array(sorted(range(len(runs.speakers)), key=runs.speakers.__getitem__))
    begins = _begins(runs.speakers[run] for run in order)
    names = Packed(runs.speakers[run] for run in order[begins])
    numbers = np.column_stack([np.ones_like(counts[:, 0]), counts[:, 1:].any(axis=1), counts])
    of_runs = np.add.reduceat(numbers, runs.utterances[:-1], axis=0, dtype=np.int64)
    sums = np.add.reduceat(of_runs[order], begins, axis=0)
    report.writelines(f"{line}\n".encode() for line in _speaker_table(names, sums))
    ends = np.append(begins[1:], len(order))
    for number, (name, begin, end) in enumerate(zip(names, begins, ends, strict=True)):
        report.write(f"Speaker sentences{number:4d}:  {name}   #utts: {sums[number, 0]}\n".encode())
        for run in order[begin:end]:
            runs.copy(run, report)


def _begins(items: Iterable[str]) -> np.ndarray:
    """Return the indices at which a new item begins; equal items must be adjacent."""
    return np.fromiter((i for i, (ahead, item) in enumerate(pairwise(chain([None], items))) if item != ahead), dtype=np.int64)


def _speaker_table(names: Sequence[str], sums: np.ndarray) -> Iterator[str]:
    """Return the lines of sclite's ``-o sum``: a row per speaker, then sum, mean, standard deviation and median.

    ``sums`` (S, 6): sentences, sentences with errors, correct, substituted, deleted and inserted words.
    """
    rows = _numbers(sums)
    width = max(6, *map(len, names)) + 2
    spread = np.std(rows, axis=0, ddof=1) if len(rows) > 1 else np.zeros(8)
    thin, thick = "-" * (width + 56), "=" * (width + 56)
    rule = f"|{'-' * width}+{'-' * 13}+{'-' * 41}|"
    above = (
        f",{thin}.",
        f"|{_centred('hyp.trn', width + 56)}|",
        f"|{thin}|",
        f"|{' SPKR'.ljust(width)}| # Snt # Wrd | Corr    Sub    Del    Ins    Err  S.Err |",
    )
    by_speaker = (line for name, row in zip(names, rows, strict=True) for line in (rule, _row(f" {name}".ljust(width), row)))
    below = (
        f"|{thick}|",
        _row(" Sum/Avg".ljust(width), _numbers(sums.sum(axis=0, keepdims=True))[0]),
        f"|{thick}|",
        _row(_centred(" Mean ", width), np.mean(rows, axis=0), digits=1),
        _row(_centred(" S.D. ", width), spread, digits=1),
        _row(_centred("Median", width), np.median(rows, axis=0), digits=1),
        f"`{thin}'",
    )
    margin = " " * max(0, (80 - len(rule)) // 2)
    title = _centred("SYSTEM SUMMARY PERCENTAGES by SPEAKER", 80)
    return chain([title, ""], (margin + line for line in chain(above, by_speaker, below)), [""])


def _centred(text: str, width: int) -> str:
    """Centre a text as sclite does: if the blanks are odd in number, one more at the right."""
    return (" " * ((width - len(text)) // 2) + text).ljust(width)


def _numbers(sums: np.ndarray) -> np.ndarray:
    """Return the rows of the table (S, 8): sentences, words; percent correct, sub, del, ins, err, sentences with errors."""
    sentences, wrong, cor, sub, del_, ins = sums.T
    words = cor + sub + del_
    of_words = np.stack([cor, sub, del_, ins, sub + del_ + ins]) / words * 100
    return np.ascontiguousarray(np.stack([sentences, words, *of_words, wrong / sentences * 100]).T)


def _row(name: str, numbers: np.ndarray, digits: int = 0) -> str:
    sentences, words, *rates = map(_half_up, numbers.tolist())
    sizes = f"{sentences:5.{digits}f} {words:6.{digits}f} "
    return f"|{name}|{sizes}|{' '.join(f'{rate:5.1f} ' for rate in rates)}|"


def _half_up(number: float) -> float:
    """Round to one digit, halves up, as sclite does (6.25 is 6.3); Python's formats round halves to even."""
    return math.floor(number * 10 + 0.5) / 10


def _pra_block(name: str, alignment: Alignment) -> str:
    columns = [_pra_column(*pair, edit) for pair, edit in zip(alignment.pairs, alignment.edits, strict=True)]
    ref, hyp, marks = ("".join(cells) for cells in zip(*columns, strict=True))
    c = alignment.counts
    return f"id: {name}\nScores: (#C #S #D #I) {c.cor} {c.sub} {c.del_} {c.ins}\nREF:  {ref}\nHYP:  {hyp}\nEval: {marks}\n\n"


def _pra_column(ref: str | None, hyp: str | None, edit: str) -> tuple[str, str, str]:
    """Return reference, hypothesis and mark at equal width; errors are in upper case, unless only the case differs."""
    if edit == "C" or (ref and hyp and ref.upper() == hyp.upper()):
        above, below = str(ref), str(hyp)
    else:
        above, below = (ref or "").upper(), (hyp or "").upper()
    above, below = above or "*" * len(below), below or "*" * len(above)
    width = max(len(above), len(below)) + 1
    return above.ljust(width), below.ljust(width), ("" if edit == "C" else edit).ljust(width)
