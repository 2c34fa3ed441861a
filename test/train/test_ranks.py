"""Several processes (gloo, on the CPU) against one: the same curve; one that dies ends the run, and it goes on."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_for

from asrprune.config.load import write_config
from asrprune.config.schema import Config
from asrprune.model.ctc_model import CtcModel
from asrprune.runtime.errors import UserError
from asrprune.train.journal import read_journal
from asrprune.train.ranks import LOST_PEER, make_fabric, share
from asrprune.train.update import zero_of_unused

pytestmark = pytest.mark.slow

ConfigWith = Callable[..., Config]
# No dropout and no SpecAugment, whose draws depend on who has which utterance; skipped layers and truncated updates, whose
# draws must not.
NO_DRAWS = ("model.dropout=0", "augment.num_freq_masks=0", "augment.num_time_masks=0")
CALM = (*NO_DRAWS, "model.stochastic_depth.rate=0.4", 'model.truncated={"1": 0.3}')


def command(config: Config, data: Path, exp: Path, *options: str) -> list[str]:
    write_config(config, exp.with_suffix(".yaml"))
    inputs = ["--train", data / "train", "--dev", data / "dev", "--bpe", data / "lang/bpe.model", "--cmvn", data / "cmvn"]
    return [*map(str, ["-m", "asrprune.cli", "train", "--config", exp.with_suffix(".yaml"), "--exp", exp, *inputs]), *options]


def run(launcher: list[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=300)


PYTHON = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture
def config(tiny_config_with: ConfigWith) -> Config:
    return tiny_config_with(*CALM, "train.log_every_steps=1", "batch.accumulate=2")


def curve(exp: Path) -> list[list[float]]:
    """Losses and gradient norms of all updates, then losses and WER of all epochs."""
    records = read_journal(exp / "train.jsonl")
    steps = [[r["loss"], r["grad_norm"], *r["tap_losses"].values()] for r in records if r["kind"] == "step"]
    return steps + [[r["train_loss"], *r["dev_loss"].values(), *r["dev_wer"].values()] for r in records if r["kind"] == "epoch"]


@pytest.mark.parametrize(
    ("launcher", "strategy"), [(PYTHON, "ddp"), (TORCHRUN, "ddp"), (PYTHON, "fsdp")], ids=["ours", "torchrun", "fsdp"]
)
def test_two_processes_learn_what_one_learns(
    launcher: list[str],
    strategy: str,
    config: Config,
    tiny_data: Path,
    run_training: Callable[[Config, Path], None],
    tmp_path: Path,
) -> None:
    """Batches of one utterance, too, of which the second process has no share; with self-conditioning, taps are skipped."""
    config = config.model_copy(update={"train": config.train.model_copy(update={"strategy": strategy, "consistency": 0.2})})
    lone = config.model_copy(update={"batch": config.batch.model_copy(update={"max_frames": 130})})
    lone = lone.model_copy(update={"model": lone.model.model_copy(update={"self_conditioning": True})})
    for name, each in (("batches", config), ("lone", lone)):
        one, two = tmp_path / f"{name}1", tmp_path / f"{name}2"
        run_training(each, one)
        done = run(launcher, command(each, tiny_data, two, *(["--nproc", "2"] if launcher is PYTHON else [])))
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("epoch 2: train loss") == 1, "one process speaks"
        assert f"cpu x 2, {strategy}" in done.stderr
        for ours, theirs in zip(curve(two), curve(one), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4)


@pytest.mark.parametrize("end", ["last epoch", "signal"])
def test_processes_part_before_python_ends(end: str, config: Config, tiny_data: Path, tmp_path: Path) -> None:
    """The threads of a process group that is left to the end of Python abort about one in forty processes."""
    program = tmp_path / "program.py"
    program.write_text(
        "import atexit, os, torch\n"
        "from asrprune.cli import main\n"
        "atexit.register(lambda: os.write(2, b'together: %d\\n' % torch.distributed.is_initialized()))\n"
        "main()\n"
    )
    config = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1 if end == "last epoch" else 400})})
    arguments = command(config, tiny_data, tmp_path / "exp", "--nproc", "2")[2:]
    process = subprocess.Popen([*PYTHON, str(program), *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("epoch 1: train loss" in line for line in process.stderr)
    if end == "signal":
        process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == (143 if end == "signal" else 0), said
    assert said.count("together: 0\n") == 2


def test_what_an_update_leaves_unused_has_a_gradient_of_0(tiny_config_with: ConfigWith) -> None:
    model = CtcModel(tiny_config_with("model.self_conditioning=true").model, 80, 7)
    zero_of_unused(model, [1, 4]).backward()
    unused = re.compile(r"encoder\.layers\.[12]\.|condition\.")  # layers 2 and 3
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == bool(unused.match(name)), name
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("victim", ["first", "other"])
def test_a_run_whose_process_is_killed_ends_with_a_sentence_and_goes_on(
    victim: str, tiny_config_with: ConfigWith, tiny_data: Path, tmp_path: Path
) -> None:
    config = tiny_config_with(*CALM, "train.log_every_steps=1", "train.epochs=400", "train.checkpoint_every_s=1e-9")
    exp = tmp_path / "exp"
    arguments = command(config, tiny_data, exp, "--nproc", "2")
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([*PYTHON, *arguments], stderr=log, start_new_session=True)
        while not (exp / "checkpoints/previous.pt").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        os.kill(process.pid if victim == "first" else int(children[0]), signal.SIGKILL)
        assert process.wait(60) != 0
    wait_for(lambda: not Path(f"/proc/{children[0]}").exists(), 60)  # nobody is left behind
    text = (tmp_path / "log").read_text()
    assert LOST_PEER in text
    assert "Traceback" not in text

    done_before = len([r for r in read_journal(exp / "train.jsonl") if r["kind"] == "epoch"])
    shorter = tiny_config_with(*CALM, "train.log_every_steps=1", "train.epochs=400", "train.checkpoint_every_s=60")
    process = subprocess.Popen([*PYTHON, *command(shorter, tiny_data, exp, "--nproc", "2")], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("continuing at epoch" in line for line in process.stderr)
    while len([r for r in read_journal(exp / "train.jsonl") if r["kind"] == "epoch"]) <= done_before:
        time.sleep(0.1)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "stopped by a signal; update" in said
    assert LOST_PEER not in said


def test_a_model_that_was_split_goes_on_whole(
    tiny_config_with: ConfigWith, tiny_data: Path, run_training: Callable[[Config, Path], None], tmp_path: Path
) -> None:
    often = ("train.log_every_steps=1", "train.checkpoint_every_s=1e-9", "train.epochs=6")
    config = tiny_config_with(*CALM, *often, "train.strategy=fsdp")
    run_training(config, tmp_path / "whole")
    arguments = command(config, tiny_data, tmp_path / "split", "--nproc", "2")
    process = subprocess.Popen([*PYTHON, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "split/checkpoints/epoch0002.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run_training(config, tmp_path / "split")
    for ours, theirs in zip(curve(tmp_path / "split"), curve(tmp_path / "whole"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-3)  # sums are rounded in another order, above all gradient norms


def test_shares_are_the_batch() -> None:
    for size in range(1, 9):
        batch = np.arange(10, 10 + size)
        for world in (1, 2, 3, 8):
            shares = [share(batch, rank, world) for rank in range(world)]
            counted = np.concatenate([own for rank, own in enumerate(shares) if rank < size])
            assert sorted(counted.tolist()) == batch.tolist()
            assert all(len(own) >= 1 for own in shares)


def test_several_machines_need_to_know_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(UserError, match=r"--num-nodes 2: set MASTER_PORT, NODE_RANK on each machine"):
        make_fabric("float32", num_procs=1, num_nodes=2)
    monkeypatch.setenv("MASTER_PORT", "http")
    monkeypatch.setenv("NODE_RANK", "2")
    with pytest.raises(UserError, match=r"set MASTER_PORT, NODE_RANK on each .* 0 on the first to 1 on the last"):
        make_fabric("float32", num_procs=1, num_nodes=2)


def machine(rank: int, port: int, arguments: list[str]) -> "subprocess.Popen[str]":
    there = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "NODE_RANK": str(rank)}
    return subprocess.Popen([*PYTHON, *arguments], env={**os.environ, **there}, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def test_two_machines_learn_what_one_process_learns(
    config: Config, tiny_data: Path, run_training: Callable[[Config, Path], None], tmp_path: Path
) -> None:
    run_training(config, tmp_path / "one")
    port, arguments = free_port(), command(config, tiny_data, tmp_path / "two", "--num-nodes", "2")
    first = machine(0, port, arguments)
    assert first.stderr is not None
    assert any(f"waiting for the other machines at localhost:{port}" in line for line in first.stderr)
    second = machine(1, port, arguments)
    said = first.communicate(timeout=300)[1] + second.communicate(timeout=300)[1]
    assert (first.returncode, second.returncode) == (0, 0), said
    for ours, theirs in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_waiting_for_another_machine_can_be_ended(how: signal.Signals, config: Config, tiny_data: Path, tmp_path: Path) -> None:
    first = machine(0, free_port(), command(config, tiny_data, tmp_path / "exp", "--num-nodes", "2"))
    assert first.stderr is not None
    assert any("waiting for the other machines" in line for line in first.stderr)
    time.sleep(1.0)
    first.send_signal(how)
    first.communicate(timeout=20)
    assert first.returncode == -how


def test_a_process_ends_when_the_one_that_started_it_is_gone(tmp_path: Path) -> None:
    """It waits here for ever, as for a peer of which a GPU hears nothing."""
    child = (
        "import time, logging; logging.basicConfig(); from asrprune.train.ranks import end_with_launcher; end_with_launcher()"
    )
    child += "; print('waits', flush=True); time.sleep(600)"
    parent = "import os, subprocess, sys; os.environ['LOCAL_RANK'] = '1';"
    parent += f"subprocess.run([sys.executable, '-c', {child!r}])"
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([*PYTHON, "-c", parent], stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.kill()
        process.wait()
        process.stdout.read()  # until the child ends
    assert LOST_PEER in (tmp_path / "log").read_text()


def test_what_the_launcher_says_before_it_kills_all_is_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    make_fabric("float32")
    from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

    dead = subprocess.Popen([*PYTHON, "-c", "raise SystemExit(9)"])
    dead.wait()
    observer = _ChildProcessObserver(main_pid=0, child_processes=[dead])
    observer._terminate_all = lambda: None  # type: ignore[method-assign]
    assert observer._run()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.messages == [LOST_PEER]
