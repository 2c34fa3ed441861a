"""Write points: a process that is about to change a file below a folder is killed, or its disk fails, at the point chosen."""

import builtins
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir")


def install(folder: Path, counter: Path, at: int, error: int = 0) -> None:
    """Watch this process and its forks. Each write point adds a byte to ``counter``, so that all processes count together.

    Args:
        folder: only paths below it count.
        counter: the file that counts.
        at: the number of the point, from 1, at which something happens; 0: never.
        error: 0: the process is killed; else the ``errno`` of the error that this and all later points raise.
    """

    def point(path: object) -> None:
        if isinstance(path, int):  # a file that is open, for fsync
            path = os.readlink(f"/proc/self/fd/{path}")
        name = os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""
        if not name.startswith(f"{folder}/") or "/log/" in name or "/tensorboard/" in name:
            return
        handle = opened(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, b".")
        count = os.fstat(handle).st_size
        os.close(handle)
        if at and count >= at and error:
            raise OSError(error, os.strerror(error), name)
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    opened, plain = os.open, builtins.open

    def watched(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            point(path)
            return change(path, *arguments, **options)

        return call

    def os_open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            point(path)
        return opened(path, flags, *arguments, **options)

    def open_file(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and "opener" not in options:
            point(path)
        return plain(path, mode, *arguments, **options)

    for name in NAMES:
        setattr(os, name, watched(getattr(os, name)))
    os.open, builtins.open, io.open = os_open, open_file, open_file  # type: ignore[assignment]
