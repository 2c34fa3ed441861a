"""The CPU cores of this machine: how many there are, and how many are busy."""

from __future__ import annotations  # an old Python must be able to import this file and report its version

import contextlib
import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")  # Linux
_CHILDREN = Path("/proc/thread-self/children")  # Linux
_UTIME = 11  # a field of /proc/PID/stat, counted from the one after the name: time in the program; the next one: in the system
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_IDLE = (3, 4)  # fields of a line of /proc/stat: idle, and waiting for a disk
_TIMES = 8  # fields to sum; the times in later fields are already part of these


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use; in a cluster job this may be less than the machine has."""
    return len(_usable())


def physical_cores() -> int:
    """Return the number of usable cores; the two hyperthreads of a core count once. torch uses as many threads."""
    try:
        return len({Path(_SIBLINGS.format(core)).read_text() for core in _usable()})
    except OSError:  # the system does not tell
        return usable_cores()


def busy_cores(interval_s: float = 0.2) -> float:
    """Measure how many of the usable cores other programs keep busy, on average over ``interval_s``; 0.0 without /proc/stat.

    This process sleeps meanwhile, so its own work is not counted.
    """
    if not _STAT.exists():
        return 0.0
    before = _ticks()
    time.sleep(interval_s)
    spent = [(busy - before[core][0], idle - before[core][1]) for core, (busy, idle) in _ticks().items() if core in before]
    return sum(busy / max(1, busy + idle) for busy, idle in spent)


def core_seconds() -> float:
    """Return the seconds that the usable cores were busy since the machine was started; 0.0 without /proc/stat (macOS)."""
    return sum(busy for busy, _ in _ticks().values()) / os.sysconf("SC_CLK_TCK") if _STAT.exists() else 0.0


def own_seconds() -> float:
    """Return the seconds of cores that this process and its children used, such as workers that read data."""
    used = os.times()  # of children: only those that have ended
    return used.user + used.system + used.children_user + used.children_system + _of_running_children()


def _of_running_children() -> float:
    """Return the seconds of the children of this thread that run; 0.0 on systems that do not list them (macOS)."""
    ticks = 0
    with contextlib.suppress(OSError):
        for child in _CHILDREN.read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = Path(f"/proc/{child}/stat").read_bytes().rpartition(b")")[2].split()
                ticks += int(fields[_UTIME]) + int(fields[_UTIME + 1])
    return ticks / os.sysconf("SC_CLK_TCK")


def _usable() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def _ticks() -> dict[int, tuple[int, int]]:
    """Return the times (busy, idle) of each usable core since the start of the machine, in 1/100 s."""
    names, found = {f"cpu{core}": core for core in _usable()}, {}
    for name, *fields in map(str.split, _STAT.read_text(encoding="ascii").splitlines()):
        if name in names:
            times = [int(field) for field in fields[:_TIMES]]
            idle = sum(times[field] for field in _IDLE)
            found[names[name]] = sum(times) - idle, idle
    return found
