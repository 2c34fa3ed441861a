"""Archives of corpora: find or download them, check their SHA-256, and unpack them completely or not at all."""

import functools
import http.client
import io
import logging
import lzma
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from asrprune.runtime.errors import UserError, first_line
from asrprune.runtime.files import locked, sha256_of
from asrprune.runtime.progress import track

logger = logging.getLogger(__name__)
_BLOCK = 1 << 20
_TIMEOUT_S = 60.0
_PAUSES_S = (1.0, 3.0, 10.0)  # pauses before the second, third and fourth attempt
_WORTH_RETRYING = (408, 416, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Archive:
    """The published archive of a corpus, or of a part; ``holds`` is the directory inside that a recipe reads."""

    url: str
    sha256: str | None
    holds: str

    @property
    def file_name(self) -> str:
        """The file name, such as ``dev-clean.tar.gz``."""
        return self.url.rpartition("/")[2]

    def unpacked_in(self, work_dir: Path) -> Path:
        """Return the directory for unpacking; each archive has a separate one, because some archives share files."""
        return work_dir / f"unpacked_{self.file_name.partition('.')[0]}"


def find(archive: Archive, work_dir: Path, local_dir: Path) -> Path | None:
    """Return the unpacked directory ``archive.holds`` in ``local_dir`` (the user's --download_dir) or ``work_dir``, or None.

    ``local_dir`` may also be the top directory of the corpus itself.
    """
    top = archive.holds.partition("/")[0]
    places = [local_dir, *([local_dir.parent] if local_dir.name == top else []), archive.unpacked_in(work_dir)]
    return next((place / archive.holds for place in places if (place / archive.holds).is_dir()), None)


def obtain(archive: Archive, work_dir: Path, local_dir: Path) -> Path:
    """Return the unpacked directory; if it is missing, unpack the archive, or download it first, into ``work_dir``."""
    found = find(archive, work_dir, local_dir)
    if found is None:
        file = fetch(archive.url, archive.sha256, work_dir / archive.file_name, local_dir)
        found = _unpack_into(work_dir, archive, file)
    return found


def take(archive: Archive, work_dir: Path, local_dir: Path) -> Path | None:
    """Return the unpacked directory; if it is missing, unpack the archive of that name in ``local_dir``, which may be a sample.

    Nothing is downloaded, and no checksum is verified. Return None if ``local_dir`` has no such archive.
    """
    found, file = find(archive, work_dir, local_dir), local_dir / archive.file_name
    if found is None and file.is_file():
        found = _unpack_into(work_dir, archive, file)
    return found


def _unpack_into(work_dir: Path, archive: Archive, file: Path) -> Path:
    target = archive.unpacked_in(work_dir)
    unpack(file, target)
    if not (target / archive.holds).is_dir():
        raise UserError(
            f"{file}: does not contain {archive.holds}; delete {target} and download the archive from {archive.url}"
        )
    return target / archive.holds


def fetch(url: str, sha256: str | None, target: Path, local_dir: Path) -> Path:
    """Return the path of the file at ``url``: in ``local_dir`` if it exists there, else ``target``, downloaded if missing.

    ``local_dir`` (the user's --download_dir) is only read. An interrupted download is continued. ``sha256`` is None if the
    publisher gives no checksum; then the caller must check the content.

    Raises:
        UserError: the checksum is wrong, the file cannot be downloaded, or the disk is full.
    """
    held = _held(target, local_dir)
    if held is not None:
        _verify(held, sha256, f"{held}: is not the file at {url}", "delete it and download it again")
        return held
    by_hand = f"download it by hand and pass --download_dir DIR, the directory that contains {target.name}"
    part = target.with_name(f"{target.name}.part")
    with _disk_errors(target), _sole_writer(target):
        with open(part, "ab", buffering=0) as handle:
            _download(url, handle, by_hand)
            os.fsync(handle.fileno())
        try:
            _verify(part, sha256, f"{url}: has changed", f"run this again, or {by_hand}")
        except UserError:
            part.unlink()  # a download that continues after wrong bytes stays wrong
            raise
        os.replace(part, target)
    return target


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar archive (plain, gz, bz2, xz) into the directory ``target``; do nothing if ``target`` exists.

    The whole archive is checked before anything is written, and ``target`` is created only when complete.

    Raises:
        UserError: the archive is damaged, or has unsafe members: absolute paths, ``..``, links out of ``target``, devices.
    """
    if target.is_dir():
        return
    temporary = target.with_name(f".{target.name}.tmp")
    with _disk_errors(target), _sole_writer(target):
        shutil.rmtree(temporary, ignore_errors=True)  # from a killed run
        try:
            _extract(archive, temporary)
            os.sync()  # one sync: an fsync for each of 300,000 small files takes many minutes
            os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _held(target: Path, local_dir: Path) -> Path | None:
    """Return the path of the file if it exists already."""
    if (local_dir / target.name).is_file():
        return local_dir / target.name
    if target.is_file():
        return target
    if local_dir.resolve() != target.parent.resolve():
        if not local_dir.is_dir():
            raise UserError(f"{local_dir}: no such directory; --download_dir must be the directory that contains {target.name}")
        logger.info("%s does not contain %s: downloading it to %s", local_dir, target.name, target.parent)
    return None


def _verify(path: Path, sha256: str | None, what: str, fix: str) -> None:
    if sha256 is None:
        return
    found = sha256_of(path)
    if found != sha256.lower():
        raise UserError(f"{what}: its SHA-256 is {found} instead of {sha256}; {fix}")


def _download(url: str, handle: io.FileIO, by_hand: str) -> None:
    """Append the missing rest of the file at ``url`` to ``handle``."""
    for pause_s in (*_PAUSES_S, None):
        try:
            return _append_rest(url, handle)
        except urllib.error.HTTPError as error:
            if error.code not in _WORTH_RETRYING:
                raise UserError(f"{url}: the server answers {error.code} ({error.reason}); {by_hand}") from None
            reason = f"the server answers {error.code} ({error.reason})"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error))
        if pause_s is not None:
            logger.warning("%s: %s; trying again in %g s", url, reason, pause_s)
            time.sleep(pause_s)
    raise UserError(f"{url}: cannot be downloaded ({reason}); run this again to continue, or {by_hand}")


def _append_rest(url: str, handle: io.FileIO) -> None:
    """Request the bytes after those in ``handle`` once; raise network errors unchanged."""
    have = handle.seek(0, os.SEEK_END)
    headers = {"User-Agent": "asrprune"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S) as reply:
            if have and reply.status != 206:  # the server does not support ranges and sends the whole file
                handle.truncate(0)
            _copy(reply, handle)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if (
            error.headers.get("Content-Range") != f"bytes */{have}"
        ):  # else the file is complete: the run was killed before the renaming
            handle.truncate(0)
            raise


def _copy(reply: http.client.HTTPResponse, handle: io.FileIO) -> None:
    """Append the body; raise ``ConnectionError`` if it is shorter than announced."""
    start = handle.seek(0, os.SEEK_END)
    announced = reply.headers["Content-Length"]
    blocks = iter(functools.partial(reply.read, _BLOCK), b"")
    label = f"downloading {Path(str(handle.name)).stem} (MiB)"
    for block in blocks if announced is None else track(blocks, label, -(-int(announced) // _BLOCK)):
        _write(handle, block)
    if announced is not None and handle.tell() != start + int(announced):
        raise ConnectionError(f"the connection closed after {handle.tell()} of {start + int(announced)} bytes")


def _write(handle: io.FileIO, block: bytes) -> None:
    rest = memoryview(block)
    try:
        while rest:
            rest = rest[handle.write(rest) :]
    except OSError as error:  # caught here, because network errors are OSErrors, too
        raise _disk_error(Path(str(handle.name)), error) from None


def _extract(archive: Path, directory: Path) -> None:
    """Check the whole archive, then extract it."""
    options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.10 and 3.11 have it since mid-2023
    try:
        with tarfile.open(archive) as tar:
            members = _safe_members(archive, tar)
            _check_end(tar)
            for member in track(members, f"unpacking {archive.name}"):
                tar.extract(member, directory, **options)  # type: ignore[arg-type]
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = first_line(error).rstrip(":")
        raise UserError(f"{archive}: is damaged or no tar archive ({reason}); delete it and download it again") from None


def _safe_members(archive: Path, tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return all members, with this user as owner and plain permissions; raise a ``UserError`` for an unsafe member."""
    members = []
    files: set[PurePosixPath] = set()
    links: set[PurePosixPath] = set()
    for member in tar:
        fault = _fault(member, files, links)
        if fault:
            raise UserError(f"{archive}: {member.name}: {fault}; nothing was unpacked; download the archive from its publisher")
        path = PurePosixPath(member.name)
        (links if member.issym() else files).add(path)
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
        members.append(member)
    return members


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
            return f"it is a hard link to {member.linkname}, which is not an earlier file of the archive"
    elif not (member.isfile() or member.isdir()):
        return "it is neither a file nor a directory nor a link"
    return ""


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise an error unless the archive has its end mark and a correct checksum; ``tarfile`` does not check this."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is truncated")
    while tar.fileobj.read(_BLOCK):  # gzip, bz2 and xz verify their checksum at the end
        pass


def _sole_writer(target: Path) -> AbstractContextManager[None]:
    """Lock ``target`` by a file beside it, because its directory may contain other downloads."""
    return locked(target.with_name(f".{target.name}.lock"), target)


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Turn an error of the disk, such as a full disk, into a ``UserError``."""
    try:
        yield
    except OSError as error:
        raise _disk_error(target, error) from None


def _disk_error(path: Path, error: OSError) -> UserError:
    where = error.filename or path
    return UserError(
        f"{where}: {error.strerror or error}; free space or change the permissions, then run this again to continue"
    )
