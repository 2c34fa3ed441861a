"""The number of CPU cores."""

from __future__ import annotations  # an old Python must be able to import this file and report its version

import os


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use; in a cluster job this may be less than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
