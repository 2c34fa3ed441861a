"""A real Slurm on this machine: its jobs make what one process makes; what goes wrong in them is one sentence."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import asrprune, refused, tree
from experiments import config_with, untrained
from waiting import wait_for

from asrprune.config.schema import Config
from asrprune.data import extract as fbank
from asrprune.data.tables import read_table, write_table
from asrprune.runtime import slurm
from asrprune.runtime.errors import UserError
from asrprune.runtime.slurm import JobError, Slurm

ROOT = Path(__file__).resolve().parents[2]
SLURM = ("--executor", "slurm", "--nj", "2")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SLURM_CONF of a Slurm of our own."""
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip("no Slurm here; Debian, Ubuntu: apt-get install --no-install-recommends slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    script = str(ROOT / "tools/slurm.sh")
    started = subprocess.run([script, "start", str(folder)], stdout=subprocess.PIPE, text=True, check=True).stdout
    try:
        yield started.partition("=")[2].strip().strip("'")
    finally:
        subprocess.run([script, "stop", str(folder)], check=True)


@pytest.fixture(autouse=True)
def here(cluster: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs find this checkout and this module; what they are asked for is asked for often."""
    monkeypatch.setenv("SLURM_CONF", cluster)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'test'}:{ROOT / 'test/runtime'}")
    monkeypatch.setattr(slurm, "_ASK_S", 2.0)
    monkeypatch.setattr(fbank, "SHARD_UTTERANCES", 2)
    yield
    wait_for(lambda: in_queue() == [])


def in_queue() -> list[str]:
    """Jobs that have not ended."""
    asked = ["squeue", "--noheader", "--array", "--format=%i"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """The tiny dev set, without features."""
    ignored = shutil.ignore_patterns("f*", "utt2*m*", "utt2d*")
    return Path(shutil.copytree(tiny_data / "dev", tmp_path / "data/dev", ignore=ignored))


@pytest.fixture
def exp(tiny_config: Config, tiny_data: Path, tmp_path: Path) -> Path:
    """An untrained experiment that decodes the tiny dev set in several batches."""
    config = config_with(config_with(tiny_config, "decode", max_frames=150), "prune", depths=(4, 2))
    return untrained(tmp_path / "exp", config, tiny_data).path


# ---- the same results


def test_features_are_those_of_one_process(data: Path, tiny_config_file: Path) -> None:
    done = asrprune("fbank", data, "--config", tiny_config_file, *SLURM)
    assert done.code == 0, done.err
    assert f"logs: {data.parent / 'log/slurm'}" in done.err
    made = tree(data)
    shutil.rmtree(data / "fbank")
    assert asrprune("fbank", data, "--config", tiny_config_file).code == 0
    assert tree(data) == made
    assert len(list((data / "fbank").glob("*.ark"))) == 3
    left = sorted(path.name for path in (data.parent / "log/slurm").iterdir())
    assert all(re.fullmatch(r"\d+_[01]\.log", name) for name in left), left


def test_plans_and_texts_are_those_of_one_process(exp: Path, tiny_data: Path) -> None:
    dev, strategy = tiny_data / "dev", ("--strategy", "iterative")
    steps, texts = [], []
    for where in (SLURM, ()):
        done = asrprune("search", "--exp", exp, "--dev", dev, *strategy, *where)
        assert done.code == 0, done.err
        steps.append(json.loads((exp / "plans/iterative.json").read_text())["steps"])
        done = asrprune("decode", "--exp", exp, dev, *strategy, *where)
        assert done.code == 0, done.err
        texts.append(tree(exp / "decode"))
        shutil.rmtree(exp / "decode")
    assert steps[0] == steps[1]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 2 * 2


# ---- what the user asks of sbatch


def limits(_: int) -> str:
    """What Slurm says of the job that asks."""
    asked = ["squeue", "--noheader", "--format=%j %l %C", f"--jobs={os.environ['SLURM_JOB_ID']}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def test_options_of_sbatch_win(tmp_path: Path) -> None:
    with Slurm(1, "", tmp_path) as plain:
        (said,) = plain.map(limits, [0])
        assert said in ("asrprune UNLIMITED 1", "asrprune 365-00:00:00 1"), "what Slurm's backfill makes of no limit"
    with Slurm(1, "-t 7 --cpus-per-task=2 --job-name='a b'", tmp_path) as asking:
        assert list(asking.map(limits, [0, 1])) == ["a b 7:00 2"] * 2


def test_what_sbatch_refuses_is_said(data: Path, tiny_config_file: Path) -> None:
    done = asrprune("fbank", data, "--config", tiny_config_file, *SLURM, "--sbatch", "--partition=nowhere")
    refused(done, "fbank", "sbatch --partition=nowhere: invalid partition specified: nowhere", "no job was started")
    done = asrprune("fbank", data, "--config", tiny_config_file, *SLURM, "--sbatch", "--comment='open")
    refused(done, "fbank", "--sbatch --comment='open: cannot be parsed")


# ---- what goes wrong


def test_a_users_mistake_is_said_as_it_is(data: Path, tiny_config_file: Path) -> None:
    key, path = list(read_table(data / "wav.scp").items())[-1]
    cut = data / "cut.wav"
    cut.write_bytes(Path(path).read_bytes()[:1000])
    write_table(data / "wav.scp", {**read_table(data / "wav.scp"), key: str(cut)})
    done = asrprune("fbank", data, "--config", tiny_config_file, *SLURM)
    refused(done, "fbank", f"{key}: {cut}: is truncated")


def broken(shard: int) -> int:
    if shard == 3:
        raise ZeroDivisionError("who would have thought")
    return shard


def test_a_mistake_of_our_own_names_the_job_and_its_log(tmp_path: Path) -> None:
    with Slurm(2, "", tmp_path) as two, pytest.raises(JobError) as error:
        list(two.map(broken, range(4)))
    said = re.fullmatch(r"job (\d+_1): ZeroDivisionError: who would have thought; its log: (.*/\1\.log)", str(error.value))
    assert said
    assert "in broken" in Path(said[2]).read_text()


def slow(data: Path, seconds: int) -> None:
    """Let each recording take its time to be read."""
    write_table(data / "wav.scp", {key: f"sleep {seconds}; cat {path} |" for key, path in read_table(data / "wav.scp").items()})


def meanwhile(act: Callable[[], object], when: Callable[[], bool]) -> None:
    """Do something as soon as something else is so, beside what goes on."""

    def watch() -> None:
        wait_for(when)
        act()

    threading.Thread(target=watch, daemon=True).start()


def test_a_cancelled_job_is_told_and_what_is_finished_is_kept(data: Path, tiny_config_file: Path) -> None:
    slow(data, 2)
    command = ["fbank", data, "--config", tiny_config_file, "--executor", "slurm", "--nj", "1", "--allow-pipes"]
    meanwhile(lambda: subprocess.run(["scancel", *in_queue()]), lambda: bool(list((data / "fbank").glob("*.scp"))))
    refused(
        asrprune(*command),
        "fbank",
        "job ",
        " was cancelled; run the same command again, finished results are kept; log of the job: ",
    )
    wait_for(lambda: in_queue() == [])
    finished = {path: path.stat().st_mtime_ns for path in (data / "fbank").glob("*.scp")}
    assert 0 < len(finished) < 3
    done = asrprune(*command)
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert list(read_table(data / "feats.scp")) == list(read_table(data / "text"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_cancels_the_jobs(data: Path, tiny_config_file: Path, number: signal.Signals) -> None:
    slow(data, 30)
    meanwhile(lambda: os.kill(os.getpid(), number), lambda: bool(list((data / "fbank").glob(".*.tmp*"))))
    done = asrprune("fbank", data, "--config", tiny_config_file, *SLURM, "--allow-pipes")
    assert done.code == 128 + number
    assert done.err.splitlines()[-1].startswith("asrprune fbank: error: interrupted")
    wait_for(lambda: in_queue() == [], 20)
    assert list((data / "fbank").glob(".*.tmp*")) == []
    assert list((data.parent / "log/slurm").glob(".*")) == []


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (pid := os.fork()):
        try:
            monkeypatch.setattr(Slurm, "_submit", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            list(Slurm(1, "", tmp_path).map(broken, [0]))
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    assert len(list(tmp_path.glob(".*"))) == 1
    with Slurm(1, "", tmp_path) as one:
        assert list(one.map(broken, [0])) == [0]
    assert list(tmp_path.glob(".*")) == []


def test_a_job_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise OSError('no numpy today')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        Slurm(1, "", tmp_path / "logs") as one,
        pytest.raises(UserError, match=r"^job \d+ ended as FAILED; last log line: '.*'; run"),
    ):
        list(one.map(limits, [0]))


def test_a_controller_that_hangs_counts_as_one_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "squeue").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        patch.setattr(slurm, "_ANSWER_S", 0.2)
        assert slurm._Queue("1").gone({"1_0"}) == {}


@pytest.mark.parametrize("silent_s", [0.0, 60.0])
def test_a_controller_that_is_down_is_told_after_a_while(
    silent_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        patch.setattr(slurm, "_SILENT_S", silent_s)
        assert slurm._Queue("12").gone({"12_0", "12_1"}) == {}
    said = (
        "squeue does not answer (slurm_load_jobs error: Unable to contact slurm controller); waiting for the results of"
        " 2 jobs of array 12, which may still run; Ctrl-C cancels them"
    )
    assert caplog.messages == ([] if silent_s else [said])
