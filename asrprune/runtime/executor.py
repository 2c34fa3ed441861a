"""Executors do shards of work: in this process, in several of this machine, or as jobs of a Slurm cluster."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import Any, NoReturn, TypeVar

from asrprune.runtime.cores import usable_cores
from asrprune.runtime.memory import keep_freed_memory

Shard = TypeVar("Shard")
Result = TypeVar("Result")


class Executor:
    """Does it in this process. Every executor is for a `with`, whose end stops what is under way elsewhere.

    Work and shards are pickled to get elsewhere; an experiment, a corpus and a tokenizer go as their paths.

    Attributes:
        num_gpus: what the work is to compute on, wherever it is done: 0: the CPU of that machine, else a GPU for each process,
            which share them where there are fewer.
        restarts: whether each ``map`` starts processes anew, which takes its time.
    """

    restarts = False

    def __init__(self, num_gpus: int = 0) -> None:
        self.num_gpus = num_gpus

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """The results of all shards as they are ready; raises what ``work`` raised.

        A shard is asked for no sooner than there is a process for it, so it may depend on results that are there by then.
        """
        return map(work, shards)

    def split(self, items: Sequence[Shard]) -> list[Sequence[Shard]]:
        """Shards of the size that suits best where each may depend on results of those before."""
        return [[item] for item in items]

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Nothing is under way elsewhere."""


HERE = Executor()


class Processes(Executor):
    """Does it in several processes, which share the cores; they are there from one ``map`` to the next."""

    def __init__(self, num_jobs: int, num_gpus: int = 0) -> None:
        super().__init__(num_gpus)
        self.num_jobs = num_jobs
        context = multiprocessing.get_context("spawn")  # forking a process that has run torch can deadlock
        threads = max(1, _num_threads() // num_jobs)
        gpus = context.SimpleQueue()
        for gpu in _shared_out(num_jobs, num_gpus):
            gpus.put(gpu)
        self._pool = ProcessPoolExecutor(num_jobs, context, initializer=_start_worker, initargs=(threads, gpus))

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """In the order of ``shards``, of which two for each process are under way: what depends on what is always the same."""
        packed, coming, waiting = pickle.dumps(work), iter(shards), deque[Future[Result]]()
        while True:
            for shard in islice(coming, 2 * self.num_jobs - len(waiting)):
                with _interrupts_ignored():  # a process may start here and inherit it: Ctrl-C is the parent's to handle
                    waiting.append(self._pool.submit(_do, packed, shard))
            if not waiting:
                return
            yield waiting.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """After a mistake the shards that are under way are finished, after an interruption they are not."""
        if kind and not issubclass(kind, Exception):
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown(cancel_futures=True)


def processes(num_jobs: int, num_gpus: int = 0) -> Executor:
    """An executor of this machine; one process is this one."""
    return Executor(num_gpus) if num_jobs <= 1 else Processes(num_jobs, num_gpus)


@lru_cache(maxsize=1)
def unpacked(work: bytes) -> Callable[[Any], Any]:
    """Pickled work, with the experiment that it may hold: loaded once in a process."""
    return pickle.loads(work)


def _do(work: bytes, shard: Any) -> Any:
    try:
        return unpacked(work)(shard)
    except SystemExit:  # by _end; the pool would hand it on as a result, and go on
        os._exit(1)


def _shared_out(num_jobs: int, num_gpus: int) -> list[str]:
    """A GPU for each process, by its name; none for the CPU."""
    if not num_gpus:
        return [""] * num_jobs
    from asrprune.runtime.hardware import visible_gpus

    gpus = visible_gpus()[:num_gpus]
    return [gpus[number % len(gpus)] for number in range(num_jobs)]


def _start_worker(threads: int, gpus: "multiprocessing.SimpleQueue[str]") -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch, which is not imported yet, reads it
    if gpu := gpus.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # this, too
    keep_freed_memory()
    signal.signal(signal.SIGTERM, _end)
    _end_with_parent()


def _end(*_: object) -> NoReturn:
    """Remove what is half-written on the way, which a second signal must not cut short: the pool sends one, too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def _end_with_parent() -> None:
    """Without this, a worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _num_threads() -> int:
    """Count the threads that torch would take, without its import, which takes seconds."""
    return int(os.environ.get("OMP_NUM_THREADS") or usable_cores())


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
