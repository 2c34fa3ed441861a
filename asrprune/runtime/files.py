"""Reading files, and writing them atomically (temporary name, fsync, rename): a killed run leaves no partial file."""

import fcntl
import gzip
import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from asrprune.runtime.errors import UserError

logger = logging.getLogger(__name__)
LOCK = ".lock"  # the lock file of a directory that only one process may use at a time
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``. Rename it to ``path`` when the block succeeds, delete it when the block fails.

    The temporary name keeps the suffix of ``path``, for libraries that use the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # safetensors and mkstemp make files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(directory: Path) -> None:
    """Delete temporary files of killed processes in ``directory``. No other process may be writing there."""
    for path in directory.glob(".*.tmp*"):
        path.unlink()


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Lock ``directory`` for this process until the block or the process ends. Create the directory if it is missing.

    Raises:
        UserError: another process has locked it.
    """
    with locked(directory / LOCK, directory):
        yield


@contextmanager
def locked(lock: Path, target: Path) -> Iterator[None]:
    """Lock the file ``lock``, which protects ``target``; see ``held``."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w", encoding="utf-8") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, child processes do not inherit it
        except (BlockingIOError, PermissionError):
            raise UserError(f"{target}: another process is using it; wait until it ends, or stop it") from None
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s); let only one process work here", target, error.strerror)
        yield


@contextmanager
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


def open_plain(path: str | Path) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
        OSError: it cannot be opened.
        UserError: a pipe or a device is there, which would be waited for; nobody wants to read one under a name from a file.
    """
    try:
        kind = os.stat(path).st_mode
    except ValueError:  # a NUL in it
        raise UserError(f"{path!r}: is no name of a file") from None
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise UserError(f"{path}: is a pipe or a device, and only plain files are read here")
    return open(path, "rb")


def open_unzipped(path: Path) -> BinaryIO:
    """Open a file for reading bytes; unzip it if it is gzipped."""
    with open(path, "rb") as handle:
        zipped = handle.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if zipped else open(path, "rb")


def read_json(path: Path, made_by: str = "") -> Any:
    """Read a JSON file; raise a ``UserError`` if it is missing or broken, naming ``made_by``, the command that writes it."""
    hint = f"; {made_by} makes it" if made_by else ""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{hint}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}){hint}") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
