"""Unpacking tar archives of untrusted origin: check the whole archive first, then unpack it completely or not at all."""

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from asrprune.runtime.errors import UserError, first_line
from asrprune.runtime.files import atomic_directory, locked
from asrprune.runtime.progress import track

_BLOCK = 1 << 20
# The limit of the unpacked size: times the size of the archive, plus bytes. Speech takes 2 times.
_MOST_TIMES, _ALWAYS_ALLOWED = 100, 64 << 20
_BYTES_OF_A_FILE = 4096  # on a disk and in memory, also of an empty file


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar archive (plain, gz, bz2, xz) into the directory ``target``; do nothing if ``target`` exists.

    The whole archive is checked before anything is written, and ``target`` is created only when complete.

    Raises:
        UserError: the archive is damaged, or has unsafe members: absolute paths, ``..``, links out of ``target``, devices.
    """
    if target.is_dir():
        return
    with disk_errors(target), sole_writer(target), atomic_directory(target) as unpacked:
        _extract(archive, unpacked)
        os.sync()  # one sync: an fsync for each of 300,000 small files takes many minutes


class _Bounded:
    """An archive for tarfile that allows at most ``left`` more bytes to be read: tarfile reads as many as a header claims."""

    def __init__(self, handle: BinaryIO) -> None:
        self.left, self.tell, self._handle = _BLOCK, handle.tell, handle

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError("a header claims more than there can be")
        self.left -= size
        return self._handle.read(size)

    def seek(self, position: int) -> int:
        if position < 0:
            raise tarfile.ReadError("a header points before the beginning")
        return self._handle.seek(position)


def _extract(archive: Path, directory: Path) -> None:
    """Check the whole archive, then extract it."""
    options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.10 and 3.11 have it since mid-2023
    try:
        with _uncompressed(archive) as handle:
            source, most = _Bounded(handle), _MOST_TIMES * archive.stat().st_size + _ALWAYS_ALLOWED
            with tarfile.open(fileobj=cast(BinaryIO, source), mode="r:") as tar:
                members, size = _safe_members(archive, source, tar, most)
                source.left = 2 * most  # the padding at the end, and all files
                _check_end(tar)
                _check_room(archive, size, directory.parent)
                for member in track(members, f"unpacking {archive.name}"):
                    tar.extract(member, directory, **options)  # type: ignore[arg-type]
    except UserError:
        raise
    except Exception as error:  # tarfile raises various errors for malicious headers, which differ between versions
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = first_line(error).rstrip(":")
        raise UserError(f"{archive}: is damaged or no tar archive ({reason}); delete it and download it again") from None


def _uncompressed(archive: Path) -> BinaryIO:
    with open(archive, "rb") as handle:
        magic = handle.read(6)
    for begin, unzip in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if magic.startswith(begin):
            return cast(BinaryIO, unzip(archive))
    return open(archive, "rb")


def _check_room(archive: Path, size: int, directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if size > free:
        raise UserError(
            f"{archive}: takes {size / 1e9:.1f} GB unpacked, but {directory} has {free / 1e9:.1f} GB left; make room"
        )


def _safe_members(archive: Path, source: _Bounded, tar: tarfile.TarFile, most: int) -> tuple[list[tarfile.TarInfo], int]:
    """Return all members, with this user as owner and plain permissions, and the number of bytes that they take.

    Raises:
        UserError: a member is unsafe.
        tarfile.ReadError: the headers form a loop, or the members take more than ``most`` bytes.
    """
    members: list[tarfile.TarInfo] = []
    files: set[PurePosixPath] = set()
    links: set[PurePosixPath] = set()
    size, end = 0, -1
    for member in tar:
        size += member.size + _BYTES_OF_A_FILE
        if member.size < 0 or member.offset <= end or size > most:
            raise tarfile.ReadError("its headers point backwards, or it is made to fill a disk")
        source.left, end = _BLOCK, member.offset  # the headers of a member fit into a block
        fault = _fault(member, files, links)
        if fault:
            raise UserError(f"{archive}: {member.name}: {fault}; nothing was unpacked, get the archive from its publisher")
        path = PurePosixPath(member.name)
        (links if member.issym() else files).add(path)
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
        members.append(member)
    return members, size


def _fault(member: tarfile.TarInfo, files: set[PurePosixPath], links: set[PurePosixPath]) -> str:
    """Return why ``member`` is unsafe, or "". ``files`` and ``links`` (symbolic) are the members before it.

    No member may lie behind a symbolic link, so the directory of a link is a real directory. The target of a link may have
    ``..`` only at its start, and not above the top. So, by induction, every path through links stays inside.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        return "its path leads out of the archive"
    if not links.isdisjoint((path, *path.parents)):
        return "it would be written through a symbolic link"
    if member.issym():
        target = PurePosixPath(member.linkname)
        climbs = target.parts.count("..")
        if target.is_absolute() or climbs >= len(path.parts) or ".." in target.parts[climbs:]:
            return f"it is a link that leads out of the archive, to {member.linkname}"
    elif member.islnk():
        if PurePosixPath(member.linkname) not in files:
            return f"it is a hard link to {member.linkname}, which is no earlier file of the archive"
    elif member.issparse() or not (member.isfile() or member.isdir()):
        return "it is neither a plain file nor a directory nor a link"
    return ""


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise an error unless the archive has its end mark and a correct checksum; ``tarfile`` does not check this."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it breaks off")
    while tar.fileobj.read(_BLOCK):  # gzip, bz2 and xz verify their checksum at the end
        pass


def sole_writer(target: Path) -> AbstractContextManager[None]:
    """Lock ``target`` by a file beside it, because its directory may contain other downloads."""
    return locked(target.with_name(f".{target.name}.lock"), target)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn an error of the disk, such as a full disk, into a ``UserError``."""
    try:
        yield
    except OSError as error:
        raise disk_error(target, error) from None


def disk_error(path: Path, error: OSError) -> UserError:
    """Return the ``UserError`` for an error of the disk at ``path``."""
    where = error.filename or path
    return UserError(f"{where}: {error.strerror or error}; make room or give access there, then run this again: it goes on")
