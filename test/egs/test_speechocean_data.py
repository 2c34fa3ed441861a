"""The speechocean762 recipe's data script on a small layout, right and wrong, and on the corpus itself, counted anew."""

import logging
import re
import shutil
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scripts import edit, load_script, refusal, snapshot

from asrprune.config.load import read_config
from asrprune.data.check import check_data_dir
from asrprune.data.download import Archive
from asrprune.data.kaldi import read_data_dir
from asrprune.data.tables import read_table
from asrprune.data.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/speechocean762"
SHARED = ROOT / "../shared/data/speechocean762"
SETS = ("train", "dev", "test")
needs_corpus = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")

so762 = load_script("egs/speechocean762/local/data.py")


# A small corpus of the same layout, to break


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout: 10 girls, women, boys and men by turns to train on, the older first; 5 speakers to test on."""
    corpus = tmp_path / "my_checkout"
    groups = [("f", 6), ("f", 19), ("m", 6), ("m", 19)]
    trained = {f"{number:04d}": (*groups[number % 4], number // 4) for number in range(40)}
    tested = {f"{number:04d}": (*groups[number % 4], 3) for number in range(40, 45)}
    monkeypatch.setattr(so762, "NUM_UTTERANCES", {"train": 40, "test": 5})
    lines = {}
    for name, speakers in (("train", trained), ("test", tested)):
        utterances = {f"0{speaker}0011": speaker for speaker in speakers}
        ages = [f"{speaker}\t{youngest + 9 - place}" for speaker, (_, youngest, place) in speakers.items()]
        lines |= {
            f"{name}/text": [f"{key}\tHE'S\tNEAR" for key in utterances],
            f"{name}/utt2spk": [f"{key} {speaker}" for key, speaker in utterances.items()],
            f"{name}/wav.scp": [f"{key}\tWAVE/SPEAKER{speaker}/{key}.WAV" for key, speaker in utterances.items()],
            f"{name}/spk2gender": [f"{speaker}\t{sex}" for speaker, (sex, _, _) in speakers.items()],
            f"{name}/spk2age": ages[::-1],
        }
        for key, speaker in utterances.items():
            (corpus / f"WAVE/SPEAKER{speaker}").mkdir(parents=True)
            soundfile.write(corpus / f"WAVE/SPEAKER{speaker}/{key}.WAV", np.zeros(1800), 16000, format="WAV")
    words = [f"0{speaker}0011.{word}" for speaker in (*trained, *tested) for word in (0, 1)]
    lines["resource/text-phone"] = [f"{word}\t{'HH_B IY0_I Z_E' if word[-1] == '0' else 'N_B IH_I AH1_E'}" for word in words]
    for path, content in lines.items():
        (corpus / path).parent.mkdir(parents=True, exist_ok=True)
        (corpus / path).write_text("".join(f"{line}\n" for line in content))
    return corpus


def _run(command: str, download_dir: Path, *options: str) -> int:
    root = download_dir.parent
    where = ["--download_dir", str(download_dir), "--work_dir", str(root / "work"), "--data_dir", str(root / "data")]
    return int(so762.main([command, *where, *options]))


def _speakers(data_dir: Path) -> dict[str, set[str]]:
    return {name: {utt.speaker for utt in read_data_dir(data_dir / name)} for name in SETS}


def test_sets(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = snapshot(corpus)
    assert _run("download", corpus) == 0
    assert _run("prepare", corpus) == 0
    assert snapshot(corpus) == before
    assert not (tmp_path / "work").exists(), "nothing is fetched or unpacked of what is there"
    speakers = _speakers(tmp_path / "data")
    assert speakers["test"] == {"0040", "0041", "0042", "0043", "0044"}, "those of the official test set"
    # In each group, number 0 is the oldest of ten; the fifth from below is the one with five older ones.
    assert speakers["dev"] == {"0020", "0021", "0022", "0023"}, "a girl, a woman, a boy and a man"
    assert speakers["train"] == {f"{number:04d}" for number in range(40)} - speakers["dev"]
    for name in SETS:
        assert check_data_dir(tmp_path / "data" / name).faults == []
        for utt in read_data_dir(tmp_path / "data" / name):
            assert utt.id == f"0{utt.speaker}0011"
            assert utt.text == "HE'S NEAR"
            assert utt.audio == str(corpus / f"WAVE/SPEAKER{utt.speaker}/{utt.id}.WAV")
    assert read_table(tmp_path / "data/dev/spk2age") == {"0020": "10", "0021": "23", "0022": "10", "0023": "23"}
    assert read_table(tmp_path / "data/dev/spk2gender") == {"0020": "f", "0021": "f", "0022": "m", "0023": "m"}
    said = "5 utterances, 10 words, 0.0002 hours, 5 speakers: 2 girls, 1 boys, 1 women, 1 men, aged 12 to 25"
    assert f"{tmp_path}/data/test: {said}" in caplog.messages
    said = "36 utterances, 72 words, 0.0011 hours, 36 speakers: 9 girls, 9 boys, 9 women, 9 men, aged 6 to 28"
    assert f"{tmp_path}/data/train: {said}" in caplog.messages
    assert f"{tmp_path}/data/dev: 4 of 4 sentences are in train, too; 0 of 8 words never occur there" in caplog.messages


def test_phones_without_stress_and_place(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert _run("prepare", corpus, "--units", "phones") == 0
    for name in SETS:
        assert {utt.text for utt in read_data_dir(tmp_path / "data" / name)} == {"HH IY Z N IH AH"}
    assert f"{tmp_path}/data/test: 5 utterances, 30 phones" in caplog.text


def test_there_are_39_phones(tmp_path: Path) -> None:
    assert len(so762.PHONES) == 39
    config = read_config(RECIPE / "conf/phones.yaml")
    tokenizer = train_tokenizer([" ".join(sorted(so762.PHONES))], config.tokenizer, tmp_path)
    assert len(tokenizer) == 39 + 2, "and the blank and the unknown"
    assert tokenizer.decode(tokenizer.encode("HH IY Z")) == "HH IY Z"


@pytest.mark.parametrize("form", ["speechocean762", "holds the folder", "holds the archive", "fetched"])
def test_forms_of_download_dir(form: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "there/speechocean762"
    archive = tmp_path / "there/speechocean762.tar.gz"
    folder.parent.mkdir()
    if form in ("holds the archive", "fetched"):
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(corpus, "speechocean762")
        shutil.rmtree(corpus)
    else:
        corpus.rename(folder)
    if form == "fetched":
        monkeypatch.setattr(so762, "ARCHIVE", Archive(archive.as_uri(), None, "speechocean762/WAVE"))
        (tmp_path / "empty").mkdir()
    download_dir = {"speechocean762": folder, "fetched": tmp_path / "empty"}.get(form, folder.parent)
    before = snapshot(download_dir)
    where = ["--download_dir", str(download_dir), "--work_dir", str(tmp_path / "work"), "--data_dir", str(tmp_path / "data")]
    assert so762.main(["download", *where]) == 0
    assert so762.main(["prepare", *where]) == 0
    assert snapshot(download_dir) == before
    assert (tmp_path / "work").exists() == (form in ("holds the archive", "fetched"))
    assert len(read_data_dir(tmp_path / "data/train")) == 36


def test_a_folder_without_the_corpus_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert _run("prepare", tmp_path / "empty") == 1
    assert re.fullmatch(r"speechocean762/WAVE: found neither in .*/empty nor in .*/work; stage 0 .*\n", capsys.readouterr().err)


def test_another_number_of_utterances_is_said(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(so762.NUM_UTTERANCES, "test", 6)
    assert _run("prepare", corpus) == 1
    assert f"{corpus}/test: holds 5 utterances, not 6; get the corpus again\n" == capsys.readouterr().err


WAV = "WAVE/SPEAKER0002/000020011.WAV"
BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no audio": (lambda root: (root / WAV).unlink(), rf"train/wav.scp:3: 000020011: /.*/{WAV}: cannot be read"),
    "no header": (
        lambda root: (root / WAV).write_bytes(b"\0\1" * 1600),
        rf"train/wav.scp:3: 000020011: /.*/{WAV}: is not audio",
    ),
    "other rate": (
        lambda root: soundfile.write(root / WAV, np.zeros(800), 8000, format="WAV"),
        rf"train/wav.scp:3: 000020011: /.*/{WAV}: is sampled at 8000 Hz, but must be at 16000 Hz",
    ),
    "no text": (
        lambda root: edit(root / "train/text", "000020011\tHE'S\tNEAR\n", ""),
        r"train/utt2spk:3: 000020011: has no line in text",
    ),
    "no words": (
        lambda root: edit(root / "train/text", "000020011\tHE'S\tNEAR", "000020011\t"),
        r"train/text:3: reads '000020011\\t'",
    ),
    "no entry": (
        lambda root: edit(root / "test/wav.scp", "000400011\tWAVE/SPEAKER0040/000400011.WAV\n", ""),
        r"test/text:1: 000400011: has no line in wav.scp",
    ),
    "twice": (lambda root: _append(root / "train/text", "000020011\tTWO\n"), r"train/text:41: 000020011: has a line above"),
    "no age": (lambda root: edit(root / "train/spk2age", "0002\t15\n", ""), r"train/utt2spk:3: 0002: has no line in spk2age"),
    "no sex": (
        lambda root: edit(root / "test/spk2gender", "0042\tm\n", ""),
        r"test/utt2spk:3: 0042: has no line in spk2gender",
    ),
    "what age": (lambda root: edit(root / "train/spk2age", "0002\t15", "0002\tx"), r"train/spk2age:38: 0002: its age is 'x'"),
    "what sex": (lambda root: edit(root / "train/spk2gender", "0002\tm", "0002\tfm"), r"spk2gender:3: 0002: its sex is 'fm'"),
    "no utterances": (
        lambda root: [_append(root / "train/spk2gender", "0099\tf\n"), _append(root / "train/spk2age", "0099\t7\n")],
        r"train/spk2gender:41: 0099: has no line in utt2spk",
    ),
    "in both sets": (
        lambda root: [
            edit(root / "test/utt2spk", " 0043", " 0005"),
            *(edit(root / f"test/{name}", "0043\t", "0005\t") for name in ("spk2gender", "spk2age")),
        ],
        r"speaker 0005 is in train and in test",
    ),
    "no table": (lambda root: (root / "train/spk2age").unlink(), r"train/spk2age: cannot be read"),
    "empty table": (lambda root: (root / "train/text").write_text(""), r"train/text: is empty"),
    "not text": (lambda root: (root / "train/text").write_bytes(b"\xff\xfe"), r"train/text: cannot be read"),
}
BROKEN_PHONES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no phones": (
        lambda path: edit(path, "000020011.1\tN_B IH_I AH1_E\n", ""),
        r":5: 000020011: has phones of 1 words, not of",
    ),
    "no utterance": (lambda path: edit(path, "000020011.", "000999999."), r"text-phone: 000020011: has phones of 0 words"),
    "another phone": (
        lambda path: edit(path, "000020011.1\tN_B", "000020011.1\tXX_B"),
        r":6: 000020011.1: reads 'XX_B IH_I AH1_E'",
    ),
    "lower case": (
        lambda path: edit(path, "000020011.1\tN_B", "000020011.1\tn_B"),
        r":6: 000020011.1: reads 'n_B IH_I AH1_E'",
    ),
    "unknown": (
        lambda path: edit(path, "000020011.1\tN_B", "000020011.1\t<unk>"),
        r":6: 000020011.1: reads '<unk> IH_I AH1_E'",
    ),
    "no place": (lambda path: edit(path, "000020011.1\tN_B", "000020011.1\tN"), r":6: 000020011.1: reads 'N IH_I AH1_E'"),
    "no number": (lambda path: edit(path, "000020011.1", "000020011"), r":6: 000020011: is no UTTERANCE.NUMBER"),
    "what number": (lambda path: edit(path, "000020011.1", "000020011.x"), r":6: 000020011.x: is no UTTERANCE.NUMBER"),
    "no file": (lambda path: path.unlink(), r"text-phone: cannot be read"),
}


def _append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line)


def _sentence(corpus: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What `prepare` says when it fails."""
    return refusal(_run("prepare", corpus, *options), capsys, corpus.parent / "data")


