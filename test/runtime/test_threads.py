"""The threads of torch: as many as asked for, or as there are idle cores; waiting ones give their core away soon."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import asrprune

from asrprune.runtime import cores, threads
from asrprune.runtime.cores import busy_cores, core_seconds, own_seconds, physical_cores, usable_cores
from asrprune.runtime.threads import FollowLoad, given_threads, set_threads, wait_briefly

WAITS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the variables is set, now and after the test as before."""
    for name in ("OMP_NUM_THREADS", *WAITS):
        monkeypatch.setenv(name, "")  # so that it is put back, even if it was not set
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("value", "threads"), [("3", 3), ("2,1", 2), (" 4 , 1", 4), ("", None), ("0", None), ("-1", None), ("many", None)]
)
def test_threads_of_the_environment(value: str, threads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMP takes a list, a number for each nested level, and ignores what is no number."""
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert given_threads() == threads


@pytest.mark.usefixtures("unset")
def test_waiting_threads_give_their_core_away_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_briefly()
    assert (os.environ["GOMP_SPINCOUNT"], os.environ["KMP_BLOCKTIME"]) == ("5000", "1")
    for chosen in WAITS:
        for name in WAITS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(chosen, "7")
        wait_briefly()
        assert {name: os.environ[name] for name in WAITS if name in os.environ} == {chosen: "7"}


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(
    ("asked", "processes", "busy", "used"),
    [
        (3, 1, 4.0, 3),
        (5, 2, 0.0, 2),
        (1, 2, 0.0, 1),
        (None, 1, 0.4, 8),
        (None, 1, 2.6, 5),
        (None, 2, 2.0, 3),
        (None, 1, 9.0, 1),
    ],
)
def test_threads_are_those_asked_for_or_the_idle_cores(
    asked: int | None, processes: int, busy: float, used: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "busy_cores", lambda: busy)
    monkeypatch.setattr(threads, "physical_cores", lambda: 8)
    caplog.set_level("INFO")
    assert set_threads(asked, processes) == (asked is None)
    assert os.environ["OMP_NUM_THREADS"] == str(used)
    assert len(caplog.messages) == (asked is None and busy > 1)


def test_the_users_number_of_threads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(threads, "busy_cores", lambda: 2.0)
    assert not set_threads(None, 2)
    assert os.environ["OMP_NUM_THREADS"] == "4"


@pytest.mark.usefixtures("unset")
def test_cores_that_others_use_are_left_to_them_and_taken_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0, 100.0, 7.0]  # seconds: the time, and those that cores spent on all programs and on this one
    monkeypatch.setattr(FollowLoad, "_now", lambda _: tuple(clock))
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    caplog.set_level("INFO")
    chosen: list[int] = []
    follow = FollowLoad(chosen.append, cores=4)

    def spend(seconds: float, own: float, others: float) -> None:
        clock[:] = clock[0] + seconds, clock[1] + seconds * (own + others), clock[2] + seconds * own
        follow()

    spend(1, 1, 3)  # too soon to tell
    spend(10, 4, 0.2)
    assert chosen == []
    spend(2, 3, 1.1)  # another program has begun
    assert chosen == [3]
    spend(2, 3, 1.4)
    spend(2, 3, 0.5)
    assert chosen == [3]
    spend(2, 1, 7)
    spend(2, 1, 7)
    assert chosen == [3, 1]
    spend(2, 1, 0.1)
    assert chosen == [3, 1, 4]
    assert caplog.messages[0].startswith("other programs use 1.1 cores: threads from here on: 3, before: 4 (--threads N keeps")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/stat is Linux's")
def test_the_time_of_cores_is_measured() -> None:
    before, own = core_seconds(), time.process_time()
    while time.process_time() - own < 0.3:
        pass
    assert core_seconds() - before >= 0.2  # it counts hundredths of a second


@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists children on Linux")
def test_workers_count_as_this_program() -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    before = own_seconds()
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        running = own_seconds() - before
        worker.communicate(b"\n")
    assert running >= 0.4  # counted in hundredths of a second
    assert running - 0.1 <= own_seconds() - before <= running + 1.0, "the same after its end"


@pytest.mark.usefixtures("unset")
def test_jobs_of_a_cluster_do_not_depend_on_the_load_of_this_machine(tmp_path: Path) -> None:
    for executor, expected in (("slurm", None), ("slurm --threads 3", "3")):
        done = asrprune("decode", "--exp", tmp_path, tmp_path, "--executor", *executor.split())
        assert done.code == 1
        assert os.environ.get("OMP_NUM_THREADS") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/stat is Linux's")
def test_busy_cores_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert 0 <= busy_cores(0.01) <= usable_cores()
    assert 1 <= physical_cores() <= usable_cores()
    monkeypatch.setattr(cores, "_STAT", tmp_path / "stat")
    assert busy_cores() == 0.0
    fields = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"]

    def write(**of_core: dict[str, int]) -> None:
        lines = [f"{core} {' '.join(str(times.get(field, 0)) for field in fields)}\n" for core, times in of_core.items()]
        (tmp_path / "stat").write_text("cpu 9 9 9 9 9 9 9 9 9 9\n" + "".join(lines) + "intr 7\n")

    monkeypatch.setattr(cores, "_usable", lambda: [0, 2, 3])
    write(cpu0={"user": 100, "idle": 50}, cpu1={"user": 5}, cpu2={"idle": 50}, cpu3={})
    after = {"cpu0": {"user": 110, "idle": 60}, "cpu1": {"user": 25}, "cpu2": {"idle": 60, "iowait": 5, "steal": 3, "nice": 2}}
    monkeypatch.setattr(time, "sleep", lambda _: write(**after, cpu3={"user": 20, "guest": 20}))
    assert busy_cores() == pytest.approx(10 / 20 + 5 / 20 + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings another OpenMP library elsewhere")
def test_torch_reads_both(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in WAITS}
    command = [sys.executable, "-m", "asrprune.cli", "svcca", "--exp", tmp_path, "--data", tmp_path, "--threads", "3"]
    told = {**environment, "OMP_DISPLAY_ENV": "VERBOSE"}
    said = subprocess.run(command, env=told, capture_output=True, text=True).stderr
    assert re.search(r"GOMP_SPINCOUNT = '(\d+)'", said)[1] == "5000"  # type: ignore[index]
    assert re.search(r"OMP_NUM_THREADS = '(\d+)'", said)[1] == "3"  # type: ignore[index]
