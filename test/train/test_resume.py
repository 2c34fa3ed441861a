"""A run that is killed, at any moment, and started again ends as if it had never been killed, bit for bit."""

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from waiting import has_lines, wait_for

from asrprune.config.load import write_config
from asrprune.config.schema import Config
from asrprune.runtime.errors import UserError
from asrprune.runtime.signals import Interrupted, raise_interrupts
from asrprune.train import dev
from asrprune.train.checkpoint import load_state, save_state
from asrprune.train.journal import Journal, read_journal
from asrprune.train.update import Updater

pytestmark = pytest.mark.slow

TIMES = ("elapsed_s", "frames_per_s", "seconds")
RunTraining = Callable[[Config, Path], None]


# Saved after every line of the log; only the best epoch is kept and each is better than the last, so their files come and go.
NUMBERS = ("epochs=3", "checkpoint_every_s=1e-9", "keep_best=1", "average=1", "schedule.peak=1e-2")
OVERRIDES = (*(f"train.{number}" for number in NUMBERS), "train.consistency=0.2", 'model.truncated={"1": 0.3, "2": 0.2}')


@pytest.fixture(scope="module")
def config(tiny_config_with: Callable[..., Config]) -> Config:
    return tiny_config_with(*OVERRIDES)


class Witness:
    """Copies an experiment at every moment at which its files change: what a kill at that moment would leave."""

    def __init__(self, exp: Path, copies: Path, patched: pytest.MonkeyPatch) -> None:
        self.exp, self.copies, self.count = exp, copies, 0
        replace, unlink, write = os.replace, Path.unlink, Journal._write

        def watched_replace(source: Path, target: Path) -> None:
            self.copy()
            replace(source, target)

        def watched_unlink(path: Path, missing_ok: bool = False) -> None:
            if path.suffix == ".safetensors" and path.exists():
                self.copy()
            unlink(path, missing_ok)

        def watched_write(journal: Journal, record: dict[str, Any]) -> None:
            write(journal, record)
            whole = journal.path.read_bytes()
            torn = self.copy() / journal.path.name
            torn.write_bytes(whole[:-9])

        patched.setattr(os, "replace", watched_replace)
        patched.setattr(Path, "unlink", watched_unlink)
        patched.setattr(Journal, "_write", watched_write)

    def copy(self) -> Path:
        target = self.copies / f"{self.count:03d}"
        self.count += 1
        shutil.copytree(self.exp, target, ignore=shutil.ignore_patterns("tensorboard"))
        return target


