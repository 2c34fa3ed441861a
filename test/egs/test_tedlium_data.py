"""The TED-LIUM recipes' data script on small layouts, right and wrong, and on a small corpus of that layout, counted anew."""

import functools
import logging
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from layouts import as_release_3
from scripts import load_script, refusal, snapshot

from asrprune.data.check import check_data_dir
from asrprune.data.kaldi import read_data_dir
from asrprune.data.tables import read_table
from asrprune.features.audio import read_audio

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "../shared/data/tedlium_like"
needs_sample = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
SETS = ("train", "dev", "test")


ted = load_script("egs/tedlium2/local/data.py")


# A small corpus of the same layout, to break: talks of 4 seconds

GAP = "{talk} 1 inter_segment_gap {start} {end} <o,,unknown> ignore_time_segment_in_scoring"
TALKS = {
    "train/AlGore_2006": [
        GAP.format(talk="AlGore_2006", start="0", end="0.50"),
        "AlGore_2006 1 AlGore_2006 0.50 1.65 <o,f0,male> <sil> thank you so(2) much {NOISE} it 's (AlGore_2006-0.50-1.65)",
        GAP.format(talk="AlGore_2006", start="1.65", end="1.65"),
        "AlGore_2006 1 AlGore_2006 1.65 4.00 <o,f0,male> 'cause they 'd 've <unk>",
    ],
    "train/AlGore_2006B": [
        ";; a comment",
        "",
        "AlGore_2006B 1 S1 0.25 1 <NA> {COUGH}",
        "AlGore_2006B 1 S1 1 2.5 <NA> café",
        "AlGore_2006B 1 S1 2.5 3 <NA> ignore_time_segment_in_scoring",
    ],
    "dev/Bo_2010": ["Bo_2010 1 Bo 0.5 4.005 <F0_M> two words"],
    "test/Cy-D_2011": ["Cy-D_2011 A Cy 0.5 2 <F0_F> one", "Cy-D_2011 A Cy 0.5 2 <F0_F> one", "Cy-D_2011 A Cy 3 3.5 <F0_F> two"],
}
TEXTS = {
    "train": {
        "AlGore_2006-0000050-0000165": "thank you so much it's",
        "AlGore_2006-0000165-0000400": "'cause they'd've <unk>",
        "AlGore_2006B-0000100-0000250": "café",
    },
    "dev": {"Bo_2010-0000050-0000400": "two words"},
    "test": {"Cy-D_2011-0000050-0000200": "one", "Cy-D_2011-0000300-0000350": "two"},
}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``TEDLIUM_release2`` with four talks."""
    corpus = tmp_path / "downloads/TEDLIUM_release2"
    monkeypatch.setattr(ted, "NUM_TALKS", {"2": 4, "3": 4})
    for name, lines in TALKS.items():
        _write_talk(corpus / Path(name).parent, Path(name).name, lines)
    return corpus


def _write_talk(directory: Path, talk: str, lines: list[str]) -> None:
    for kind in ("sph", "stm"):
        (directory / kind).mkdir(parents=True, exist_ok=True)
    samples = np.arange(4 * 16000) / 65536
    soundfile.write(directory / f"sph/{talk}.sph", samples, 16000, format="NIST", subtype="PCM_16")
    (directory / f"stm/{talk}.stm").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _run(command: str, root: Path, *options: str, release: str = "2") -> int:
    where = ["--download_dir", str(root / "downloads"), "--work_dir", str(root / "work"), "--data_dir", str(root / "data")]
    return int(ted.main([command, "--release", release, *where, *options]))


def _sentence(capsys: pytest.CaptureFixture[str], root: Path, *options: str) -> str:
    """What `prepare` says when it fails."""
    return refusal(_run("prepare", root, *options), capsys, root / "data")


def test_the_three_sets(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = snapshot(corpus)
    assert _run("download", tmp_path) == _run("prepare", tmp_path) == 0
    assert snapshot(corpus) == before
    assert not (tmp_path / "work").exists()
    for name in SETS:
        directory = tmp_path / "data" / name
        assert check_data_dir(directory).faults == []
        assert read_table(directory / "text") == TEXTS[name]
        assert read_table(directory / "utt2spk") == {key: key.rpartition("-")[0].rpartition("-")[0] for key in TEXTS[name]}
        talks = {utt.recording for utt in read_data_dir(directory)}
        assert read_table(directory / "wav.scp") == {talk: f"{corpus}/{name}/sph/{talk}.sph" for talk in talks}
    assert read_table(tmp_path / "data/test/segments")["Cy-D_2011-0000300-0000350"] == "Cy-D_2011 3 3.5"
    assert "segments without words" in caplog.text
    assert f"{tmp_path}/data/train: 3 utterances, 2 speakers, 9 words, 0.0014 hours; left out: 3 gaps" in caplog.text
    assert "left out: 1 repeated lines" in caplog.text
    (utt,) = read_data_dir(tmp_path / "data/dev")
    samples = read_audio(utt.audio, 16000, utt.start_s, utt.end_s)
    assert samples[0] == pytest.approx(8000 / 65536, abs=1e-4), "starts at half a second"
    assert len(samples) == 3.5 * 16000


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("it 's  what we 're", "it's what we're"),
        ("the 'em", "the'em"),
        ("'em", "'em"),
        ("a(2) b(13) c", "a b(13) c"),
        ("word {NOISE} 's", "word's"),
        ("[NOISE] <sil> (X_2009-12)", ""),
        ("(not) the end", "(not) the end"),
        ("<unk>", "<unk>"),
    ],
)
def test_what_is_said(said: str, words: str) -> None:
    assert ted.words_of(said) == words


def test_a_missing_or_incomplete_corpus_is_an_error(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("sph", "stm"):
        (corpus / f"train/{kind}/AlGore_2006B.{kind}").unlink()
    said = _sentence(capsys, tmp_path)
    assert f"{corpus}: holds 3 talks, but TED-LIUM 2 has 4" in said
    assert "--parts found" in said
    assert _run("prepare", tmp_path, "--parts", "found") == 0
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(corpus)
    said = _sentence(capsys, tmp_path)
    assert said.startswith(f"TEDLIUM_release2: found neither in {tmp_path}/downloads nor in {tmp_path}/work; stage 0")
    assert _run("download", tmp_path, "--parts", "found") == 1


def test_release_3_in_its_own_layout(corpus: Path, tmp_path: Path) -> None:
    """The archive holds the legacy sets as links into data/."""
    as_release_3(corpus, tmp_path / "made")
    shutil.rmtree(corpus)
    with tarfile.open(tmp_path / "downloads/TEDLIUM_release-3.tgz", "w:gz") as tar:
        tar.add(tmp_path / "made/TEDLIUM_release-3", "TEDLIUM_release-3")
    assert _run("download", tmp_path, "--parts", "found", release="3") == 0
    assert _run("prepare", tmp_path, "--parts", "found", release="3") == 0
    for name in SETS:
        assert check_data_dir(tmp_path / "data" / name).faults == []
        assert read_table(tmp_path / "data" / name / "text") == TEXTS[name]


def _add(path: Path, line: str) -> None:
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(line + "\n")


STM = "train/stm/AlGore_2006.stm"
RULE = "TALK CHANNEL SPEAKER START END <LABEL> WORDS"
BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no label": (lambda root: _add(root / STM, "AlGore_2006 1 AlGore_2006 2 3 two words"), f"2006.stm:5: reads .*{RULE}"),
    "time": (lambda root: _add(root / STM, "AlGore_2006 1 AlGore_2006 2 x <o> word"), f"2006.stm:5: reads .*{RULE}"),
    "nan": (lambda root: _add(root / STM, "AlGore_2006 1 AlGore_2006 nan 3 <o> word"), f"2006.stm:5: reads .*{RULE}"),
    "no length": (lambda root: _add(root / STM, "AlGore_2006 1 AlGore_2006 2 2 <o> word"), "2006.stm:5: .*0 <= START < END"),
    "negative": (lambda root: _add(root / STM, "AlGore_2006 1 AlGore_2006 -1 2 <o> word"), "2006.stm:5: .*0 <= START < END"),
    "one field": (lambda root: _add(root / STM, "word"), f"2006.stm:5: reads 'word', .*{RULE}"),
    "other talk": (lambda root: _add(root / STM, "Who_1 1 Who_1 2 3 <o> word"), "2006.stm:5: Who_1: its audio .*/Who_1.sph is"),
    "other words": (
        lambda root: _add(root / STM, "AlGore_2006 1 AlGore_2006 0.5 1.65 <o> word"),
        "2006.stm:5: AlGore_2006-0000050-0000165: has the times of line 2 and other words",
    ),
    "beyond, in dev": (
        lambda root: _add(root / "dev/stm/Bo_2010.stm", "Bo_2010 1 Bo 3 4.75 <o> word"),
        "Bo_2010.stm:2: Bo_2010-0000300-0000475: ends at 4.75 s, but its recording .*/Bo_2010.sph at 4.000 s",
    ),
    "behind, in test": (
        lambda root: _add(root / "test/stm/Cy-D_2011.stm", "Cy-D_2011 1 Cy 4.1 4.2 <o> word"),
        "Cy-D_2011.stm:4: Cy-D_2011-0000409-0000420: ends at 4.2 s, but its recording .* at 4.000 s",
    ),
    "no audio": (lambda root: (root / "dev/sph/Bo_2010.sph").unlink(), "Bo_2010.stm:1: Bo_2010: its audio .* is missing"),
    "no transcript": (lambda root: (root / "dev/stm/Bo_2010.stm").rename(root / "dev/stm/x"), "dev/stm: holds no stm files"),
    "one transcript fewer": (lambda root: (root / STM).unlink(), "sph/AlGore_2006.sph: has no transcript stm/AlGore_2006.stm"),
    "truncated": (lambda root: _truncate(root / "dev/sph/Bo_2010.sph"), "Bo_2010.sph: is truncated"),
    "not text": (lambda root: (root / STM).write_bytes(b"\xff"), "2006.stm: cannot be read .*utf-8"),
    "no set": (lambda root: shutil.rmtree(root / "test"), "test/stm: holds no stm files"),
}


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("case", BREAKAGES)
def test_faults_are_one_sentence_with_their_line(
    case: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breakage, said = BREAKAGES[case]
    breakage(corpus)
    error = _sentence(capsys, tmp_path)
    assert re.search(said, error), error
    assert error.startswith(f"{corpus}/")


def test_all_faults_are_told_at_once(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = ("time", "truncated", "behind, in test")
    for case in cases:
        BREAKAGES[case][0](corpus)
    assert _run("prepare", tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for line, case in zip(lines, cases, strict=True):
        assert re.search(BREAKAGES[case][1], line)


def test_ids_are_those_of_kaldis_awk(tmp_path: Path) -> None:
    hundredths = range(0, 20000, 7)
    lines = "".join(f"AlGore_2006 1 AlGore_2006 {n / 100:.2f} {(n + 1) / 100:.2f} <o> word\n" for n in hundredths)
    script = '{printf("%s-%07d-%07d\\n", $1, $4 * 100, $5 * 100)}'  # Kaldi's and ESPnet's recipes for these corpora
    theirs = subprocess.run(["awk", script], input=lines, capture_output=True, text=True, check=True).stdout.split()
    notes = ted.Notes()
    ours = [ted._parse("x:1", line, tmp_path, {"AlGore_2006": 200.0}, notes).id for line in lines.splitlines()]
    assert ours == theirs
    assert any(key != f"AlGore_2006-{n:07d}-{n + 1:07d}" for key, n in zip(ours, hundredths, strict=True))


def test_segments_beyond_their_recording(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A little is cut, wherever it is; more costs a training set the segment. Both are said with their line."""
    _add(corpus / STM, "AlGore_2006 1 AlGore_2006 3 4.5 <o> cut")
    _add(corpus / STM, "AlGore_2006 1 AlGore_2006 3 4.51 <o> lost")
    _add(corpus / STM, "AlGore_2006 1 AlGore_2006 4 4.2 <o> lost too")
    _add(corpus / "test/stm/Cy-D_2011.stm", "Cy-D_2011 1 Cy 3.5 4.25 <o> cut")
    assert _run("prepare", tmp_path) == 0
    ends = {utt.id: utt.end_s for name in SETS for utt in read_data_dir(tmp_path / "data" / name)}
    assert ends["AlGore_2006-0000300-0000450"] == ends["Cy-D_2011-0000350-0000425"] == 4.0
    assert not {"AlGore_2006-0000300-0000451", "AlGore_2006-0000400-0000420"} & ends.keys()
    assert all(check_data_dir(tmp_path / "data" / name).faults == [] for name in SETS)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [re.sub(".*/", "", line.split(": ")[0]) for line in said] == [
        "AlGore_2006.stm:5", "AlGore_2006.stm:6", "AlGore_2006.stm:7", "Cy-D_2011.stm:4"
    ]  # fmt: skip
    assert [line.rpartition("; ")[2] for line in said] == ["it is cut there", *["it is left out"] * 2, "it is cut there"]


