"""Scoring against what sclite itself said (test/fixtures/sclite, recorded by tools/record_sclite.sh)."""

import json
import random
import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from asrprune.runtime.errors import UserError
from asrprune.scoring import bootstrap, sclite
from asrprune.scoring import wer as scoring
from asrprune.scoring.sclite import write_score
from asrprune.scoring.wer import Alignment, Counts, Score, aligned, score

SCLITE = Path(__file__).resolve().parents[1] / "fixtures/sclite"


def read_trn(path: Path) -> dict[str, str]:
    """Texts by ``speaker-utterance``."""
    lines = (line.rpartition("(") for line in path.read_text(encoding="utf-8").splitlines())
    return {name.rstrip(")"): text.strip() for text, _, name in lines}


def pra_blocks(text: str) -> dict[str, str]:
    """The report of each utterance, from ``id:`` to its last line, by ``speaker-utterance``."""
    return {name: block.rstrip("\n") for block, name in re.findall(r"(id: \((\S+)\)\n(?:.+\n)+)", text)}


REFS, HYPS = read_trn(SCLITE / "ref.trn"), read_trn(SCLITE / "hyp.trn")
RECORDED = pra_blocks((SCLITE / "pra.txt").read_text(encoding="utf-8"))
TABLE = re.findall(r" +([,|`].*[.|'])\n", (SCLITE / "sum.txt").read_text(encoding="utf-8"))
SPEAKERS = {name: name.split("-")[0] for name in REFS}


def recorded_counts(name: str) -> Counts:
    return Counts(*map(int, re.search(r"#I\) (\d+) (\d+) (\d+) (\d+)", RECORDED[name]).groups()))


def align(ref: str, hyp: str) -> Alignment:
    """The words of one utterance, aligned alone."""
    return next(aligned([("u", ref)], [("u", hyp)]))[0]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Score, Path]:
    """The fixture scored with utterance ids that do not name the speaker, as sclite puts the two together."""
    directory = tmp_path_factory.mktemp("score")
    refs, hyps, speakers = ({key.split("-")[1]: value for key, value in given.items()} for given in (REFS, HYPS, SPEAKERS))
    speakers["not-in-the-set"] = "nobody"
    return write_score(directory, *(sorted(rows.items()) for rows in (refs, hyps, speakers))), directory


def test_every_utterance_has_sclites_counts() -> None:
    assert len(RECORDED) == len(REFS) >= 300
    assert min(len(text.split()) for text in HYPS.values()) == 0
    assert max(len(text.split()) for text in REFS.values()) > 40
    wrong = [name for name in REFS if align(REFS[name], HYPS[name]).counts != recorded_counts(name)]
    assert wrong == []


def test_ties_are_settled_as_sclite_does() -> None:
    # All cost 15; preferring fewer errors would give 1 3 1 0. The fixture has this pair among its twelve ties.
    assert align("c c a a b", "a b d a").counts == Counts(2, 0, 3, 2)
    assert recorded_counts(next(name for name in REFS if REFS[name] == "c c a a b")) == Counts(2, 0, 3, 2)


def test_the_report_is_sclites_own(scored: tuple[Score, Path]) -> None:
    blocks = pra_blocks((scored[1] / "result.txt").read_text(encoding="utf-8"))
    assert blocks.keys() == RECORDED.keys()
    # sclite measures and upper-cases words in bytes, so only plain letters can look the same.
    plain = [name for name in RECORDED if RECORDED[name].isascii()]
    assert len(plain) > 300
    assert [name for name in plain if blocks[name] != RECORDED[name]] == []


def test_the_table_is_sclites_own(scored: tuple[Score, Path]) -> None:
    text = (scored[1] / "result.txt").read_text(encoding="utf-8")
    assert len(TABLE) > 20
    assert [line.strip() for line in text.splitlines()[2 : 2 + len(TABLE)]] == TABLE
    assert re.search(r"Speaker sentences   0:  fc01   #utts: (\d+)", text).group(1) == TABLE[5].split()[3]


