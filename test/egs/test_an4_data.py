"""The AN4 recipe's data script against the archive itself, counted on another path: the tar read with regular expressions."""

import functools
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import tree
from scripts import edit, load_script, refusal

from asrprune.data.check import check_data_dir
from asrprune.data.kaldi import Utterance, read_data_dir
from asrprune.features.audio import read_audio

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADS = ROOT / "../shared/data/an4"
ARCHIVE = DOWNLOADS / "an4_raw.bigendian.tar.gz"
SETS = ("train", "dev", "test")
needs_an4 = pytest.mark.skipif(not ARCHIVE.exists(), reason=f"{ARCHIVE} is not there")


an4 = load_script("egs/an4/local/data.py")


# The real corpus


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe directory after stages 0 and 1."""
    work = tmp_path_factory.mktemp("an4")
    before = sorted(DOWNLOADS.iterdir())
    paths = ["--corpus_dir", str(work / "downloads/an4"), "--data_dir", str(work / "data")]
    assert an4.main(["download", "--download_dir", str(DOWNLOADS), *paths]) == 0
    assert an4.main(["prepare", *paths]) == 0
    assert sorted(DOWNLOADS.iterdir()) == before
    return work


@functools.cache
def _tar_facts() -> tuple[dict[str, str], dict[str, int], dict[str, str]]:
    """Straight from the archive: transcript, number of bytes and official set of each file name."""
    with tarfile.open(ARCHIVE) as tar:
        members = {member.name: member for member in tar}
        sizes = {Path(name).stem: member.size for name, member in members.items() if re.fullmatch(r".+-b\.raw", name)}
        lists = {name: tar.extractfile(f"an4/etc/an4_{name}.transcription") for name in ("train", "test")}
        lines = {name: handle.read().decode() for name, handle in lists.items() if handle is not None}
    found = [
        (name, *pair)
        for name in lines
        for pair in re.findall(r"^(?:<s>)?\s*([A-Z ]+?)\s*(?:</s>)?\s*\((.+)\)$", lines[name], re.M)
    ]
    return {key: text for _, text, key in found}, sizes, {key: name for name, _, key in found}


def _original(utt: Utterance) -> str:
    """an251-fash-b, by the path of the audio."""
    return re.sub(r".*/|\.raw.*", "", utt.audio)


@needs_an4
def test_counts_agree_with_the_archive(work: Path) -> None:
    texts, sizes, official = _tar_facts()
    data = {name: read_data_dir(work / "data" / name) for name in SETS}
    assert {name: len(data[name]) for name in SETS} == {"train": 857, "dev": 91, "test": 130}
    for name, counts in (
        ("train", (857, 67, 4933, "0.6421")),
        ("dev", (91, 7, 509, "0.0652")),
        ("test", (130, 10, 773, "0.0992")),
    ):
        originals = [_original(utt) for utt in data[name]]
        words = sum(len(texts[key].split()) for key in originals)
        hours = sum(sizes[key] for key in originals) / 2 / 16000 / 3600
        speakers = {re.split("-", key)[1] for key in originals}
        assert (len(originals), len(speakers), words, f"{hours:.4f}") == counts
        assert {utt.text for utt in data[name]} == {texts[key] for key in originals}
        assert {official[key] for key in originals} == {"test" if name == "test" else "train"}
    everything = [_original(utt) for name in SETS for utt in data[name]]
    assert sorted(everything) == sorted(texts) == sorted(sizes)


@needs_an4
def test_every_utterance_has_its_own_transcript_and_speaker(work: Path) -> None:
    texts, _, _ = _tar_facts()
    for name in SETS:
        for utt in read_data_dir(work / "data" / name):
            prompt, speaker, take = _original(utt).split("-")
            assert utt.text == texts[_original(utt)]
            assert utt.speaker == speaker
            assert utt.id == f"{speaker}-{prompt}-{take}"
            assert re.fullmatch(r"/.*\.raw\?rate=16000&encoding=s16be", utt.audio)


@needs_an4
def test_directories_are_valid_and_sets_share_no_speaker(work: Path) -> None:
    speakers = {}
    for name in SETS:
        assert check_data_dir(work / "data" / name).faults == []
        speakers[name] = {utt.speaker for utt in read_data_dir(work / "data" / name)}
    assert not speakers["train"] & speakers["dev"]
    assert not (speakers["train"] | speakers["dev"]) & speakers["test"]
    assert {name[0] for name in speakers["dev"]} == {"f", "m"}
    bare = [re.sub(r"\d", "", name) for name in speakers["dev"]]
    assert not {re.sub(r"\d", "", name) for name in speakers["train"]} & set(bare), "mdcs and mdcs2 may be one person"


@needs_an4
def test_audio_is_big_endian(work: Path) -> None:
    """As little endian, every file would be noise: loud, and as strong in its differences as in itself."""
    for utt in read_data_dir(work / "data" / "test"):
        rms, swapped_rms = (
            float(np.std(read_audio(utt.audio.replace("s16be", encoding), 16000))) for encoding in ("s16be", "s16le")
        )
        assert rms * 32768 < 2500
        assert swapped_rms * 32768 > 9300


@needs_an4
def test_second_run_changes_nothing(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = tree(work / "data")
    paths = ["--corpus_dir", str(work / "downloads/an4"), "--data_dir", str(work / "data")]
    assert an4.main(["download", "--download_dir", str(work / "nowhere"), *paths]) == 0
    assert an4.main(["prepare", *paths]) == 0
    assert tree(work / "data") == before
    assert "differs" not in caplog.text, "the content is that of the known checksum"


@needs_an4
def test_words_of_dev_unseen_in_train(work: Path) -> None:
    texts, _, _ = _tar_facts()
    dev, train = ({_original(utt) for utt in read_data_dir(work / "data" / name)} for name in ("dev", "train"))
    known = set(" ".join(texts[key] for key in train).split())
    unseen = sorted(word for key in dev for word in texts[key].split() if word not in known)
    assert unseen == ["FIFTEENTH", "FIFTEENTH", "FOURTH"]


# A small corpus of the same layout, to break


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``corpus_dir`` of a corpus of 20 + 10 speakers and 3 test utterances."""
    monkeypatch.setattr(an4, "NUM_UTTERANCES", {"train": 30, "test": 3})
    corpus = tmp_path / "downloads/an4/an4"
    (corpus / "etc").mkdir(parents=True)
    for name, speakers in (("train", [f"{'fm'[i % 3 > 0]}{i:03d}" for i in range(30)]), ("test", ["fzza", "mzza", "mzzb"])):
        files = [f"{'an4test_clstk' if name == 'test' else 'an4_clstk'}/{who}/an{i}-{who}-b" for i, who in enumerate(speakers)]
        for file in files:
            (corpus / "wav" / file).parent.mkdir(parents=True)
            (corpus / "wav" / f"{file}.raw").write_bytes(b"\0\1" * 1600)
        line = "GO {}({})\n" if name == "test" else "<s> GO {}</s> ({})\n"
        texts = [line.format("STOP " if i % 2 else "", Path(file).name) for i, file in enumerate(files)]
        (corpus / f"etc/an4_{name}.fileids").write_text("".join(f"{file}\n" for file in files))
        (corpus / f"etc/an4_{name}.transcription").write_text("".join(texts))
    return corpus.parent


