"""Memory of this process."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of malloc.h


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next use, where it would give large blocks back to the system each time.

    A training step allocates blocks of some 100 MB, and the system clears every page of a new one. With GNU's library (Linux) a
    step of 12 layers takes 0.78 of the time. What is kept has gaps, as batches differ in shape: the peak of memory grows, for
    batches of 10,000 frames to less than twice. Elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28)):
            mallopt(option, value)
