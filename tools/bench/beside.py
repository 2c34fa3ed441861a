#!/usr/bin/env python3
"""Measure two trainings beside each other, against one alone: each of the two should keep 0.45 of the speed.

    python tools/bench/beside.py [--seconds 60] [-- --threads 2]    options after -- go to `asrprune train`
    GOMP_SPINCOUNT=300000 python tools/bench/beside.py              as without asrprune.runtime.threads.wait_briefly

On an idle machine of at least two cores. Measured are egs/mini's model and batches on noise, twice: the second training starts
when the first one runs, and so finds its cores busy; both start at once. Exits with 1 if one of the two is slower.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from asrprune.config.schema import TokenizerConfig
from asrprune.data.extract import compute_cmvn
from asrprune.data.tables import write_table
from asrprune.data.tokenizer import train_tokenizer
from asrprune.experiment.paths import ExperimentPaths
from asrprune.features.ark import write_ark
from asrprune.features.cmvn import write_cmvn
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status
from asrprune.train.journal import read_journal

CONFIG = Path(__file__).resolve().parents[2] / "egs/mini/conf/train.yaml"
NUMBERS = ("train.epochs=1000", "train.log_every_steps=1", "train.dev_every_epochs=1000")
SHARE = 0.45
FRAMES, NUM_MELS, WORDS = 160, 80, "one two three four five"
_START_S = 300.0  # the longest time to the first update


def write_set(directory: Path, utterances: int) -> None:
    """Write a data directory of noise."""
    rng, ids = np.random.default_rng(0), [f"a-{number:05d}" for number in range(utterances)]
    matrices = ((key, rng.normal(size=(FRAMES, NUM_MELS)).astype(np.float32)) for key in ids)
    ark = directory / "feats.ark"
    directory.mkdir()
    write_table(directory / "feats.scp", write_ark(ark, ark, matrices))
    write_table(directory / "utt2num_frames", dict.fromkeys(ids, str(FRAMES)))
    write_table(directory / "text", dict.fromkeys(ids, WORDS))


class Training:
    """A running `asrprune train`."""

    def __init__(self, root: Path, name: str, options: Sequence[str]) -> None:
        """Start it in the directory ``root/name``."""
        self.journal = ExperimentPaths(root / name).log
        paths = {
            "exp": root / name,
            "train": root / "train",
            "dev": root / "dev",
            "bpe": root / "bpe.model",
            "cmvn": root / "cmvn",
        }
        given = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
        numbers = [word for number in NUMBERS for word in ("--set", number)]
        command = [sys.executable, "-m", "asrprune.cli", "train", "--config", str(CONFIG), *given, *numbers, *options]
        self.process = subprocess.Popen(command)

    def updates(self) -> int:
        """Return the number of updates so far."""
        if self.process.poll() is not None:
            raise UserError("a training has ended, see above")
        with contextlib.suppress(FileNotFoundError):
            lines = read_journal(self.journal)
            return int(lines[-1]["step"]) if lines else 0
        return 0

    def wait(self) -> None:
        """Wait for the third update: the first ones are slower."""
        until = time.monotonic() + _START_S
        while self.updates() < 3:
            if time.monotonic() > until:
                raise UserError(f"a training has made no update in {_START_S:.0f} s")
            time.sleep(0.5)


@contextlib.contextmanager
def running(trainings: Sequence[Training]) -> Iterator[None]:
    """Stop these trainings at the end of the block."""
    try:
        yield
    finally:
        for training in trainings:
            training.process.kill()
            training.process.wait()


def rates(trainings: Sequence[Training], seconds: float) -> list[float]:
    """Return the updates per second of each, over ``seconds``."""
    before, started = [training.updates() for training in trainings], time.monotonic()
    time.sleep(seconds)
    after, taken = [training.updates() for training in trainings], time.monotonic() - started
    return [(last - first) / taken for first, last in zip(before, after, strict=True)]


def measure(seconds: float, options: Sequence[str]) -> dict[str, list[float]]:
    """Return the updates per second of one training alone and of two beside each other, started in turn and at once."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_set(root / "train", 1000)
        write_set(root / "dev", 2)
        train_tokenizer([WORDS], TokenizerConfig(type="word", vocab_size=None), root)
        write_cmvn(root / "cmvn", compute_cmvn(root / "train"))
        found = {}
        first = Training(root, "first", options)
        with running([first]):
            first.wait()
            found["alone"] = rates([first], seconds)
            second = Training(root, "second", options)
            with running([second]):
                second.wait()
                found["in turn"] = rates([first, second], seconds)
        both = [Training(root, name, options) for name in ("third", "fourth")]
        with running(both):
            for training in both:
                training.wait()
            found["at once"] = rates(both, seconds)
    return found


def run(seconds: float, options: Sequence[str]) -> None:
    """Measure, print what was found, and raise a ``UserError`` if it is too little."""
    found = measure(seconds, options)
    alone = found["alone"][0]
    for name, of_both in found.items():
        print(f"{name:<8}", *(f"{rate:6.2f} updates/s, {rate / alone:.2f};" for rate in of_both))
    if min(rate for of_both in found.values() for rate in of_both) < SHARE * alone:
        raise UserError(f"each of two trainings should keep {SHARE} of the speed of one alone")


def main() -> int:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("options", nargs="*", help="options of `asrprune train`, after --")
    given = parser.parse_args()
    return exit_status(lambda: run(given.seconds, given.options))


if __name__ == "__main__":
    sys.exit(main())