@pytest.fixture(scope="module")
def reference(config: Config, run_training: RunTraining, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run in ``exp``, and beside it copies from all its moments."""
    root = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patched:
        Witness(root / "exp", root / "moments", patched)
        run_training(config, root / "exp")
    return root


@pytest.fixture
def exp(reference: Path, tmp_path: Path) -> Path:
    """A copy of the uninterrupted run."""
    return Path(shutil.copytree(reference / "exp", tmp_path / "exp"))


def files(exp: Path) -> Iterator[Path]:
    return (path.relative_to(exp) for path in sorted(exp.rglob("*")) if path.is_file() and "tensorboard" not in path.parts)


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMES}


def assert_same_run(ours: Path, theirs: Path) -> None:
    """All files are equal but for measured times."""
    assert list(files(ours)) == list(files(theirs))
    for name in files(ours):
        if name.suffix not in (".pt", ".jsonl"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    records = [[without_times(record) for record in read_journal(exp / "train.jsonl")] for exp in (ours, theirs)]
    assert records[0] == records[1]
    assert_same_state(ours, theirs, ("model", "optimizer", "progress"))


def assert_same_state(ours: Path, theirs: Path, parts: Sequence[str]) -> None:
    """All numbers of the newest states are equal, bit by bit, but for measured times."""
    states = [load_state(exp / "checkpoints") for exp in (ours, theirs)]
    for state in states:
        assert state is not None
        state["progress"] = without_times(state["progress"])
        for group in state["optimizer"]["param_groups"]:
            group["betas"] = tuple(group["betas"])  # a list after it was restored
    plain = [(state["optimizer"].pop("param_groups"), state["progress"].pop("records")) for state in states if state]
    assert plain[0] == plain[1] or "progress" not in parts
    assert plain[0][0] == plain[1][0]
    for part in parts:
        torch.testing.assert_close(*(state[part] for state in states if state), rtol=0.0, atol=0.0)


def test_run_that_is_killed_at_any_moment_goes_on_exactly(reference: Path, config: Config, run_training: RunTraining) -> None:
    moments = sorted((reference / "moments").iterdir())
    states = [{path.name for path in moment.glob("checkpoints/[!.]*.pt")} for moment in moments]
    assert all(state in states for state in (set(), {"last.pt"}, {"last.pt", "previous.pt"}))
    assert {"previous.pt"} in states  # between the two renames of a save
    assert any(list(moment.rglob(".*.tmp*")) for moment in moments)
    assert any(len(list(moment.glob("checkpoints/epoch*"))) == 2 for moment in moments)  # a better epoch, and one to be deleted
    for moment in moments:
        run_training(config, moment)
        assert_same_run(moment, reference / "exp")


def test_finished_run_is_left_as_it_is(exp: Path, reference: Path, config: Config, run_training: RunTraining) -> None:
    run_training(config, exp)
    assert_same_run(exp, reference / "exp")


@pytest.mark.parametrize("flipped", [None, 0.2, 0.5, 0.8])
def test_a_damaged_state_falls_back_to_the_one_before(
    flipped: float | None,
    exp: Path,
    reference: Path,
    config: Config,
    run_training: RunTraining,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is cut short, or a bit has flipped."""
    last = exp / "checkpoints" / "last.pt"
    content = bytearray(last.read_bytes())
    if flipped is None:
        del content[1000:]
    else:
        content[int(flipped * len(content))] ^= 1
    last.write_bytes(content)
    run_training(config, exp)
    assert "last.pt cannot be read" in caplog.text
    assert_same_run(exp, reference / "exp")


def run_until_the_first_epoch_ends(run_training: RunTraining, config: Config, exp: Path) -> None:
    with patch.object(Journal, "epoch", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        run_training(config, exp)


def test_log_interval_and_workers_may_change_on_the_way(
    reference: Path, run_training: RunTraining, tiny_config_with: Callable[..., Config], tmp_path: Path
) -> None:
    """They decide where states may be saved and who reads the features, not what is learnt."""
    run_until_the_first_epoch_ends(run_training, tiny_config_with(*OVERRIDES, "train.log_every_steps=3"), tmp_path / "exp")
    run_training(tiny_config_with(*OVERRIDES, "train.log_every_steps=5", "train.num_workers=1"), tmp_path / "exp")
    assert_same_state(tmp_path / "exp", reference / "exp", ("model", "optimizer"))


@pytest.mark.parametrize("layer", ["conformer", "ebranchformer"])
def test_other_layer_types_go_on_exactly(
    layer: str, run_training: RunTraining, tiny_config_with: Callable[..., Config], tmp_path: Path
) -> None:
    """BatchNorm's statistics are state, too, and must not see the batch that tries the memory once more at every start."""
    config = tiny_config_with(*OVERRIDES, f"model.layer={layer}", "model.layer.kernel=3")
    run_until_the_first_epoch_ends(run_training, config, tmp_path / "killed")
    run_training(config, tmp_path / "killed")
    run_training(config, tmp_path / "whole")
    ours, theirs = (load_state(tmp_path / exp / "checkpoints") for exp in ("killed", "whole"))
    assert ours is not None
    assert theirs is not None
    assert ("encoder.layers.0.conv.norm.running_mean" in ours["model"]) == (layer == "conformer")
    torch.testing.assert_close(ours["model"], theirs["model"], rtol=0.0, atol=0.0)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("signalled", ["update 1", "update 4", "update 6", "update 9", "evaluation"])
def test_a_signal_saves_the_state_and_stops_and_the_run_goes_on_exactly(
    signalled: str,
    run_training: RunTraining,
    tiny_config_with: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the middle of a log line, at its end, in the middle of an evaluation: no state would have been due."""
    config = tiny_config_with(*OVERRIDES, "train.log_every_steps=3", "train.checkpoint_every_s=1e9")
    run_training(config, tmp_path / "whole")
    update, word_errors = Updater.update, dev.word_errors

    def update_and_signal(updater: Updater, step: int, *arguments: Any) -> None:
        update(updater, step, *arguments)
        if signalled == f"update {step}":
            signal.raise_signal(signal.SIGTERM)

    def evaluate_and_signal(*arguments: Any) -> list[int]:
        if signalled == "evaluation":
            signal.raise_signal(signal.SIGTERM)
        return word_errors(*arguments)

    raise_interrupts()
    with monkeypatch.context() as patched, caplog.at_level("INFO"):
        patched.setattr(Updater, "update", update_and_signal)
        patched.setattr(dev, "word_errors", evaluate_and_signal)
        with pytest.raises(Interrupted, match="SIGTERM"):
            run_training(config, tmp_path / "stopped")
    step = 4 if signalled == "evaluation" else int(signalled.split()[1])
    assert f"stopped by a signal; update {(step - 1) % 4 + 1} of epoch {(step - 1) // 4 + 1} is saved" in caplog.text
    run_training(config, tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_more_epochs_go_on_where_the_run_ended(
    run_training: RunTraining, tiny_config_with: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = ("train.keep_best=4", "train.average=1")
    run_training(tiny_config_with(*numbers, "train.epochs=1"), tmp_path / "longer")
    for exp in ("longer", "whole"):
        run_training(tiny_config_with(*numbers, "train.epochs=2"), tmp_path / exp)
    assert_same_run(tmp_path / "longer", tmp_path / "whole")
    assert "cosine" not in caplog.text
    cosine = (*numbers, "train.schedule.name=cosine")
    for epochs in (1, 2):
        run_training(tiny_config_with(*cosine, f"train.epochs={epochs}"), tmp_path / "cosine")
    assert "train.epochs was 1, is 2: the learning rate now follows the cosine of 2 epochs" in caplog.text
    with pytest.raises(UserError, match="was trained with other numbers"):
        run_training(tiny_config_with(*cosine, "train.epochs=1"), tmp_path / "cosine")


def test_killed_commands_go_on_exactly(reference: Path, config: Config, tiny_data: Path, tmp_path: Path) -> None:
    """The same with real processes and kill -9, at moments that nobody chose."""
    write_config(config, tmp_path / "config.yaml")
    exp = tmp_path / "exp"
    where = ("--config", tmp_path / "config.yaml", "--exp", exp, "--train", tiny_data / "train", "--dev", tiny_data / "dev")
    inputs = ("--bpe", tiny_data / "lang/bpe.model", "--cmvn", tiny_data / "cmvn")
    command = [sys.executable, "-m", "asrprune.cli", "train", *where, *inputs]
    seed = random.randrange(1000)
    rng = random.Random(seed)
    journal = exp / "train.jsonl"
    for lines in (rng.randrange(1, 5), rng.randrange(5, 9)):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for(partial(has_lines, journal, lines))
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0), seed  # 0: it was faster
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert_same_run(exp, reference / "exp")


def test_the_state_of_another_version_is_refused(exp: Path, run_training: RunTraining, config: Config) -> None:
    state = load_state(exp / "checkpoints")
    assert state is not None
    save_state(exp / "checkpoints", {**state, "format": 1})
    with pytest.raises(UserError, match=r"checkpoints: written by another version of asrprune; remove the directory"):
        run_training(config, exp)


@pytest.mark.parametrize("part", ["moments", "window"])
def test_the_state_of_another_model_is_refused(part: str, exp: Path, run_training: RunTraining, config: Config) -> None:
    state = load_state(exp / "checkpoints")
    assert state is not None
    if part == "moments":
        for moments in state["optimizer"]["state"].values():
            moments["exp_avg"] = torch.zeros(3)
    else:
        state["window"]["losses"] = torch.zeros(7)
    save_state(exp / "checkpoints", state)
    with pytest.raises(UserError, match=r"checkpoints: its state is not one of this model .* has the shape \[[37]\], not \["):
        run_training(config, exp)


def test_another_number_of_threads_is_told(
    run_training: RunTraining, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_training(config, tmp_path / "exp")
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: before + 1)
    caplog.set_level(logging.INFO)
    run_training(config, tmp_path / "exp")
    assert f"the run began with {before} threads and goes on with {before + 1}, so its last bits may differ" in caplog.text
