"""What several tests share: a tiny config, a tiny data set and a tiny trained experiment, made in seconds, without audio."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: more threads are slower on models this small

import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from asrprune.config.load import read_config, write_config
from asrprune.config.schema import Config, TokenizerConfig

if TYPE_CHECKING:
    from asrprune.data.dataset import Corpus
    from asrprune.experiment.store import Experiment

for ignored in (signal.SIGINT, signal.SIGHUP):  # by a shell that runs the tests in the background; tests send these signals
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored == signal.SIGINT else signal.SIG_DFL)

WORDS = ("one", "two", "three", "four", "five")
NUM_MELS = 80
SOUNDS_PER_WORD, FRAMES_PER_SOUND = 6, 4
SAMPLES_PER_FRAME = 160


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """4 layers of width 16 with taps 1 and 2, trained for 2 epochs in float32."""
    return Config.model_validate(
        {
            "tokenizer": {"type": "word", "vocab_size": None},
            "augment": {"num_freq_masks": 1, "num_time_masks": 1},
            "batch": {"max_frames": 800},
            "model": {"num_layers": 4, "dim": 16, "heads": 2, "ffn": 32, "subsampling": {"channels": 4}, "taps": [1, 2]},
            "train": {
                "epochs": 2, "schedule": {"peak": 3e-3, "warmup_steps": 5}, "precision": "float32",
                "log_every_steps": 2, "keep_best": 2, "average": 2, "num_workers": 0,
            },
            "prune": {"svcca_frames": 200},
            "bench": {"utterances": 2, "repeats": 1, "threads": 1},
        }
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_config_file(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny config as a file. Read it only."""
    path = tmp_path_factory.mktemp("tiny_config") / "config.yaml"
    write_config(tiny_config, path)
    return path


@pytest.fixture(scope="session")
def tiny_config_with(tiny_config_file: Path) -> Callable[..., Config]:
    """``tiny_config_with("train.epochs=3", ...)``: the tiny config with other numbers."""
    return lambda *overrides: read_config(tiny_config_file, overrides)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with Kaldi directories ``train`` (24 utterances) and ``dev`` (6), ``lang/bpe.model`` (words) and ``cmvn``.

    Read it only; copy it to change it. See ``write_data`` for what the utterances are.
    """
    from asrprune.data.extract import compute_cmvn
    from asrprune.data.tokenizer import train_tokenizer
    from asrprune.features.cmvn import write_cmvn

    root = tmp_path_factory.mktemp("tiny_data")
    rng = np.random.default_rng(0)
    texts = write_data(root / "train", 24, rng)
    write_data(root / "dev", 6, rng)
    train_tokenizer(texts, TokenizerConfig(type="word", vocab_size=None), root / "lang")
    write_cmvn(root / "cmvn", compute_cmvn(root / "train"))
    return root


@pytest.fixture(scope="session")
def tiny_experiment(tiny_config: Config, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and averaged experiment of ``tiny_config`` on ``tiny_data``. Read it only; copy it to change it."""
    from asrprune.train.average import average_best

    exp = tmp_path_factory.mktemp("tiny_exp") / "exp"
    train_on(tiny_data, tiny_config, exp)
    average_best(exp)
    return exp


@pytest.fixture
def exp(tiny_experiment: Path, tmp_path: Path) -> Path:
    """A copy of the tiny experiment that may be changed."""
    return Path(shutil.copytree(tiny_experiment, tmp_path / "exp"))


@pytest.fixture
def own(exp: Path) -> "Experiment":
    """The same, loaded."""
    from asrprune.experiment.store import load

    return load(exp)


@pytest.fixture
def experiment(tiny_experiment: Path) -> "Experiment":
    """The tiny experiment with less probable blanks, so that it says something after its two epochs."""
    from experiments import talking

    return talking(tiny_experiment)


@pytest.fixture
def corpus(experiment: "Experiment", tiny_data: Path) -> "Corpus":
    """The tiny dev set with the text units of ``experiment``."""
    from asrprune.data.dataset import Corpus

    return Corpus(tiny_data / "dev", experiment.tokenizer)


