"""Names and paths of untrusted origin: checks that they stay in their directory, and are plain files."""

import errno
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from asrprune.runtime.errors import UserError

_LONGEST = 200  # bytes of a name; file systems have 255, and endings are added
_LARGEST = 1 << 28  # bytes of a document; in memory, JSON can take 24 times as many
_LONGEST_LINE = 1 << 24  # bytes; the words of 100 hours of speech


def file_name(text: str, what: str) -> str:
    """Return ``text`` if it can be the name of a file or directory.

    Raises:
        UserError: it cannot; the message begins with ``what``.
    """
    leads_elsewhere = "/" in text or text.startswith("-") or not text.strip(". ")
    if leads_elsewhere or not text.isprintable() or len(os.fsencode(text)) > _LONGEST:
        raise UserError(
            f"{what} `{ascii(text)[1:-1][:_LONGEST]}`: cannot become the name of a file: it is empty or too long, holds a / or"
            " characters that are not printed, or begins with -; choose another name"
        )
    return text


def inside(folder: Path, *names: str) -> Path:
    """Return the path ``folder/name/...`` of a result that belongs into ``folder``.

    Raises:
        UserError: a name cannot be the name of a file, or a directory of the path is a link, which may lead anywhere.
    """
    for name in names:
        folder /= file_name(name, f"{folder}: the name")
        if folder.is_symlink() and folder.is_dir():
            raise UserError(f"{folder}: is a symbolic link to a directory; put the directory itself in its place")
    return folder


def open_plain(path: str | Path) -> BinaryIO:
    """Open a file for reading bytes.

    Raises:
        OSError: the file cannot be opened.
        UserError: it is a pipe or a device, from which reading could block.
    """
    try:
        kind = os.stat(path).st_mode
    except ValueError:  # there is a NUL in it
        raise UserError(f"{str(path)!a}: is no name of a file") from None
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise UserError(f"{path}: is a pipe or a device, and only plain files are read here")
    return open(path, "rb")


def read_plain(path: str | Path) -> bytes:
    """Read a document: a file that is small unless somebody made it large, perhaps of a hole without content.

    Raises:
        OSError: the file cannot be opened.
        UserError: it is a pipe or a device, or too large.
    """
    with open_plain(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size > _LARGEST:
            raise UserError(
                f"{path}: has {size / 1e6:.0f} MB, but {_LARGEST / 1e6:.0f} MB are the most; it is damaged, replace it"
            )
        return handle.read()


def lines_of(handle: BinaryIO, path: Path, longest: int = _LONGEST_LINE) -> Iterator[bytes]:
    """Yield the lines of an open text; ``longest``: bytes of a line.

    Raises:
        UserError: a line is so long that this is no text, and memory could end before the line does.
    """
    for number, line in enumerate(iter(partial(handle.readline, longest), b""), 1):
        if len(line) == longest:
            raise UserError(f"{path}:{number}: has more than {longest / 1e6:.0f} MB in a line, so it is no text; replace it")
        yield line


def no_link(path: str, flags: int) -> int:
    """Open a file for writing without following links; used as ``open(..., opener=no_link)``.

    Raises:
        UserError: it is a symbolic link or a pipe, or has another name elsewhere (a hard link), which would change, too.
    """
    handle = -1
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
    if handle >= 0:
        status = os.fstat(handle)
        if not stat.S_ISFIFO(status.st_mode) and (status.st_nlink < 2 or not stat.S_ISREG(status.st_mode)):
            return handle
        os.close(handle)
        if not stat.S_ISFIFO(status.st_mode):
            raise UserError(f"{path}: is a hard link, and the file has another name elsewhere; put a copy in its place")
    raise UserError(f"{path}: is a symbolic link or a pipe, where a plain file belongs; remove it")
