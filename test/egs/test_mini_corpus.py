"""The embedded corpus: the same whatever the order, the jobs or a kill; speech, room, noise and level as configured."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from waiting import locked_elsewhere

from asrprune.data.check import check_data_dir
from asrprune.data.kaldi import read_data_dir
from asrprune.features.audio import read_audio
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import LOCK

pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed: pip install 'asrprune[mini]'")

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "egs/mini/local"
CONF = ROOT / "egs/mini/conf"
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{LOCAL}", "OMP_NUM_THREADS": "1"}


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mini_data", LOCAL / "data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mini_data"] = module  # dataclasses look their module up
    sys.path.insert(0, str(LOCAL))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(LOCAL))
    return module


mini = _load()
import acoustics  # noqa: E402  (local/ was on the path when data.py was loaded)
import corpus  # noqa: E402
import espeak  # noqa: E402

FLUTTER = espeak.Voice("en", "m3", 160, 50, 50)  # keeps a phase between utterances
CLOCK = espeak.Voice("en-US", "f2", 160, 50, 50)  # breath: espeak's random numbers, which start from the clock
PROCESS = espeak.Voice("en-US", "Reed", 160, 50, 50)  # klatt breath: the C library's, which start from the process id
TEXTS = ["zero one two play music", "lights on", "zero one two play music"]


def _write_config(path: Path, **changes: Any) -> Path:
    """A corpus of 12 voices and 64 utterances."""
    values = yaml.safe_load((CONF / "corpus_tiny.yaml").read_text(encoding="utf-8"))
    sizes = {"train": (40, ["f1"], ["m1", "m2"]), "dev": (8, ["f4"], ["m5"]), "test": (16, ["f3"], ["m8"])}
    values["sets"] = {name: {"utterances": n, "female": f, "male": m} for name, (n, f, m) in sizes.items()}
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return path


def _config(directory: Path, **changes: Any) -> Any:
    return corpus.read_config(_write_config(directory / "changed.yaml", **changes))


def _run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(LOCAL / "data.py"), *map(str, words)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def _contents(data_dir: Path) -> dict[str, bytes]:
    """Every file, with the place of the corpus taken out of wav.scp."""
    files = (path for path in data_dir.rglob("*") if path.is_file())
    return {str(path.relative_to(data_dir)): path.read_bytes().replace(bytes(data_dir), b"DATA") for path in files}


def _times(data_dir: Path) -> dict[Path, int]:
    """When each file and directory was written, but for the lock, which every run opens anew."""
    return {path: path.stat().st_mtime_ns for path in data_dir.rglob("*") if path.name != LOCK}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_config(tmp_path_factory.mktemp("config") / "corpus.yaml")


@pytest.fixture(scope="module")
def made(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, made by the command line in one process."""
    data_dir = tmp_path_factory.mktemp("one") / "data"
    done = _run("--config", config_file, "--data_dir", data_dir, "--nj", "1")
    assert done.returncode == 0, done.stderr
    return data_dir


# --- speech ---


@pytest.mark.parametrize("voice", [FLUTTER, CLOCK, PROCESS])
def test_speech_does_not_depend_on_what_was_spoken_before_nor_on_the_process(voice: Any) -> None:
    code = f"import espeak, sys; v = espeak.{voice!r}; sys.stdout.buffer.write(b''.join(map(bytes, espeak.say(v, {TEXTS!r}))))"
    fresh = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, check=True).stdout
    second = int(time.time())
    while voice == CLOCK and int(time.time()) == second:
        time.sleep(0.02)
    first = espeak.say(voice, TEXTS)
    espeak.say(FLUTTER, ["lights"])
    espeak.say(PROCESS, ["timer"])
    assert [samples.tobytes() for samples in espeak.say(voice, TEXTS)] == [samples.tobytes() for samples in first]
    assert b"".join(map(bytes, first)) == fresh
    assert espeak.say(voice, TEXTS[:1])[0].tobytes() == first[0].tobytes()


