"""Waiting for what other processes do."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_for(condition: Callable[[], bool], seconds: float = 120.0, why: str = "it did not happen") -> None:
    """Wait until ``condition`` is true; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, why
        time.sleep(0.005)


def has_lines(path: Path, count: int) -> bool:
    """Return whether a file has so many lines."""
    return path.exists() and path.read_bytes().count(b"\n") >= count


def alive(process: int) -> bool:
    """Return whether a process runs; one that has ended may wait for its parent to look."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
