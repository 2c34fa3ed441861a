"""The LibriSpeech recipe's data script on small layouts, right and wrong, and on a real part of the corpus, counted anew."""

import functools
import hashlib
import logging
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import tree
from scripts import edit, load_script, refusal, snapshot

from asrprune.data.check import check_data_dir
from asrprune.data.kaldi import read_data_dir
from asrprune.data.tables import read_table
from asrprune.features.audio import audio_info

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "../shared/data/librispeech"
needs_sample = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")


libri = load_script("egs/librispeech/local/data.py")
published = load_script("egs/librispeech/local/lm.py")


# A small corpus of the same layout, to break

# part: reader-chapter of its chapters, each of two utterances
CHAPTERS = {
    "train-clean-100": ["103-1240", "1034-12", "19-198", "19-227", "26-495"],
    "train-clean-360": ["14-208"],
    "train-other-500": ["20-205"],
    "dev-clean": ["84-121123"],
    "dev-other": ["116-288045"],
    "test-clean": ["61-70968"],
    "test-other": ["367-130732"],
}
FEMALE = ("19", "103", "84", "61")


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``LibriSpeech`` with all seven parts."""
    corpus = tmp_path / "downloads/LibriSpeech"
    monkeypatch.setattr(libri, "PARTS", {part: (2 * len(names), "0" * 64) for part, names in CHAPTERS.items()})
    for part, names in CHAPTERS.items():
        for name in names:
            _write_chapter(corpus / part, name)
    lines = [
        f"{name.split('-')[0]:4} | {'F' if name.split('-')[0] in FEMALE else 'M'} | {part:16} | 25.19 | Some | Body"
        for part, names in CHAPTERS.items()
        for name in names
    ]
    (corpus / "SPEAKERS.TXT").write_text("; Some pipe(|) separated metadata\n;ID  |SEX| SUBSET\n" + "\n".join(lines) + "\n")
    return corpus


def _write_chapter(part: Path, name: str) -> None:
    directory = part / name.replace("-", "/")
    directory.mkdir(parents=True)
    for number in range(2):
        soundfile.write(directory / f"{name}-{number:04d}.flac", np.zeros(1600 * (number + 1)), 16000)
    (directory / f"{name}.trans.txt").write_text(f"{name}-0000 A DOG'S LIFE\n{name}-0001 {part.name[:3].upper()} TOO\n")


def _run(command: str, root: Path, *options: str) -> int:
    where = ["--download_dir", str(root / "downloads"), "--work_dir", str(root / "work"), "--data_dir", str(root / "data")]
    return int(libri.main([command, *where, *options]))


def _sentence(capsys: pytest.CaptureFixture[str], root: Path, *options: str) -> str:
    """What `prepare` says when it fails."""
    return refusal(_run("prepare", root, *options), capsys, root / "data")


@pytest.mark.parametrize(
    ("subset", "train"),
    [
        ("100", ["103-1240", "1034-12", "19-198", "19-227", "26-495"]),
        ("960", ["103-1240", "1034-12", "14-208", "19-198", "19-227", "20-205", "26-495"]),
    ],
)
def test_sets_are_made_of_their_parts(subset: str, train: list[str], corpus: Path, tmp_path: Path) -> None:
    before = snapshot(corpus)
    assert _run("download", tmp_path, "--subset", subset) == 0
    assert _run("prepare", tmp_path, "--subset", subset) == 0
    assert snapshot(corpus) == before
    assert not (tmp_path / "work").exists(), "nothing is fetched or unpacked of what is there"
    names = {f"train_{subset}", "dev", "dev_clean", "dev_other", "test_clean", "test_other"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == names
    chapters = {f"train_{subset}": train, "dev": ["116-288045", "84-121123"]}
    chapters |= {"dev_clean": ["84-121123"], "dev_other": ["116-288045"]}
    chapters |= {"test_clean": ["61-70968"], "test_other": ["367-130732"]}
    for name in names:
        directory = tmp_path / "data" / name
        assert check_data_dir(directory).faults == []
        assert [utt.id for utt in read_data_dir(directory)] == [f"{key}-000{n}" for key in chapters[name] for n in (0, 1)]
        assert {utt.speaker for utt in read_data_dir(directory)} == {key.split("-")[0] for key in chapters[name]}
        for reader, gender in read_table(directory / "spk2gender").items():
            assert gender == ("f" if reader in FEMALE else "m")
    first = read_data_dir(tmp_path / "data/test_clean")[0]
    assert (first.text, first.speaker) == ("A DOG'S LIFE", "61")
    assert first.audio == str(corpus / "test-clean/61/70968/61-70968-0000.flac")


def test_download_dir_may_be_the_corpus_itself_and_parts_may_be_unpacked_elsewhere(corpus: Path, tmp_path: Path) -> None:
    shutil.move(corpus / "dev-other", tmp_path / "work/unpacked_dev-other/LibriSpeech/dev-other")
    where = ["--download_dir", str(corpus), "--work_dir", str(tmp_path / "work"), "--data_dir", str(tmp_path / "data")]
    assert libri.main(["prepare", *where]) == 0
    assert len(read_data_dir(tmp_path / "data/dev")) == 4


def test_a_missing_part_is_an_error_that_names_it(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(corpus / "dev-other")
    shutil.rmtree(corpus / "train-clean-360")
    said = _sentence(capsys, tmp_path)
    assert said.startswith(f"dev-other: found neither in {tmp_path}/downloads nor in {tmp_path}/work; stage 0 fetches")
    assert "--parts found" in said
    assert _sentence(capsys, tmp_path, "--subset", "960").startswith("train-clean-360, dev-other: found neither")


def test_an_incomplete_part_is_an_error(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(corpus / "train-clean-100/26")
    said = _sentence(capsys, tmp_path)
    assert f"{corpus}/train-clean-100: holds 8 utterances, but train-clean-100 has 10" in said
    assert "--parts found" in said
    assert _run("prepare", tmp_path, "--parts", "found") == 0


def test_a_sample_says_what_is_there_and_holds_readers_out(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert _run("prepare", tmp_path) == 0
    for part in ("dev-clean", "dev-other", "test-clean"):
        shutil.rmtree(corpus / part)
    for number in range(11):
        _write_chapter(corpus / "train-clean-100", f"70{number:02d}-1")
    assert _run("download", tmp_path, "--parts", "found") == 0
    assert _run("prepare", tmp_path, "--parts", "found") == 0
    assert (
        "found: train-clean-100 (32 utterances), test-other (2 utterances); missing: dev-clean, dev-other, test-clean;"
        " dev is every tenth reader of train_100; there is no test_clean, so leave it out of --test_sets" in caplog.messages
    )
    readers = {name: {utt.speaker for utt in read_data_dir(tmp_path / "data" / name)} for name in ("train_100", "dev")}
    assert readers["dev"] == {"7000", "7010"}, "the fifth and the fifteenth of 15"
    assert len(readers["train_100"]) == 13
    assert not readers["train_100"] & readers["dev"]
    for name in ("dev_clean", "test_clean"):
        assert not (tmp_path / f"data/{name}/wav.scp").exists(), "an older set must not pass for the sample's"
    assert "SPEAKERS.TXT lacks 7000, 7010" in caplog.text
    assert not (tmp_path / "data/dev/spk2gender").exists()


def test_what_a_sample_unpacks_does_not_mix_with_the_corpus(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "downloads/test-clean.tar.gz", "w:gz") as tar:
        tar.add(corpus / "test-clean", "LibriSpeech/test-clean")
    shutil.rmtree(corpus / "test-clean")
    assert _run("download", tmp_path, "--parts", "found") == 0
    assert _sentence(capsys, tmp_path).startswith("test-clean: found neither")
    assert _run("prepare", tmp_path, "--parts", "found") == 0
    assert len(read_data_dir(tmp_path / "data/test_clean")) == 2


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("train-clean-100", "train-clean-100: found neither in .*; a train set is needed"),
        ("test-clean test-other", "test-clean, test-other: found neither in .*; a test set is needed"),
    ],
)
def test_a_sample_needs_something_to_train_and_to_test_on(
    gone: str, said: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in gone.split():
        shutil.rmtree(corpus / part)
    assert re.match(said, _sentence(capsys, tmp_path, "--parts", "found"))
    assert _run("download", tmp_path, "--parts", "found") == 1
    assert re.match(said, capsys.readouterr().err)


def test_one_reader_alone_cannot_be_held_out(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("dev-clean", "dev-other"):
        shutil.rmtree(corpus / part)
    for reader in ("103", "1034", "26"):
        shutil.rmtree(corpus / "train-clean-100" / reader)
    assert "has one reader alone, 19" in _sentence(capsys, tmp_path, "--parts", "found")


TRANSCRIPT = "train-clean-100/19/198/19-198.trans.txt"
BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no audio": (
        lambda root: (root / "train-clean-100/19/198/19-198-0001.flac").unlink(),
        r"19-198.trans.txt:2: 19-198-0001: its audio 19-198-0001.flac is missing",
    ),
    "no words": (lambda root: edit(root / TRANSCRIPT, " TRA TOO", " "), r"19-198.trans.txt:2: reads '19-198-0001 '"),
    "no id": (lambda root: edit(root / TRANSCRIPT, "19-198-0000 ", ""), r"19-198.trans.txt:1: reads \"A DOG'S LIFE\""),
    "empty line": (lambda root: edit(root / TRANSCRIPT, "\n19-", "\n\n19-"), r"19-198.trans.txt:2: reads ''"),
    "other chapter": (lambda root: edit(root / TRANSCRIPT, "19-198-0001", "19-199-0001"), r"19-198.trans.txt:2: reads"),
    "twice": (lambda root: edit(root / TRANSCRIPT, "0001 TRA", "0000 TRA"), r"19-198.trans.txt:2: 19-198-0000: has a line"),
    "no line": (
        lambda root: edit(root / TRANSCRIPT, "19-198-0001 TRA TOO\n", ""),
        r"19/198/19-198-0001.flac: has no line in 19-198.trans.txt",
    ),
    "not text": (lambda root: (root / TRANSCRIPT).write_bytes(b"\xff\xfe"), r"19-198.trans.txt: cannot be read .*utf-8"),
    "no transcript": (lambda root: (root / TRANSCRIPT).unlink(), r"19-198.trans.txt: cannot be read .*No such file"),
    "no chapters": (
        lambda root: [shutil.rmtree(root / "test-clean"), (root / "test-clean").mkdir()],
        r"LibriSpeech/test-clean: holds no READER/CHAPTER/",
    ),
    "gender": (
        lambda root: edit(root / "SPEAKERS.TXT", "84   | F", "84   | X"),
        r"SPEAKERS.TXT:10: reads '84   \| X .*but a line is `READER \| F or M",
    ),
    "no reader": (lambda root: edit(root / "SPEAKERS.TXT", "84   | F", "eighty"), r"SPEAKERS.TXT:10: reads 'eighty"),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_faults_are_one_sentence_with_their_line(
    case: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breakage, said = BREAKAGES[case]
    breakage(corpus)
    error = _sentence(capsys, tmp_path)
    assert re.search(said, error), error
    assert error.startswith(f"{corpus}/")
    assert "again" in error


def test_all_faults_are_told_at_once(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for case in ("no audio", "no chapters", "gender"):
        BREAKAGES[case][0](corpus)
    assert _run("prepare", tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for line, case in zip(lines, ("no audio", "no chapters", "gender"), strict=True):
        assert re.search(BREAKAGES[case][1], line)


def test_checksums_are_torchaudios() -> None:
    known = pytest.importorskip("torchaudio.datasets.librispeech")._CHECKSUMS
    bare = {url.removeprefix("http://www."): sha256 for url, sha256 in known.items()}
    options = [libri.Options(Path(), Path(), Path(), subset, True) for subset in ("100", "960")]
    archives = {part: archive for option in options for part, archive in option.archives.items()}
    assert len(archives) == 7
    for archive in archives.values():
        assert bare[archive.url.removeprefix("https://www.")] == archive.sha256


# A real part of the corpus


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe directory after stages 0 and 1."""
    work = tmp_path_factory.mktemp("librispeech")
    before = snapshot(SHARED)
    where = ["--download_dir", str(SHARED), "--work_dir", str(work / "downloads"), "--data_dir", str(work / "data")]
    for command in ("download", "prepare"):
        assert libri.main([command, *where, "--parts", "found"]) == 0
    assert snapshot(SHARED) == before
    return work


