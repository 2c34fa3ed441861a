"""Archives of corpora: find or download them, check their SHA-256, and unpack them completely or not at all."""

import http.client
import io
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asrprune.data.unpack import disk_error, disk_errors, sole_writer, unpack
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.runtime.planted import no_link
from asrprune.runtime.progress import track

logger = logging.getLogger(__name__)
_BLOCK = 1 << 20
_TIMEOUT_S = 60.0
_SLOWEST_S = 600.0  # for a block; a server that sends a byte a minute would never end
_PAUSES_S = (1.0, 3.0, 10.0)  # pauses before the second, third and fourth attempt
_WORTH_RETRYING = (408, 416, 429, 500, 502, 503, 504)


class _Reply(Protocol):
    """What a server, or the file of a file:// URL, sends."""

    def read1(self, amount: int = ..., /) -> bytes:
        """Return the next bytes, at most ``amount``; none at the end."""


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
    """Return the unpacked directory; if it is missing, unpack the archive in ``local_dir``; None if there is no archive.

    Nothing is downloaded, and no checksum is verified, because the archive may be a sample of the published one.
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
    with disk_errors(target), sole_writer(target):
        with open(part, "ab", buffering=0, opener=no_link) as handle:
            _download(url, handle, by_hand)
            os.fsync(handle.fileno())
        try:
            _verify(part, sha256, f"{url}: has changed", f"run this again, or {by_hand}")
        except UserError:
            part.unlink()  # a download that continues after wrong bytes stays wrong
            raise
        os.replace(part, target)
    return target


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
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # the file is complete: a run was killed before it renamed the file
        handle.truncate(0)
        raise


def _copy(reply: _Reply, handle: io.FileIO) -> None:
    """Append the body; raise ``ConnectionError`` if it is shorter than announced."""
    start = handle.seek(0, os.SEEK_END)
    announced = getattr(reply, "length", None)  # None: the header is missing, or no number, or the URL is of a file
    blocks = _blocks(reply)
    label = f"downloading {Path(str(handle.name)).stem} (MiB)"
    for block in blocks if announced is None else track(blocks, label, -(-announced // _BLOCK)):
        _write(handle, block)
    if announced is not None and handle.tell() != start + announced:
        raise ConnectionError(f"the connection closed after {handle.tell()} of {start + announced} bytes")


def _blocks(reply: _Reply) -> Iterator[bytes]:
    """Yield the body in blocks of ``_BLOCK`` bytes; raise ``ConnectionError`` if one of them takes ``_SLOWEST_S``."""
    block, begun = bytearray(), time.monotonic()
    while piece := reply.read1(_BLOCK - len(block)):
        block += piece
        if len(block) == _BLOCK:
            yield bytes(block)
            block, begun = bytearray(), time.monotonic()
        elif time.monotonic() - begun > _SLOWEST_S:
            raise ConnectionError(f"it sends less than {_BLOCK} bytes in {_SLOWEST_S:g} s")
    if block:
        yield bytes(block)


def _write(handle: io.FileIO, block: bytes) -> None:
    rest = memoryview(block)
    try:
        while rest:
            rest = rest[handle.write(rest) :]
    except OSError as error:  # caught here, because errors of the network are OSErrors, too
        raise disk_error(Path(str(handle.name)), error) from None
