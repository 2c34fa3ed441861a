"""Executors process shards of work: in this process, in several processes of this machine, or in jobs of a Slurm cluster."""

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
from multiprocessing.sharedctypes import Synchronized
from typing import Any, NoReturn, TypeVar

from asrprune.runtime.cores import usable_cores
from asrprune.runtime.memory import keep_freed_memory
from asrprune.runtime.threads import given_threads

Shard = TypeVar("Shard")
Result = TypeVar("Result")


class Executor:
    """The executor that processes all shards in this process, and the base class of the others.

    Use it in a ``with`` statement; its end stops processes and jobs that still run. Work and shards are pickled for other
    processes; an experiment, a corpus and a tokenizer are pickled as their paths.

    Attributes:
        num_gpus: 0: all compute on the CPU; else each process computes on one GPU, which it may share with others.
        restarts: whether each call of ``map`` starts new processes, which takes seconds.
    """

    restarts = False

    def __init__(self, num_gpus: int = 0) -> None:
        self.num_gpus = num_gpus

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """Yield the result of each shard when it is ready; raise the error that ``work`` raised.

        A shard is taken from ``shards`` only when a process is free for it, so it may depend on earlier results.
        """
        return map(work, shards)

    def split(self, items: Sequence[Shard]) -> list[Sequence[Shard]]:
        """Split ``items`` into shards of the best size for this executor."""
        return [[item] for item in items]

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Do nothing: no other process runs."""


HERE = Executor()


class Processes(Executor):
    """The executor that processes shards in several processes, which share the cores and live until the ``with`` ends."""

    def __init__(self, num_jobs: int, num_gpus: int = 0) -> None:
        super().__init__(num_gpus)
        self.num_jobs = num_jobs
        context = multiprocessing.get_context("spawn")  # forking a process that has run torch can deadlock
        threads = max(1, (given_threads() or usable_cores()) // num_jobs)  # as torch counts them, whose import takes seconds
        gpus, started = _gpus(num_gpus), context.Value("i", 0)
        self._pool = ProcessPoolExecutor(num_jobs, context, initializer=_start_worker, initargs=(threads, gpus, started))

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """Yield the results in the order of ``shards``.

        Always two shards per process are submitted ahead, so a shard sees the same earlier results in every run.
        """
        packed, coming, waiting = pickle.dumps(work), iter(shards), deque[Future[Result]]()
        while True:
            for shard in islice(coming, 2 * self.num_jobs - len(waiting)):
                with _interrupts_blocked():  # a process that starts here never sees Ctrl-C: the parent handles it
                    waiting.append(self._pool.submit(_do, packed, shard))
            if not waiting:
                return
            yield waiting.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop the processes: after an error they finish their shards, after an interruption they are terminated."""
        if kind and not issubclass(kind, Exception):
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown(cancel_futures=True)


def processes(num_jobs: int, num_gpus: int = 0) -> Executor:
    """Return the executor for ``num_jobs`` processes on this machine."""
    return Executor(num_gpus) if num_jobs <= 1 else Processes(num_jobs, num_gpus)


@lru_cache(maxsize=1)
def unpacked(work: bytes) -> Callable[[Any], Any]:
    """Unpickle work once per process, as it may contain an experiment to load."""
    return pickle.loads(work)


def _do(work: bytes, shard: Any) -> Any:
    try:
        return unpacked(work)(shard)
    except SystemExit:  # raised by _end; the pool would treat it as a result and continue
        os._exit(1)


def _gpus(num_gpus: int) -> list[str]:
    """Return the names of the GPUs that the processes share."""
    if not num_gpus:
        return []
    from asrprune.runtime.hardware import visible_gpus

    return visible_gpus()[:num_gpus]


def _start_worker(threads: int, gpus: Sequence[str], started: "Synchronized[int]") -> None:
    """Set up a process; ``started`` counts the processes before this one, which take the GPUs in turn."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch reads it when it is imported later
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]  # read by torch, too
    keep_freed_memory()
    signal.signal(signal.SIGTERM, _end)
    sys.unraisablehook = _try_again
    _end_with_parent()


def _end(*_: object) -> NoReturn:
    """End by ``SystemExit``, which removes temporary files; ignore a second signal, which the pool sends."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def _try_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Wait for another signal if ``SystemExit`` was raised where Python ignores it, in a callback of an import for example."""
    if issubclass(unraisable.exc_type, SystemExit):
        signal.signal(signal.SIGTERM, _end)
    else:
        sys.__unraisablehook__(unraisable)


def _end_with_parent() -> None:
    """End this worker when its parent ends; otherwise it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in this block, for this thread and the processes that it starts. If it comes, it is handled at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
