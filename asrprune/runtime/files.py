"""Writing files so that a killed run never leaves a half-written one: temporary name, fsync, rename."""

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
LOCK = ".lock"  # in a directory that one process may work in at a time
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well, delete it when it does not.

    The temporary name keeps the suffix of ``path``, so libraries that look at suffixes are not confused.
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
    """Delete what killed processes left half-written in ``directory``; nobody else may be writing there now."""
    for path in directory.glob(".*.tmp*"):
        path.unlink()


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold ``directory``, which is made if need be, for this process alone until the block ends, or the process in any way.

    Raises:
        UserError: another process holds it.
    """
    with locked(directory / LOCK, directory):
        yield


@contextmanager
def locked(lock: Path, target: Path) -> Iterator[None]:
    """Hold the file ``lock``, and so ``target``, for this process alone, as ``held`` does."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w", encoding="utf-8") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by processes that outlive this one
        except (BlockingIOError, PermissionError):
            raise UserError(f"{target}: another process is at work here; wait for it, or stop it") from None
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s); let only one process work here", target, error.strerror)
        yield


@contextmanager
def atomic_file(path: Path) -> Iterator[TextIO]:
    """Yield a file to write UTF-8 to; it is ``path`` when the block ends well, as with ``atomic_path``."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as handle:
        yield handle


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_file(path) as handle:
        handle.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
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
    """Open a file to read its bytes; those of a gzipped one are unzipped."""
    with open(path, "rb") as handle:
        zipped = handle.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if zipped else open(path, "rb")


def read_json(path: Path, made_by: str = "") -> Any:
    """Read a JSON file; a missing or broken one is a ``UserError`` that names ``made_by``, the command that writes it."""
    hint = f"; `{made_by}` makes it" if made_by else ""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{hint}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}){hint}") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
