"""The threads of torch: how many, and how they wait. Both are read from the environment when torch is imported."""

import logging
import os
import time
from collections.abc import Callable

from asrprune.runtime.cores import busy_cores, core_seconds, own_seconds, physical_cores

logger = logging.getLogger(__name__)
# OpenMP's threads wait for each other several hundred times in a training step, in a loop that takes the core from other
# programs. Measured: two trainings of two threads each, on two cores. Steps per second of each, by the number of turns of
# the loop: 300,000 (GNU's default): 0.0; 20,000: 0.3; 5,000: 0.7; 1,000: 1.1. A training alone: 2.0, but with 1,000: 1.4.
_WAITS = {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}  # turns, for GNU's library; milliseconds, for LLVM's (macOS)

_LOOK_S = 2.0
_CHANGE = 0.6  # the number of threads stays if the load differs by fewer cores than this


def wait_briefly() -> None:
    """Let waiting threads give their core to other programs soon. What the user has set in the environment stays."""
    if not os.environ.keys() & {"OMP_WAIT_POLICY", *_WAITS}:
        os.environ.update(_WAITS)


def given_threads() -> int | None:
    """Return the number of threads in OMP_NUM_THREADS; of a list, one for each nested level, the first. None: it has none."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def set_threads(asked: int | None, processes: int = 1) -> bool:
    """Set the number of threads of this process, before it imports torch, and of those that it starts.

    Args:
        asked: the number of threads of all processes together. None: each process has OMP_NUM_THREADS; if this is not
            set, they share the cores that no other program keeps busy. The last bits of results depend on the number.
        processes: the processes that share the threads.

    Returns:
        whether the load of the machine decided the number, not the user.
    """
    if automatic := asked is None:
        if given_threads():
            return False
        cores = physical_cores()
        asked = max(1, cores - round(busy_cores()))
        if asked < cores:
            logger.info("other programs keep cores busy: %d of %d are used (--threads N sets the number)", asked, cores)
    os.environ["OMP_NUM_THREADS"] = str(max(1, asked // processes))
    return automatic


class FollowLoad:
    """The number of threads of a long computation, lowered while other programs use cores, and raised again afterwards.

    A thread that shares its core with another program holds up all other threads, many hundred times a second. Two trainings
    on two cores, compared with one alone: with two threads, each has a fifth of its speed; with one thread, each has more than
    half.
    """

    def __init__(self, set_num_threads: Callable[[int], None], cores: int | None = None) -> None:
        """Begin to measure.

        Args:
            set_num_threads: takes a new number of threads, such as ``torch.set_num_threads``.
            cores: the most threads to use; default: the physical cores. The number at the start is ``OMP_NUM_THREADS``.
        """
        self.set_num_threads, self.cores = set_num_threads, cores or physical_cores()
        self.threads = given_threads() or self.cores
        self.before = self._now()

    def __call__(self) -> None:
        """Look at the load, if the last look was ``_LOOK_S`` ago. Call this often, between two steps of the computation."""
        if time.monotonic() - self.before[0] < _LOOK_S:
            return
        before, self.before = self.before, self._now()
        seconds, busy, own = (now - then for now, then in zip(self.before, before, strict=True))
        others = (busy - own) / seconds
        threads = max(1, self.cores - max(0, round(others)))
        if threads == self.threads or abs(others - (self.cores - self.threads)) < _CHANGE:
            return
        logger.info(
            "other programs use %.1f cores: threads from here on: %d, before: %d (--threads N keeps the number, and so the last"
            " bits of results)", others, threads, self.threads,
        )  # fmt: skip
        self.threads = threads
        self.set_num_threads(threads)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Return three times in seconds: the clock, what cores spent on all programs, and on this one with its workers."""
        return time.monotonic(), core_seconds(), own_seconds()