def test_speech_follows_the_voice() -> None:
    base = _speech(FLUTTER)
    slower = _speech(espeak.Voice("en", "m3", 120, 50, 50))
    assert len(slower) > 1.2 * len(base)
    lower, higher = (_pitch_hz(_speech(espeak.Voice("en", "m3", 160, pitch, 50))) for pitch in (30, 70))
    assert higher > 1.15 * lower
    for accent in ("en-US", "en-GB-scotland"):
        other = _speech(espeak.Voice(accent, "m3", 160, 50, 50))
        assert len(other) != len(base)


def test_every_voice_of_the_corpus_is_loud_unclipped_and_of_its_sex() -> None:
    config = corpus.read_config(CONF / "corpus.yaml")
    pitches: dict[str, list[float]] = {"female": [], "male": []}
    for _, part in config.sets:
        for sex, variants in (("female", part.female), ("male", part.male)):
            for variant in variants:
                samples = _speech(espeak.Voice("en-US", variant, 160, 50, 50))
                assert 3000 < np.abs(samples.astype(int)).max() < 32767, variant
                assert 1.0 < len(acoustics.trim(samples / 32768)) / espeak.SAMPLE_RATE < 3.0, variant
                pitches[sex].append(_pitch_hz(samples))
    assert min(pitches["female"]) > max(pitches["male"]), pitches


def _speech(voice: Any) -> Any:
    return espeak.say(voice, TEXTS[:1])[0]


