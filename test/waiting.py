"""Other processes: waiting for what they do, and one that holds a lock."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from asrprune.runtime.files import LOCK


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


def group_runs(group: int) -> bool:
    """Return whether a process of a group runs; a worker that is left over is an orphan."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def locked_elsewhere(folder: Path, lock: str = LOCK, shared: bool = False) -> Iterator[None]:
    """Let another process hold the lock of a folder in this block; it is killed at its end."""
    code = "import pathlib, sys, time; from asrprune.runtime.files import locked\n"
    code += f"with locked(pathlib.Path(sys.argv[1]), pathlib.Path('x'), {shared}): print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, str(folder.absolute() / lock)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"\n"
            yield
        finally:
            other.kill()
