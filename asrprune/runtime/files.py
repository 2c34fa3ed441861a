"""Reading files, and writing them atomically (temporary name, fsync, rename): a killed run leaves no partial file."""

import contextlib
import errno
import fcntl
import functools
import gzip
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from asrprune.runtime.errors import UserError
from asrprune.runtime.planted import no_link, open_plain, read_plain
from asrprune.runtime.signals import deferred

logger = logging.getLogger(__name__)
LOCK = ".lock"  # the lock file of a directory that only one process may use at a time
_TEMPORARY = re.compile(r"\..*\.(\w{8}|\d+)\.tmp(\.[^.]*)?")
_OLD_S = 3600.0  # without locks, an older temporary file counts as left over: no file takes so long to write
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # the escape of a surrogate; two of them may be one character
_HASHED_BYTES = 1 << 20
_MOST_TIMES, _ALWAYS_ALLOWED = 100, 64 << 20  # of a gzipped text: times its size, plus bytes; text takes 3 to 10 times
LARGEST = 2**63 - 1  # the largest whole number of numpy and torch
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
    with _locked_temporary(lambda: _make_file(path)) as temporary, _naming(path, temporary):
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # safetensors and mkstemp make files that only their owner can read
        os.replace(temporary, path)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory beside ``path``; see ``atomic_path``. ``path`` must not exist, or be an empty directory.

    The block must bring its files to the disk (fsync) before it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path.parent)
    with _locked_temporary(lambda: _make_directory(path)) as temporary, _naming(path, temporary):
        yield temporary
        os.chmod(temporary, 0o777 & ~_UMASK)
        os.rename(temporary, path)


@contextlib.contextmanager
def temporary_directory(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new directory that only we can read; delete it in the end. What killed processes left is deleted first."""
    remove_temporaries(parent, name)
    with _locked_temporary(lambda: _make_directory(parent / name)) as temporary, _naming(temporary, temporary):
        yield temporary


@contextlib.contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Name ``path`` in the error of a full disk. The system names no file, or the temporary one; a copy names its source."""
    try:
        yield
    except OSError as error:
        place = str(error.filename2 or error.filename or temporary)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and place.startswith(str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise


def _make_file(path: Path) -> Path:
    handle, name = tempfile.mkstemp(f".tmp{path.suffix}", f".{path.stem}.", path.parent)
    os.close(handle)
    return Path(name)


def _make_directory(path: Path) -> Path:
    return Path(tempfile.mkdtemp(".tmp", f".{path.name}.", path.parent))


@contextlib.contextmanager
def _locked_temporary(make: Callable[[], Path]) -> Iterator[Path]:
    """Yield a locked temporary file or directory. The lock ends with the process: what has no lock is left over."""
    made: list[tuple[Path, int]] = []
    try:
        with deferred():  # a signal right after the file is made would leave it behind
            made.append(_make_locked(make))
        yield made[0][0]
    finally:
        for temporary, handle in made:
            _delete(temporary)
            os.close(handle)


def _make_locked(make: Callable[[], Path]) -> tuple[Path, int]:
    while True:  # until no other process has found it before it was locked, and deleted it
        temporary = make()
        try:
            handle = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, handle
        os.close(handle)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(directory: Path, name: str = "*") -> None:
    """Delete what killed processes left in ``directory``: temporary files and directories that no process has locked.

    Args:
        directory: where to look.
        name: only temporaries of this name.
    """
    for path in directory.glob(f".{name}.*.tmp*"):
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):  # another process may delete it, too, or it belongs to another user
                if path.is_symlink() or not _in_use(path):
                    _delete(path)


def _in_use(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return time.time() - os.fstat(handle).st_mtime < _OLD_S
    finally:
        os.close(handle)
    return False


@functools.cache
def _tidy(directory: Path) -> None:
    """Remove temporaries, once in a process for each directory that it writes to."""
    remove_temporaries(directory)


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Lock ``directory`` for this process until the block or the process ends. Create the directory if it is missing.

    Raises:
        UserError: another process has locked it.
    """
    with locked(directory / LOCK, directory):
        yield


@contextlib.contextmanager
def locked(lock: Path, target: Path, shared: bool = False) -> Iterator[None]:
    """Lock the file ``lock``, which protects ``target``; see ``held``. Several processes may hold a ``shared`` lock."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a+b", opener=no_link) as handle:
        try:
            # lockf, because child processes would inherit the lock of flock
            fcntl.lockf(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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


class _Unzipped(gzip.GzipFile):
    """A gzipped text, whose lines end where it gets larger than a text can be that was not made to fill the memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._path, self._most = path, _MOST_TIMES * path.stat().st_size + _ALWAYS_ALLOWED

    def readline(self, size: int | None = -1) -> bytes:
        if self.tell() > self._most:
            raise UserError(f"{self._path}: unpacks to more than {_MOST_TIMES} times its size, so it is no text; replace it")
        try:
            return super().readline(size)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise UserError(f"{self._path}: the gzipped file is truncated or damaged; copy or download it again") from None


def open_unzipped(path: Path) -> BinaryIO:
    """Open a plain file for reading lines as bytes; unzip it if it is gzipped."""
    with open_plain(path) as handle:
        zipped = handle.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, _Unzipped(path)) if zipped else open_plain(path)


def read_json(path: Path, made_by: str = "") -> Any:
    """Read a JSON file; raise a ``UserError`` if it is missing or broken, naming ``made_by``, the command that writes it."""
    hint = f"; {made_by} makes it" if made_by else ""
    try:
        content = read_plain(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{hint}") from None
    try:
        return parse_json(content.decode("utf-8"), _real)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}){hint}") from None


def parse_json(text: str, real: Callable[[str], float] = float) -> Any:
    """Parse JSON; raise a ``ValueError`` for any mistake, also for too deep nesting, too many digits, or half a character.

    ``real`` reads numbers that are not whole.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=real)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("a surrogate by itself, which is no character") from None
    return value


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(value := int(digits)) > LARGEST:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return value


def _real(digits: str) -> float:
    if abs(value := float(digits)) > LARGEST:  # of which no figure can be drawn
        raise ValueError(f"the number {digits[:20]}")
    return value


def check_unchanged(path: Path, before: str, now: str) -> None:
    """Raise a ``UserError`` if a file or directory has another hash than when the process that sends work here read it."""
    if now != before:
        raise UserError(f"{path}: was changed while this command used it; run the same command again")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open_plain(path) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """Return what shows a change of a file: its SHA-256, or above 1 MB its size, because hashing 100 GB takes minutes."""
    size = path.stat().st_size
    return f"{size} bytes" if size > _HASHED_BYTES else sha256_of(path)


def has_digest(path: Path, digest: str) -> bool:
    """Return whether there is a file with this digest: its SHA-256, or its size as ``digest_of`` gives it."""
    if not path.is_file():
        return False
    return digest == (f"{path.stat().st_size} bytes" if digest.endswith(" bytes") else sha256_of(path))