@pytest.fixture
def dev(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the tiny dev set that may be changed."""
    return Path(shutil.copytree(tiny_data / "dev", tmp_path / "dev"))


@pytest.fixture(scope="session")
def run_training(tiny_data: Path) -> Callable[[Config, Path], None]:
    """``run_training(config, exp)`` trains on ``tiny_data``, in this process."""
    return partial(train_on, tiny_data)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Signals do after the test what they did before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(params=["with tarfile's filter", "without"])
def each_python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Early releases of 3.10 and 3.11 have no extraction filters."""
    if request.param == "without" and hasattr(tarfile, "data_filter"):
        monkeypatch.delattr(tarfile, "data_filter")
        if hasattr(tarfile, "fully_trusted_filter"):  # what those releases do
            monkeypatch.setattr(tarfile.TarFile, "extraction_filter", staticmethod(tarfile.fully_trusted_filter), raising=False)


def train_on(data: Path, config: Config, exp: Path) -> None:
    """Train on a directory such as ``tiny_data``."""
    from asrprune.train.start import train

    train(config, exp, data / "train", data / "dev", data / "lang" / "bpe.model", data / "cmvn")


def write_data(directory: Path, count: int, rng: np.random.Generator) -> list[str]:
    """Write a Kaldi directory of ``count`` utterances of 1 to 5 words with features; returns their texts.

    A word is six random spectra of four frames each, plus noise, so a model can learn it. The features are not computed from
    the audio, which is noise of the same length.
    """
    from asrprune.data.check import spk2utt_of
    from asrprune.data.tables import write_table
    from asrprune.features.ark import write_ark

    spectra = np.random.default_rng(1).normal(size=(len(WORDS), SOUNDS_PER_WORD, NUM_MELS))
    chosen = [rng.integers(len(WORDS), size=rng.integers(1, 6)) for _ in range(count)]
    ids = [f"s{i % 3}-{directory.name}{i:03d}" for i in range(count)]
    order = np.argsort(ids)
    ids, chosen = [ids[i] for i in order], [chosen[i] for i in order]
    matrices = [_noisy(spectra[words], rng) for words in chosen]
    directory.mkdir(parents=True)
    ark = directory / "fbank" / "feats.ark"
    ark.parent.mkdir()
    write_table(directory / "feats.scp", write_ark(ark, ark, zip(ids, matrices, strict=True)))
    frames = {key: len(matrix) for key, matrix in zip(ids, matrices, strict=True)}
    write_table(directory / "utt2num_frames", {key: str(number) for key, number in frames.items()})
    write_table(directory / "utt2dur", {key: f"{number / 100:.3f}" for key, number in frames.items()})
    texts = [" ".join(WORDS[word] for word in words) for words in chosen]
    write_table(directory / "text", dict(zip(ids, texts, strict=True)))
    speakers = {key: key.partition("-")[0] for key in ids}
    write_table(directory / "utt2spk", speakers)
    write_table(directory / "spk2utt", spk2utt_of(speakers))
    write_table(
        directory / "wav.scp", {key: str(_write_noise(directory / "audio" / f"{key}.wav", frames[key], rng)) for key in ids}
    )
    return texts


def _noisy(spectra: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(words, sounds, F) -> (T, F) float32, with a pause of 4 to 11 frames at the end."""
    speech = np.repeat(spectra.reshape(-1, NUM_MELS), FRAMES_PER_SOUND, axis=0)
    padded = np.concatenate([speech, np.zeros((rng.integers(4, 12), NUM_MELS))])
    return (padded + 0.3 * rng.normal(size=padded.shape)).astype(np.float32)


def _write_noise(path: Path, frames: int, rng: np.random.Generator) -> Path:
    import soundfile

    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, rng.normal(scale=0.01, size=frames * SAMPLES_PER_FRAME), 16000)
    return path