@pytest.mark.parametrize("case", BREAKAGES)
def test_faults_are_one_sentence_with_their_line(case: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    breakage, said = BREAKAGES[case]
    breakage(corpus)
    error = _sentence(corpus, capsys)
    assert re.search(said, error), error
    assert error.startswith(str(corpus))


@pytest.mark.parametrize("case", BROKEN_PHONES)
def test_faults_of_phones(case: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    breakage, said = BROKEN_PHONES[case]
    breakage(corpus / "resource/text-phone")
    error = _sentence(corpus, capsys, "--units", "phones")
    assert re.search(said, error), error
    assert error.startswith(str(corpus / "resource/text-phone"))
    assert _run("prepare", corpus, "--units", "words") == 0, "words need no phones"


def test_all_faults_are_told_at_once(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for case in ("no audio", "no entry", "no age"):
        BREAKAGES[case][0](corpus)
    assert _run("prepare", corpus) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 3
    assert all(re.search(BREAKAGES[case][1], error) for case in ("no audio", "no entry", "no age"))


# What run.sh makes of its options


@pytest.mark.parametrize(
    ("options", "config", "datadir", "units"),
    [
        ((), "conf/train.yaml", "data", "words"),
        (("--config", "conf/phones.yaml"), "conf/phones.yaml", "data_phones", "phones"),
        (("--units", "phones"), "conf/phones.yaml", "data_phones", "phones"),
        (("--config", "conf/phones.yaml", "--datadir", "elsewhere"), "conf/phones.yaml", "elsewhere", "phones"),
        (("--config", "conf/mine.yaml"), "conf/mine.yaml", "data", "words"),
    ],
)
def test_the_config_says_what_the_units_are(options: tuple[str, ...], config: str, datadir: str, units: str) -> None:
    shown = subprocess.run([RECIPE / "run.sh", *options, "--help"], capture_output=True, text=True, check=True).stdout
    values = dict(re.findall(r"^  --(config|datadir|local_opts) +(--units \w+|\S+)", shown, re.MULTILINE))
    assert values == {"config": config, "datadir": datadir, "local_opts": f"--units {units}"}


def test_other_units_are_refused() -> None:
    done = subprocess.run([RECIPE / "run.sh", "--units", "letters"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "--units letters: must be one of words, phones" in done.stderr


# The real corpus


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe directory after stages 0 and 1, in words and in phones."""
    work = tmp_path_factory.mktemp("speechocean762")
    for units, name in (("words", "data"), ("phones", "data_phones")):
        where = ["--download_dir", str(SHARED), "--work_dir", str(work / "downloads"), "--data_dir", str(work / name)]
        assert so762.main(["prepare", *where, "--units", units]) == 0
    return work


def _fields(path: str) -> list[list[str]]:
    return [line.split() for line in (SHARED / path).read_text().splitlines()]


@needs_corpus
def test_the_corpus_is_split_by_speaker_and_keeps_its_texts(work: Path) -> None:
    speakers = _speakers(work / "data")
    official = {name: {speaker for speaker, *_ in _fields(f"{name}/spk2utt")} for name in ("train", "test")}
    assert speakers["test"] == official["test"]
    assert speakers["train"] | speakers["dev"] == official["train"]
    assert not speakers["train"] & speakers["dev"]
    assert {name: len(who) for name, who in speakers.items()} == {"train": 112, "dev": 13, "test": 125}
    sexes, ages = (dict(_fields(f"train/{name}")) for name in ("spk2gender", "spk2age"))
    assert Counter((sexes[key], int(ages[key]) < 18) for key in speakers["dev"]) == {
        ("f", True): 3,
        ("m", True): 3,
        ("f", False): 4,
        ("m", False): 3,
    }
    texts = {key: " ".join(words) for name in ("train", "test") for key, *words in _fields(f"{name}/text")}
    assert {utt.id: utt.text for name in SETS for utt in read_data_dir(work / "data" / name)} == texts


@needs_corpus
def test_phones_of_the_corpus_are_those_of_its_lexicon(work: Path) -> None:
    """A word's phones, joined, are one of the pronunciations that the lexicon has."""
    lexicon: dict[str, list[str]] = {}
    for word, *phones in _fields("resource/lexicon.txt"):
        lexicon.setdefault(word, []).append(re.sub(r"\d", "", " ".join(phones)))
    for name in SETS:
        for spelled, spoken in zip(*(read_data_dir(work / data / name) for data in ("data", "data_phones")), strict=True):
            words = (f"({'|'.join(lexicon[word])})" for word in spelled.text.split())
            assert re.fullmatch(" ".join(words), spoken.text), spelled.id
    phones = {phone for utt in read_data_dir(work / "data_phones/train") for phone in utt.text.split()}
    assert phones == so762.PHONES