def test_speakers_in_the_order_of_the_ids_are_written_as_any_others(scored: tuple[Score, Path], tmp_path: Path) -> None:
    write_score(tmp_path, sorted(REFS.items()), sorted(HYPS.items()), sorted(SPEAKERS.items()))
    written = (tmp_path / "result.txt").read_text(encoding="utf-8")
    assert re.sub(r"^id: \(\w+-", "id: (", written, flags=re.MULTILINE) == (scored[1] / "result.txt").read_text(
        encoding="utf-8"
    )


def test_trn_files_are_what_sclite_read(scored: tuple[Score, Path]) -> None:
    for name in ("ref.trn", "hyp.trn"):
        written = (scored[1] / name).read_text(encoding="utf-8")
        assert sorted(written.splitlines()) == sorted((SCLITE / name).read_text(encoding="utf-8").splitlines())


def test_utterances_and_speakers_add_up(scored: tuple[Score, Path]) -> None:
    result, directory = scored
    header, *rows = (line.split("\t") for line in (directory / "utterances.tsv").read_text().splitlines())
    assert header == ["id", "ref_words", "cor", "sub", "del", "ins"]
    assert [row[0] for row in rows] == sorted(name.split("-")[1] for name in REFS)
    sums = np.array([[int(cell) for cell in row[1:]] for row in rows]).sum(axis=0).tolist()
    assert sums == [result.ref_words, result.cor, result.sub, result.del_, result.ins]
    total = sum((recorded_counts(name) for name in RECORDED), Counts(0, 0, 0, 0))
    assert Counts(result.cor, result.sub, result.del_, result.ins) == total


def test_score_json(scored: tuple[Score, Path]) -> None:
    result, directory = scored
    written = json.loads((directory / "score.json").read_text())
    names = ["wer", "wer_ci95", "cer", "sub", "del", "ins", "cor", "ref_words", "utterances", "sentence_error", "text_sha256"]
    assert list(written) == names
    assert Score.read(directory / "score.json") == result
    assert written["wer"] == round(100 * (written["sub"] + written["del"] + written["ins"]) / written["ref_words"], 4)
    average = next(line for line in TABLE if "Sum/Avg" in line).replace("|", " ").split()
    assert [written["utterances"], written["ref_words"]] == [int(average[1]), int(average[2])]
    assert [round(written[key], 1) for key in ("wer", "sentence_error")] == [float(average[7]), float(average[8])]
    low, high = written["wer_ci95"]
    assert low < written["wer"] < high
    assert 1 < high - low < 10


def test_utterances_scored_together_are_aligned_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted(REFS)
    alone = [align(REFS[name], HYPS[name]) for name in names]
    for cells in (1 << 20, 500):
        monkeypatch.setattr(scoring, "_MAX_CELLS", cells)
        monkeypatch.setattr(scoring, "_ALIGNED_AT_ONCE", cells)
        assert [words for words, _ in aligned(sorted(REFS.items()), sorted(HYPS.items()))] == alone


def test_batches_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_MAX_CELLS", 400)
    rng = random.Random(4)
    pairs = [("a" * rng.randrange(30), "b" * rng.randrange(30)) for _ in range(300)]
    batches = list(scoring._batches(pairs, range(1, 300)))
    assert sorted(index for batch in batches for index in batch) == list(range(1, 300))
    for batch in batches:
        rows, columns = (max(len(pairs[index][side]) + 1 for index in batch) for side in (0, 1))
        assert len(batch) == 1 or len(batch) * rows * columns <= 400
    assert max(map(len, batches)) > 3


def test_long_texts_are_aligned_as_short_ones_in_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    pairs = [tuple(" ".join(draw.choices("abc", k=draw.randint(1, 40))) for _ in range(2)) for _ in range(40)]
    texts = [[(f"{number:02d}", pair[side]) for number, pair in enumerate(pairs)] for side in (0, 1)]
    short = list(aligned(*texts))
    monkeypatch.setattr("asrprune.scoring.wer._MAX_CELLS", 0)
    monkeypatch.setattr("asrprune.scoring.wer._LONG", 0)
    assert list(aligned(*texts)) == short
    tracemalloc.start()
    next(aligned([("u", "a b " * 1500)], [("u", "b c " * 1500)]))
    peak = [tracemalloc.get_traced_memory()[1], tracemalloc.stop()][0]
    assert peak < 20e6, "the table of the characters has 144 MB"


