"""Work in other processes: the same results, loaded once, no sooner than is useful, and gone when the parent is interrupted."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest

from asrprune.runtime.choose import choose
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, _interrupts_blocked, processes
from asrprune.runtime.files import atomic_path


class Model:
    """Notes each time that it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / f"{os.getpid()}_{uuid.uuid4().hex}").touch()

    def __reduce__(self) -> tuple[type["Model"], tuple[Path]]:
        return Model, (self.folder,)


def use(model: Model, shard: int) -> tuple[int, int]:
    time.sleep(0.05)
    return os.getpid(), shard**2


def num_threads(_: int) -> int:
    import torch

    return torch.get_num_threads()


def square(shard: int) -> int:
    if shard == 2:
        raise UserError("two is refused")
    return shard**2


def write_for_ever(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.touch()
        time.sleep(600)


def die(_: int) -> None:
    os._exit(9)


def test_processes_give_the_results_of_one_and_load_what_they_need_once(tmp_path: Path) -> None:
    work = partial(use, Model(tmp_path))
    with processes(2) as two:
        for _ in range(2):
            found = list(two.map(work, range(9)))
            assert [square for _, square in found] == [square for _, square in HERE.map(work, range(9))]
    pids = {pid for pid, _ in found}
    assert os.getpid() not in pids
    loads = [path.name.partition("_")[0] for path in tmp_path.iterdir()]
    assert len(loads) == len(set(loads)), "loaded again"
    assert {*map(str, pids)} <= set(loads)


def test_they_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with processes(2) as two:
        assert list(two.map(num_threads, [0])) == [1]


def gpu(_: int) -> tuple[int, str | None]:
    time.sleep(0.5)  # or one process would do it all
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(("num_gpus", "shares"), [(2, {"5", "7"}), (1, {"5"}), (0, {"5,7,9"})])
def test_each_process_has_a_gpu(monkeypatch: pytest.MonkeyPatch, num_gpus: int, shares: set[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,9")
    with processes(2, num_gpus) as two:
        found = dict(two.map(gpu, range(4)))
    assert len(found) == 2
    assert set(found.values()) == shares


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_a_shard_is_asked_for_when_there_is_a_process_for_it(num_jobs: int) -> None:
    asked = 0

    def shards() -> Iterator[int]:
        nonlocal asked
        for shard in range(10, 20):
            asked += 1
            yield shard

    with processes(num_jobs) as executor:
        for done, result in enumerate(executor.map(square, shards()), 1):
            assert result == (9 + done) ** 2
            assert asked <= done + (2 * num_jobs - 1 if num_jobs > 1 else 0)
    assert asked == 10


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_what_work_raises_is_passed_on(num_jobs: int) -> None:
    with processes(num_jobs) as executor:
        results = executor.map(square, range(4))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(UserError, match=r"^two is refused$"):
            next(results)


@pytest.mark.usefixtures("handlers")
def test_an_interruption_ends_them_at_once_and_removes_what_is_half_written(tmp_path: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(main: int) -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    threading.Thread(target=interrupt, args=(main,)).start()
    with pytest.raises(KeyboardInterrupt), processes(2) as two:
        list(two.map(write_for_ever, [tmp_path / "a", tmp_path / "b", tmp_path / "c"]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_while_a_process_starts_comes_afterwards_and_not_to_the_process() -> None:
    reached = []
    seen = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"

    def start() -> None:
        with _interrupts_blocked():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # the test may run beside other threads
            reached.append(subprocess.run([sys.executable, "-c", seen], stdout=subprocess.PIPE, text=True).stdout)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    with pytest.raises(KeyboardInterrupt):
        start()
    assert reached == ["True\n"]


def test_more_processes_than_work_are_no_harm() -> None:
    with processes(20_000) as many:
        assert list(many.map(square, [3])) == [9]


def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(BrokenProcessPool), processes(2) as two:
        list(two.map(die, range(3)))


def test_what_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--executor pbs: no such executor; choose from local and slurm"):
        choose("pbs", 1, 0, "", tmp_path)
    with pytest.raises(UserError, match="--sbatch '--time=60': sbatch options need a cluster; add --executor slurm"):
        choose("local", 1, 0, "--time=60", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--executor slurm: this machine has no sbatch"):
        choose("slurm", 1, 0, "", tmp_path)
