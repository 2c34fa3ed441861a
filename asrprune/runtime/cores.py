"""Cores of this machine."""

from __future__ import annotations  # a Python that is too old must get far enough to be told so

import os


def usable_cores() -> int:
    """Cores that this process may use, where the system says so: in a job of a cluster they may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