def test_checksums_are_torchaudios() -> None:
    known = pytest.importorskip("torchaudio.datasets.tedlium")._RELEASE_CONFIGS
    for release, archive in ted.ARCHIVES.items():
        theirs = known[f"release{release}"]
        assert archive.url.removeprefix("https:") == theirs["url"].removeprefix("http:")
        assert archive.sha256 == theirs["checksum"]
        assert archive.holds.split("/")[0] == theirs["folder_in_archive"]


# Real speech in the layout


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe directory after stages 0 and 1."""
    work = tmp_path_factory.mktemp("tedlium")
    before = snapshot(SHARED)
    where = ["--download_dir", str(SHARED), "--work_dir", str(work / "downloads"), "--data_dir", str(work / "data")]
    for command in ("download", "prepare"):
        assert ted.main([command, "--release", "2", *where, "--parts", "found"]) == 0
    assert snapshot(SHARED) == before
    return work


@functools.cache
def _tar_facts() -> dict[str, dict[tuple[str, float, float], str]]:
    """Straight from the archive: set -> (talk, start, end) -> what the stm file says."""
    facts: dict[str, dict[tuple[str, float, float], str]] = {name: {} for name in SETS}
    with tarfile.open(SHARED / "TEDLIUM_release2.tar.gz") as tar:
        for member in tar:
            if (handle := tar.extractfile(member)) is None or not member.name.endswith(".stm"):
                continue
            for line in handle.read().decode().splitlines():
                talk, _, _, start, end, _, *words = line.split()
                if "inter_segment_gap" not in line:
                    facts[member.name.split("/")[1]][talk, float(start), float(end)] = " ".join(words)
    return facts


@needs_sample
@pytest.mark.parametrize(("name", "size"), [("train", (29, 888)), ("dev", (7, 186)), ("test", (14, 208))])
def test_a_sample_holds_what_its_archive_holds(name: str, size: tuple[int, int], sample: Path) -> None:
    facts = _tar_facts()[name]
    utts = read_data_dir(sample / "data" / name)
    joined = {key: text.replace(" '", "'") for key, text in facts.items()}
    assert {(utt.recording, utt.start_s, utt.end_s): utt.text for utt in utts} == joined
    assert (len(utts), sum(len(text.split()) for text in joined.values())) == size
    assert check_data_dir(sample / "data" / name).faults == []
    talks = {talk for talk, _, _ in facts}
    assert read_table(sample / "data" / name / "wav.scp").keys() == talks


@needs_sample
def test_a_sample_does_not_pass_for_the_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--download_dir", str(SHARED), "--work_dir", str(tmp_path / "downloads"), "--data_dir", str(tmp_path / "data")]
    assert ted.main(["download", "--release", "2", *where]) == 1
    error = capsys.readouterr().err
    assert "TEDLIUM_release2.tar.gz: is not the file at" in error
    assert error.count("\n") == 1