def _prepare(corpus_dir: Path) -> int:
    return int(an4.main(["prepare", "--corpus_dir", str(corpus_dir), "--data_dir", str(corpus_dir.parents[1] / "data")]))


def test_small_corpus(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert _prepare(small) == 0
    dev = {utt.speaker for utt in read_data_dir(small.parents[1] / "data/dev")}
    assert dev == {"f012", "m007", "m022"}
    assert [utt.text for utt in read_data_dir(small.parents[1] / "data/test")] == ["GO", "GO STOP", "GO"]
    assert "differs from the AN4 behind RESULTS.md" in caplog.text


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no audio": (lambda root: (root / "wav/an4_clstk/m007/an7-m007-b.raw").unlink(), "transcription:8: .*missing or empty"),
    "empty audio": (
        lambda root: (root / "wav/an4_clstk/m007/an7-m007-b.raw").write_bytes(b""),
        "transcription:8: .*missing or empty",
    ),
    "other id": (lambda root: _edit(root, "transcription", "an7-m007-b", "an8-m007-b"), "transcription:8: .*an8-m007-b"),
    "no words": (lambda root: _edit(root, "transcription", "<s> GO STOP </s> (an7-", "<s> </s> (an7-"), "transcription:8: "),
    "no id": (lambda root: _edit(root, "transcription", "(an7-m007-b)", ""), "transcription:8: "),
    "noise mark": (lambda root: _edit(root, "transcription", "STOP </s> (an7-", "<noise> </s> (an7-"), "transcription:8: "),
    "other speaker": (lambda root: _edit(root, "fileids transcription", "an7-m007-b", "an7-m008-b"), "8: .*reads"),
    "file list": (lambda root: _edit(root, "fileids", "an4_clstk/m007/an7-m007-b", "what"), "transcription:8: what"),
    "line lost": (
        lambda root: _edit(root, "fileids", "an4_clstk/m007/an7-m007-b\n", ""),
        "29 files and 30 transcripts, not 30",
    ),
    "transcript lost": (
        lambda root: _edit(root, "transcription", "<s> GO STOP </s> (an7-m007-b)\n", ""),
        "30 files and 29 transc",
    ),
    "no list": (lambda root: (root / "etc/an4_train.fileids").unlink(), "an4_train.fileids: cannot be read"),
    "not text": (lambda root: (root / "etc/an4_train.fileids").write_bytes(b"\xff\xfe"), "an4_train.fileids: cannot be read"),
    "all gone": (shutil.rmtree, "cannot be read .*run stage 0 again"),
}


def _edit(root: Path, kinds: str, old: str, new: str) -> None:
    for path in (root / f"etc/an4_train.{kind}" for kind in kinds.split()):
        edit(path, old, new)


@pytest.mark.parametrize("case", BREAKAGES)
def test_faults_are_one_sentence(case: str, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    breakage, said = BREAKAGES[case]
    breakage(small / "an4")
    assert re.search(said, refusal(_prepare(small), capsys, small.parents[1] / "data"))