@functools.cache
def _tar_facts(part: str) -> tuple[dict[str, str], dict[str, float]]:
    """Straight from the archive: text and seconds by utterance; a flac says its length in its first 26 bytes."""
    texts, seconds = {}, {}
    with tarfile.open(SHARED / f"{part}.tar.gz") as tar:
        for member in tar:
            if (handle := tar.extractfile(member)) is None:
                continue
            if member.name.endswith(".trans.txt"):
                texts.update(re.findall(r"^(\S+) (.+)$", handle.read().decode(), re.MULTILINE))
            elif member.name.endswith(".flac"):
                bits = int.from_bytes(handle.read(26)[18:], "big")  # 20: rate, 3: channels, 5: width, 36: samples
                seconds[Path(member.name).stem] = (bits & ((1 << 36) - 1)) / (bits >> 44)
    return texts, seconds


@pytest.mark.parametrize("held", ["downloads", "work"])
def test_a_published_language_model_is_taken_from_where_it_is(
    held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content = "3-gram.pruned.1e-7.arpa.gz", b"\\data\\ ..."
    monkeypatch.setattr(published, "MD5_SUMS", {name: hashlib.md5(content).hexdigest()})
    for folder in ("downloads", "work"):
        (tmp_path / folder).mkdir()
    (tmp_path / held / name).write_bytes(content)
    where = ["--download_dir", str(tmp_path / "downloads"), "--work_dir", str(tmp_path / "work")]
    target = tmp_path / "exp/lang" / name
    assert published.main([*where, str(target)]) == 0
    assert target.read_bytes() == content
    target.unlink()
    (tmp_path / held / name).write_bytes(content[:-1])
    assert published.main([*where, str(target)]) == 1
    assert (
        f"{tmp_path / held / name}: is not the file at https://www.openslr.org/resources/11/{name}" in capsys.readouterr().err
    )
    assert not target.exists()
    assert published.main([*where, str(target.with_name("4gram.gz"))]) == 1
    assert f"4gram.gz is not published; known: {name}" in capsys.readouterr().err


@needs_sample
@pytest.mark.parametrize(
    ("sets", "part", "utterances"),
    [(("train_100", "dev"), "train-clean-100", 491), (("test_clean",), "test-clean", 4), (("test_other",), "test-other", 50)],
)
def test_a_sample_holds_what_its_archives_hold(sets: tuple[str, ...], part: str, utterances: int, sample: Path) -> None:
    texts, seconds = _tar_facts(part)
    utts = [utt for name in sets for utt in read_data_dir(sample / "data" / name)]
    assert len(utts) == len(texts) == utterances
    assert {utt.id: utt.text for utt in utts} == texts
    assert sum(len(utt.text.split()) for utt in utts) == sum(text.count(" ") + 1 for text in texts.values())
    assert {utt.id: audio_info(utt.audio).duration_s for utt in utts} == pytest.approx(seconds)
    assert {utt.end_s for utt in utts} == {None}
    for utt in utts:
        assert utt.id.split("-")[0] == utt.speaker
        assert Path(utt.audio).stem == utt.id


@needs_sample
def test_sets_of_a_sample_are_valid_and_share_no_reader(sample: Path) -> None:
    readers = []
    for name in ("train_100", "dev", "test_clean", "test_other"):
        assert check_data_dir(sample / "data" / name).faults == []
        readers += sorted({utt.speaker for utt in read_data_dir(sample / "data" / name)})
        assert set(read_table(sample / "data" / name / "spk2gender").values()) <= {"f", "m"}
    assert len(readers) == len(set(readers)) == 127 + 1 + 5


@needs_sample
def test_a_second_run_on_a_sample_changes_nothing(sample: Path) -> None:
    before = tree(sample / "data")
    where = ["--download_dir", str(SHARED), "--work_dir", str(sample / "downloads"), "--data_dir", str(sample / "data")]
    for command in ("download", "prepare"):
        assert libri.main([command, *where, "--parts", "found"]) == 0
    assert tree(sample / "data") == before


@needs_sample
def test_a_sample_does_not_pass_for_the_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--download_dir", str(SHARED), "--work_dir", str(tmp_path / "downloads"), "--data_dir", str(tmp_path / "data")]
    assert libri.main(["download", *where]) == 1
    error = capsys.readouterr().err
    assert "train-clean-100.tar.gz: is not the file at" in error
    assert error.count("\n") == 1
