"""The threads of torch: how many, and how they wait. Both are read from the environment when torch is imported."""

import logging
import os

from asrprune.runtime.cores import busy_cores, physical_cores

logger = logging.getLogger(__name__)
# OpenMP's threads wait for each other several hundred times in a training step, in a loop that takes the core from other
# programs. Two trainings of two threads on two cores, in steps per second of each (2.0 when alone): GNU's 300,000 turns of
# the loop: 0.0; 20,000: 0.3; 5,000: 0.7; 1,000: 1.1, but alone 1.4.
_WAITS = {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}  # turns, for GNU's library; milliseconds, for LLVM's (macOS)


def wait_briefly() -> None:
    """Let waiting threads give their core to other programs soon. What the user has set in the environment stays."""
    if not os.environ.keys() & {"OMP_WAIT_POLICY", *_WAITS}:
        os.environ.update(_WAITS)


def set_threads(asked: int | None, processes: int = 1) -> None:
    """Set the number of threads of this process, before it imports torch, and of those that it starts.

    Args:
        asked: the number of threads of all processes together. None: OMP_NUM_THREADS of each, or else as many as there are
            cores that no other program keeps busy. The last bits of results depend on the number.
        processes: the processes that share the threads.
    """
    if asked is None:
        if os.environ.get("OMP_NUM_THREADS"):
            return
        cores = physical_cores()
        asked = max(1, cores - round(busy_cores()))
        if asked < cores:
            logger.info("other programs keep cores busy: %d of %d are used (--threads N sets the number)", asked, cores)
    os.environ["OMP_NUM_THREADS"] = str(max(1, asked // processes))