def test_alignment_holds_both_sides() -> None:
    rng = random.Random(3)
    for _ in range(200):
        ref, hyp = (rng.choices("abc", k=rng.randrange(8)) for _ in range(2))
        pairs = align(" ".join(ref), " ".join(hyp)).pairs
        assert [word for word, _ in pairs if word is not None] == ref
        assert [word for _, word in pairs if word is not None] == hyp
        assert (None, None) not in pairs


def test_hand_worked_rates() -> None:
    result = score({"b": "the cat sat", "a": "a dog"}, {"a": "a dog", "b": "the cat  sat down"})
    assert (result.wer, result.sentence_error) == (20.0, 50.0)
    assert (result.cor, result.sub, result.del_, result.ins) == (5, 0, 0, 1)
    assert score({"a": "a b"}, {"a": ""}).wer == 100
    assert score({"a": "a"}, {"a": "b c d"}).wer == 300
    assert score({"a": "Cat"}, {"a": "cat"}).wer == 100


def test_cer_counts_blanks_as_espnet_does() -> None:
    assert score({"a": "ab c"}, {"a": "abc"}).cer == 25
    assert score({"a": " ab   c "}, {"a": "ab c"}).cer == 0
    assert score({"a": "ab c"}, {"a": ""}).cer == 100


def test_an_error_of_case_alone_stays_visible(tmp_path: Path) -> None:
    write_score(tmp_path, [("u", "the Cat")], [("u", "teh cat")], [("u", "s")])
    assert "REF:  THE Cat \nHYP:  TEH cat \nEval: S   S   \n" in (tmp_path / "result.txt").read_text()


def test_words_that_look_the_same_are_told() -> None:
    """An accent is a character of its own, or not."""
    found = score({"u": "un caf\u00e9 noir"}, {"u": "un cafe\u0301 noire"})
    assert (found.sub, found.form_errors, found.case_errors) == (2, 1, 0)


@pytest.mark.parametrize(
    ("refs", "hyps", "says"),
    [
        ({"a": "x", "b": "y"}, {"b": "y"}, r"^references without a hypothesis: a; both .*same set$"),
        ({"a": "x"}, {"a": "x", "c": ""}, r"^hypotheses without a reference: c; both .*same set$"),
        ({f"u{i}": "x" for i in range(7)}, {"z": "x"}, r"^ref.*: u0, u1, u2, u3, u4 and 2 more; hyp.*: z; "),
        ({"a": " ", "b": "x"}, {"a": "x", "b": "x"}, r"^empty references: a; every"),
        ({"a": ""}, {"a": "x"}, r"^the references have no words"),
        ({}, {}, r"^the references have no words"),
    ],
)
def test_what_cannot_be_scored_is_refused(refs: dict[str, str], hyps: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        score(refs, hyps)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("a", "x"), ("b", "y")]
    write_score(tmp_path, rows, rows, rows)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 5

    def full(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(sclite, "_write_report", full)
    with pytest.raises(OSError, match=r"^$"):
        write_score(tmp_path, [("a", "x"), ("b", "z")], rows, rows)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@dataclass
class Stream:
    """Rows made as they are read, as often as they are read."""

    count: int
    text: str

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((f"{i // 100:02d}-{i:05d}", self.text.format(i // 100)) for i in range(self.count))


def test_memory_does_not_grow_with_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        write_score(tmp_path, Stream(count, "one two three"), Stream(count, "one too three"), Stream(count, "s{}"))
        return [tracemalloc.get_traced_memory()[1], tracemalloc.stop()][0]

    monkeypatch.setattr(scoring, "_ALIGNED_AT_ONCE", 100)
    monkeypatch.setattr(bootstrap, "_MOST_RESAMPLED", 0)
    peak(2_000)  # imports and caches
    assert peak(2_000) < peak(200) + 1_800 * 150  # 16 bytes an utterance, and a few temporary arrays at the end


def test_an_utterance_without_speaker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^utterances without a speaker: b; .*utt2spk$"):
        write_score(tmp_path, [("a", "x"), ("b", "x")], [("a", "x"), ("b", "x")], [("a", "s")])
    assert not list(tmp_path.iterdir())
