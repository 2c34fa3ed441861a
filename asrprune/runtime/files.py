"""Reading files, and writing them atomically (temporary name, fsync, rename): a killed run leaves no partial file."""

import contextlib
import fcntl
import functools
import gzip
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from asrprune.runtime.errors import UserError
from asrprune.runtime.planted import no_link, open_plain

logger = logging.getLogger(__name__)
LOCK = ".lock"  # the lock file of a directory that only one process may use at a time
_TEMPORARY = re.compile(r"\..*\.(\w{8}|\d+)\.tmp(\.[^.]*)?")
_OLD_S = 3600.0  # a file that is being written is never that old
_MOST_DIGITS = 20  # of a whole number
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``. Rename it to ``path`` when the block succeeds, delete it when the block fails.

    The temporary name keeps the suffix of ``path``, for libraries that use the suffix. The rest of the name is random, so
    nobody can have put a link in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path.parent)
    handle, name = tempfile.mkstemp(f".tmp{path.suffix}", f".{path.stem}.", path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # safetensors and mkstemp make files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(directory: Path, older_than_s: float = 0.0) -> None:
    """Delete temporary files of killed processes in ``directory``. No process may be writing files that are so old."""
    for path in directory.glob(".*.tmp*"):
        with contextlib.suppress(OSError):  # another process may delete it, too, or it belongs to another user
            if _TEMPORARY.fullmatch(path.name) and time.time() - path.lstat().st_mtime >= older_than_s:
                path.unlink()


@functools.cache
def _tidy(directory: Path) -> None:
    """Delete old temporaries, once in a process for each directory that it writes to."""
    remove_temporaries(directory, _OLD_S)


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Lock ``directory`` for this process until the block or the process ends. Create the directory if it is missing.

    Raises:
        UserError: another process has locked it.
    """
    with locked(directory / LOCK, directory):
        yield


@contextlib.contextmanager
def locked(lock: Path, target: Path) -> Iterator[None]:
    """Lock the file ``lock``, which protects ``target``; see ``held``."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "ab", opener=no_link) as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, child processes do not inherit it
        except (BlockingIOError, PermissionError):
            raise UserError(f"{target}: another process is using it; wait until it ends, or stop it") from None
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s); let only one process work here", target, error.strerror)
        yield


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[TextIO]:
    """Open ``path`` for atomic writing of UTF-8 text; see ``atomic_path``."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as handle:
        yield handle


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_file(path) as handle:
        handle.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def open_unzipped(path: Path) -> BinaryIO:
    """Open a file for reading bytes; unzip it if it is gzipped."""
    with open(path, "rb") as handle:
        zipped = handle.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if zipped else open(path, "rb")


def read_json(path: Path, made_by: str = "") -> Any:
    """Read a JSON file; raise a ``UserError`` if it is missing or broken, naming ``made_by``, the command that writes it."""
    hint = f"; {made_by} makes it" if made_by else ""
    try:
        with open_plain(path) as handle:
            content = handle.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{hint}") from None
    try:
        return parse_json(content.decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}){hint}") from None


def parse_json(text: str) -> Any:
    """Parse JSON; raise a ``ValueError`` for any mistake, also for too deep nesting or too many digits."""
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open_plain(path) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