@pytest.mark.usefixtures("handlers")
def test_a_signal_while_espeak_speaks_is_neither_lost_nor_loses_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """ctypes swallows errors of a callback: the piece that it had would be missing, and nobody would know."""
    pieces, as_array = [], np.ctypeslib.as_array

    def interrupted(*arguments: Any) -> Any:
        pieces.append(as_array(*arguments))
        if len(pieces) == 2:
            signal.raise_signal(signal.SIGTERM)
        return pieces[-1]

    def raise_error(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(np.ctypeslib, "as_array", interrupted)
    signal.signal(signal.SIGTERM, raise_error)
    with pytest.raises(InterruptedError):
        espeak.say(FLUTTER, TEXTS[:1])
    assert len(pieces) > 2, "the utterance was finished"


def _pitch_hz(samples: np.ndarray) -> float:
    """Median over strong frames of the highest peak of the autocorrelation between 60 and 300 Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(samples / 32768, 1102)[::441]
    strong = frames[frames.std(axis=1) > 0.5 * frames.std(axis=1).max()]
    lags = range(espeak.SAMPLE_RATE // 300, espeak.SAMPLE_RATE // 60)
    scores = np.stack([(strong[:, :-lag] * strong[:, lag:]).mean(axis=1) for lag in lags])
    return float(np.median(espeak.SAMPLE_RATE / (lags[0] + scores.argmax(axis=0))))


# --- the configuration ---


def test_full_corpus_has_many_voices_and_every_accent_and_sex_in_each_set() -> None:
    config = corpus.read_config(CONF / "corpus.yaml")
    by_set = {name: mini.speakers(config, name) for name in mini.SET_NAMES}
    everyone = [speaker for members in by_set.values() for speaker in members]
    assert len({speaker.id for speaker in everyone}) == len(everyone) >= 90
    for speaker in everyone:
        espeak.check_voice(speaker.voice)
    variants = {name: {speaker.voice.variant for speaker in members} for name, members in by_set.items()}
    assert not variants["train"] & variants["test"]
    assert not variants["dev"] & (variants["train"] | variants["test"])
    for name, members in by_set.items():
        assert {speaker.voice.accent for speaker in members} == set(config.accents)
        part = getattr(config.sets, name)
        assert variants[name] & set(part.female)
        assert variants[name] & set(part.male)
        assert sum(len(speaker.numbers) for speaker in members) == part.utterances


def test_tiny_corpus_is_the_full_one_but_for_its_size() -> None:
    full, tiny = (corpus.read_config(CONF / name).model_dump() for name in ("corpus.yaml", "corpus_tiny.yaml"))
    different = {key for key in full if full[key] != tiny[key]}
    assert different == {"accents", "sets"}
    assert [part["utterances"] for part in tiny["sets"].values()] == [200, 40, 60]


def _sets(**changes: Any) -> dict[str, Any]:
    values = yaml.safe_load((CONF / "corpus_tiny.yaml").read_text(encoding="utf-8"))["sets"]
    values["dev"].update(changes)
    return {"sets": values}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"snr": [5, 25]}, r"changed\.yaml: snr: unknown key"),
        ({"snr_db": [25, 5]}, r"snr_db: \[least, most\] is wanted"),
        ({"noises": ["pink", "green"]}, r"noises\.1: .*'green'"),
        ({"peak_db": [-3, 3]}, r"peak_db\.1: .*got 3"),
        ({"words": ["go", "stop", "go"]}, "words: go: written more than once"),
        ({"words": ["go", True]}, r"words\.1: .*string"),
        (_sets(male=["m1"]), "m1: written more than once"),
        (_sets(female=["f4", "F4"]), "f4: written more than once"),
        (_sets(utterances=3), r"sets\.dev: 3 utterances are too few for its 4 voices"),
    ],
)
def test_mistakes_in_the_configuration_are_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        _config(tmp_path, **changes)


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        _config(tmp_path, pitch=[0, 200], sample_rate="fast", seeds=1)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("changes", [_sets(male=["m99"]), {"accents": ["en-US", "en-XY"]}])
def test_voice_that_espeak_lacks_is_refused_before_anything_is_made(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(m99|en-XY): espeak-ng does not have it; it has .*(m1|en-US)"):
        mini.make_corpus(_config(tmp_path, **changes), tmp_path / "data", jobs=1)
    assert not (tmp_path / "data").exists()


def test_missing_wheel_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(espeak, "version", no_version)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)  # an import of it fails
    with pytest.raises(UserError, match=re.escape("pip install 'asrprune[mini]'")):
        mini.make_corpus(_config(tmp_path), tmp_path / "data", jobs=1)


# --- the corpus ---


def test_data_directories_are_clean_and_complete(made: Path, config_file: Path) -> None:
    config = corpus.read_config(config_file)
    variants = {}
    for name, size in (("train", 40), ("dev", 8), ("test", 16)):
        assert check_data_dir(made / name).faults == []
        utterances = read_data_dir(made / name)
        assert len(utterances) == size
        assert all(utt.id.startswith(f"{utt.speaker}-") for utt in utterances)
        lengths = [len(utt.text.split()) for utt in utterances]
        assert min(lengths) >= 2
        assert max(lengths) <= 8
        assert {word for utt in utterances for word in utt.text.split()} <= set(config.words)
        variants[name] = {utt.speaker.rsplit("-", 1)[1] for utt in utterances}
    assert variants == {"train": {"f1", "m1", "m2"}, "dev": {"f4", "m5"}, "test": {"f3", "m8"}}
    assert {word for utt in read_data_dir(made / "train") for word in utt.text.split()} == set(config.words)


def test_segments_cut_the_recordings_where_the_utterances_are(made: Path, config_file: Path) -> None:
    config = corpus.read_config(config_file)
    everyone = mini.speakers(config, "train")
    in_order = {(speaker.id, number): rest for speaker in everyone for number, *rest in mini.speak(config, speaker)}
    for utt in read_data_dir(made / "train"):
        text, samples = in_order[utt.speaker, int(utt.id.rsplit("-", 1)[1])]
        assert text == utt.text
        np.testing.assert_allclose(read_audio(utt.audio, 16000, utt.start_s, utt.end_s), samples, atol=1e-4)


def test_utterances_differ(made: Path) -> None:
    utterances = read_data_dir(made / "train")
    assert len({utt.text for utt in utterances}) > 0.9 * len(utterances)
    peaks_db = [20 * np.log10(np.abs(read_audio(utt.audio, 16000, utt.start_s, utt.end_s)).max()) for utt in utterances]
    assert -13.1 < min(peaks_db) < -10
    assert -4 < max(peaks_db) < -0.9


def test_number_of_jobs_does_not_matter(made: Path, config_file: Path, tmp_path: Path) -> None:
    done = _run("--config", config_file, "--data_dir", tmp_path / "data", "--nj", "2")
    assert done.returncode == 0, done.stderr
    assert _contents(tmp_path / "data") == _contents(made)


_DIE_AT_THE_FOURTH = """
import os, signal, sys
import data
write, calls = data.soundfile.write, []
def write_or_die(*args, **kwargs):
    write(*args, **kwargs)
    calls.append(args)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
data.soundfile.write = write_or_die
data.main()
"""


def test_killed_run_goes_on_where_it_was(made: Path, config_file: Path, tmp_path: Path) -> None:
    words = ["--config", str(config_file), "--data_dir", str(tmp_path / "data"), "--nj", "1"]
    killed = subprocess.run([sys.executable, "-c", _DIE_AT_THE_FOURTH, *words], env=ENVIRONMENT, check=False)
    assert killed.returncode == -signal.SIGKILL
    recordings = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.wav") if path.name[0] != "."}
    assert len(recordings) == 3
    assert len(list((tmp_path / "data").rglob(".*.wav"))) == 1  # what it was writing
    assert not (tmp_path / "data/train/wav.scp").exists()
    done = _run(*words)
    assert "made 11 speakers" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in recordings} == recordings
    assert _contents(tmp_path / "data") == _contents(made)


def test_second_run_changes_nothing_and_a_lost_file_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, data_dir = _config(tmp_path), tmp_path / "data"
    mini.make_corpus(config, data_dir, jobs=1)
    before = _contents(data_dir)
    times = _times(data_dir)
    with caplog.at_level("INFO"):
        mini.make_corpus(config, data_dir, jobs=1)
    assert caplog.messages == [f"{data_dir}: is up to date"]
    assert _times(data_dir) == times
    (data_dir / "audio/dev/en-us-f4.wav").unlink()
    (data_dir / "test/wav.scp").unlink()
    (data_dir / "train/text").unlink()
    mini.make_corpus(config, data_dir, jobs=1)
    assert _contents(data_dir) == before
    (data_dir / "corpus.json").rename(data_dir / "audio/corpus.json")  # where earlier versions had it
    mini.make_corpus(config, data_dir, jobs=1)
    assert (data_dir / "corpus.json").exists()


def test_lost_recordings_come_back_and_edited_tables_stay(tmp_path: Path) -> None:
    config, data_dir = _config(tmp_path), tmp_path / "data"
    mini.make_corpus(config, data_dir, jobs=1)
    (data_dir / "train/text").write_text("edited\n")
    before = _contents(data_dir)
    shutil.rmtree(data_dir / "audio")
    mini.make_corpus(config, data_dir, jobs=1)
    assert _contents(data_dir) == before


def test_changed_configuration_replaces_the_corpus(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data_dir = tmp_path / "data"
    mini.make_corpus(_config(tmp_path), data_dir, jobs=1)
    (data_dir / "train/feats.scp").write_text("features of the old audio\n")
    old = _contents(data_dir)
    with caplog.at_level("INFO"):
        mini.make_corpus(_config(tmp_path, seed=2, accents=["en-US"]), data_dir, jobs=1)
    assert "made from another configuration" in caplog.text
    new = _contents(data_dir)
    assert not any("scotland" in name for name in new)
    assert "train/feats.scp" not in new
    assert new["audio/train/en-us-m1.wav"] != old["audio/train/en-us-m1.wav"]
    assert new["train/text"] != old["train/text"]


def test_another_corpus_is_not_touched(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/text").write_text("somebody else's\n")
    done = _run("--config", config_file, "--data_dir", tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr == f"{tmp_path}/dev: exists, but this script did not make it; choose another --data_dir or move it away\n"
    )
    assert _contents(tmp_path) == {"dev/text": b"somebody else's\n", f"audio/{LOCK}": b""}


def test_second_run_beside_a_first_is_refused_and_removes_nothing(config_file: Path, tmp_path: Path) -> None:
    audio_dir = tmp_path / "data/audio"
    with locked_elsewhere(audio_dir):
        (audio_dir / "train").mkdir()
        (audio_dir / "train/.en-us-f1.1.tmp.wav").write_text("what the first is writing")
        done = _run("--config", config_file, "--data_dir", tmp_path / "data")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].endswith("data/audio: another process is using it; wait until it ends, or stop it")
    assert len(done.stderr.splitlines()) == 1
    assert _contents(tmp_path / "data").keys() == {f"audio/{LOCK}", "audio/train/.en-us-f1.1.tmp.wav"}


# --- room, noise, level ---


@pytest.mark.parametrize("noise", ["white", "pink", "brown", "babble"])
def test_noise_is_as_loud_as_configured(noise: str, tmp_path: Path) -> None:
    config = _config(tmp_path, noises=[noise], snr_db=[12, 12], silence_s=[1, 1], reverberation=0, peak_db=[-6, -6])
    measured = []
    for _, _, samples in mini.speak(config, replace(mini.speakers(config, "test")[0], numbers=range(12))):
        assert np.abs(samples).max() == pytest.approx(10 ** (-6 / 20))
        silence = np.concatenate([samples[:15000], samples[-15000:]])
        noise_power = np.mean(silence**2)
        speech_power = np.mean(samples[16000:-16000] ** 2) - noise_power
        measured.append(10 * np.log10(speech_power / noise_power))
    assert np.mean(measured) == pytest.approx(12, abs=1.0)


def test_every_drawn_number_spans_its_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[float]] = {"snr": [], "peak": [], "decay": [], "direct": []}

    def note(function: Callable[..., Any], **places: int) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            for key, place in places.items():
                seen[key].append(args[place])
            return function(*args)

        return noted

    monkeypatch.setattr(mini, "add_noise", note(mini.add_noise, snr=3))
    monkeypatch.setattr(mini, "to_peak", note(mini.to_peak, peak=1))
    monkeypatch.setattr(mini, "reverberate", note(mini.reverberate, decay=2, direct=3))
    config = _config(tmp_path)
    assert len(list(mini.speak(config, replace(mini.speakers(config, "train")[0], numbers=range(100))))) == 100
    ranges = {"snr": config.snr_db, "peak": config.peak_db, "decay": config.reverberation_s, "direct": config.direct_db}
    for key, (least, most) in ranges.items():
        margin = 0.15 * (most - least)
        assert least <= min(seen[key]) < least + margin, key
        assert most - margin < max(seen[key]) <= most, key
    assert 35 < len(seen["decay"]) < 65  # half of the utterances are reverberant


def test_room_decays_as_configured() -> None:
    impulse = np.zeros(16000)
    impulse[0] = 1.0
    response = acoustics.reverberate(impulse, 16000, 0.3, 6.0, np.random.default_rng(0))
    assert response[0] == pytest.approx(1.0)
    assert 10 * np.log10(np.sum(response[1:] ** 2)) == pytest.approx(-6.0, abs=0.01)
    left_db = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1] + 1e-30)  # Schroeder's backward integral
    assert np.argmax(left_db < left_db[100] - 30) - 100 == pytest.approx(0.15 * 16000, rel=0.1)


@pytest.mark.parametrize(("colour", "db_per_octave"), [("white", 0), ("pink", -3.01), ("brown", -6.02)])
def test_noise_has_its_colour(colour: str, db_per_octave: float) -> None:
    power = np.abs(np.fft.rfft(acoustics.coloured_noise(colour, 1 << 17, 16000, np.random.default_rng(0)))) ** 2
    frequency = np.fft.rfftfreq(1 << 17, 1 / 16000)
    octaves_db = [10 * np.log10(power[(frequency >= f) & (frequency < 2 * f)].mean()) for f in (100, 200, 400, 800, 1600, 3200)]
    assert np.polyfit(range(6), octaves_db, 1)[0] == pytest.approx(db_per_octave, abs=0.15)


def test_resampling_agrees_with_torchaudio() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchaudio.functional")
    speech = _speech(CLOCK) / 32768
    ours = acoustics.resample(speech, 22050, 16000)
    theirs = functional.resample(torch.tensor(speech), 22050, 16000, lowpass_filter_width=64, rolloff=0.995).numpy()
    error = ours[: len(theirs)] - theirs
    assert np.sqrt(np.mean(error**2) / np.mean(theirs**2)) < 0.01
