"""The end of a recording, compared with that of its file: libsndfile reads half a file, or one recording of two, in silence."""

import io
import os
import re
import struct
from collections.abc import Callable
from typing import BinaryIO

from asrprune.features.mp3 import counted, frame_bytes, frames, header_frame, tag_bytes
from asrprune.runtime.errors import UserError

# Kinds, by libsndfile's names, whose end is checked here or by libsndfile; of others, half a file would be read in silence.
CHECKED = {"WAV", "WAVEX", "RF64", "AIFF", "AU", "W64", "VOC", "OGG", "FLAC", "MP3", "CAF", "NIST", "HTK"}
End = Callable[[str, BinaryIO, int], int | None]  # name, file, its size -> the byte after the recording, None: not known

_TAG_BYTES = 1024  # allowed behind the recording: tags and padding are shorter; as audio it would be 32 ms at 16 kHz
_PADDING_BYTES = 1 << 26  # of zeros, to the block size of a disk
_OGG_PAGE_BYTES = 65307  # the longest page
_OGG_HEADER_BYTES = 282  # of the longest header of a page
_FLAC_START = b"fLaC\0\0\0\x22"  # and the head of the first block, which has 34 bytes
_MP3_TAGS = (b"APETAGEX", b"LYRICSBEGIN", b"TAG")
_MP3_REST_BYTES = 2048  # some programs do not count the first frame of at most 1441 bytes
_VOC_START = b"Creative Voice File\x1a"
_W64_CHUNK = "<16sQ"
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # the end of the name of every chunk of a W64 file


def check_complete(name: str, handle: BinaryIO) -> None:
    """Check that a recording is as long as its header says, and the only one in its file.

    That the end of a flac or mp3 is missing is noticed by those who read it.

    Args:
        name: the name of the recording for messages.
        handle: the file, open for reading bytes, and seekable.

    Raises:
        UserError: the file is empty or truncated, contains more than its header gives, or is compressed NIST SPHERE.
    """
    size = handle.seek(0, os.SEEK_END)
    if size == 0:
        raise UserError(f"{name}: is empty; copy or unpack it again")
    handle.seek(0)
    magic = handle.read(20)
    end = next((find(name, handle, size) for start, find in _ENDS.items() if magic.startswith(start)), None)
    if end is None:
        return
    if end > size:
        raise UserError(f"{name}: is truncated: its header gives {end} bytes, but the file has {size}; copy or unpack it again")
    if size - end > _TAG_BYTES and not (size - end < _PADDING_BYTES and _only_zeros(handle, end)):
        raise UserError(
            f"{name}: its header gives {end} bytes, but the file has {size}: the rest would not be read; correct the header, or"
            " convert the file: ffmpeg -ignore_length 1 -i IN OUT.wav"
        )


def is_unfinished(handle: BinaryIO) -> bool:
    """Return whether a file has no length in its header: a wav without samples that some follow, or an mp3 without a count."""
    handle.seek(0)
    head = handle.read(4096)
    if head.startswith(b"RIFF"):
        samples = head.find(b"data\0\0\0\0") + 8
        return samples >= 8 and handle.seek(0, os.SEEK_END) - samples > _TAG_BYTES
    return frame_bytes(_read(handle, tag_bytes(handle, 0), 4)) > 0 and counted(handle)[0] is None


def finished(content: BinaryIO) -> BinaryIO:
    """Return the content of an unfinished file, which may be changed, with a header that lets libsndfile read to its end."""
    if _read(content, 0, 4) == b"RIFF":
        content.seek(4)
        content.write(struct.pack("<I", 8))  # this length of the whole file
        return content
    start = tag_bytes(content, 0)
    count, _ = frames(content, start)
    content.seek(start)
    whole = content.read()
    return io.BytesIO(header_frame(whole[:4], count) + whole)


def _is_unknown(length: int) -> bool:
    """Return whether a program that could not seek wrote this length: 0, or nearly 2^31 or 2^32 (sox, arecord, ffmpeg)."""
    return length == 0 or 0x7F000000 <= length <= 0x80000000 or length >= 0xFFFFF000


def _end_of_chunks(handle: BinaryIO, size: int, order: str, data: bytes) -> int | None:
    """Return the end of a RIFF or AIFF file. Only the chunk ``data`` must be complete; the others do not hold samples."""
    place, long_length, end_of_data = 12, 0, None
    while place + 8 <= size:
        handle.seek(place)
        name, length = struct.unpack(f"{order}4sI", handle.read(8))
        if (
            (name == data and end_of_data)
            or name in (b"RIFF", b"RIFX", b"RF64", b"FORM")
            or not re.fullmatch(rb"[ -~]{4}", name)
        ):
            break  # not a chunk, but samples or another file
        place += 8
        if name == b"ds64":  # RF64: the 64-bit sizes of the file and of the data chunk
            long_length = int.from_bytes(handle.read(16)[8:], "little")
        if name == data:
            length = long_length or length
            if _is_unknown(length) and not long_length:
                return None
            end_of_data = place + length
            if end_of_data > size:
                return end_of_data
        handle.seek(place + length)
        place += length + int(length % 2 == 1 and handle.read(1) == b"\0")  # some programs do not pad a chunk of odd length
    return None if end_of_data is None else min(place, size)


def _end_of_wav(name: str, handle: BinaryIO, size: int) -> int | None:
    handle.seek(0)
    return _end_of_chunks(handle, size, ">" if handle.read(4) == b"RIFX" else "<", b"data")


def _end_of_w64(name: str, handle: BinaryIO, size: int) -> int | None:
    """Return the end of a Sony Wave64 file: chunks with 16-byte names and 64-bit lengths that count the chunk's header."""
    place = 40
    while place + 24 <= size:
        handle.seek(place)
        chunk, length = struct.unpack(_W64_CHUNK, handle.read(24))
        if not chunk.endswith(_W64_TAIL) or length < 24:
            break
        place += length if chunk.startswith(b"data") else -(-length // 8) * 8
    return place


def _end_of_au(name: str, handle: BinaryIO, size: int) -> int | None:
    handle.seek(0)
    order = ">" if handle.read(4) == b".snd" else "<"
    start, length = struct.unpack(f"{order}II", handle.read(8).ljust(8, b"\0"))
    return None if _is_unknown(length) else start + length


def _end_of_voc(name: str, handle: BinaryIO, size: int) -> int | None:
    """Return the end of a Creative Voice file: blocks of a type and a 24-bit length, the last of which has the type 0."""
    handle.seek(20)
    place = int.from_bytes(handle.read(2), "little")
    while place < size:
        handle.seek(place)
        kind, *length = handle.read(4)
        if kind == 0:  # what follows is not audio, unless it is another file
            _check_single(name, _find(handle, place, _VOC_START))
            return None
        place += 4 + int.from_bytes(bytes(length), "little")
    return place


def _end_of_ogg(name: str, handle: BinaryIO, size: int) -> int | None:
    """Check that the last page (of Vorbis, Opus, ...) has the mark of a last page, flag 4, and that no other file follows.

    The first page of a stream has flag 2. Streams that are played together begin together.
    """
    handle.seek(max(0, size - 2 * _OGG_PAGE_BYTES))
    tail = handle.read()
    page = tail.rfind(b"OggS\0")
    if not tail[page + 5 : page + 6] or not tail[page + 5] & 4:
        raise UserError(
            f"{name}: is truncated: the page that ends an Ogg file is missing; copy or unpack it again, or if it can be played"
            " to its end, convert it: ffmpeg -i IN OUT.wav"
        )
    place = 0
    while (head := _read(handle, place, _OGG_HEADER_BYTES)).startswith(b"OggS\0\2") and len(head) > 27:
        place += 27 + head[26] + sum(head[27 : 27 + head[26]])
    _check_single(name, _find(handle, place, b"OggS\0\2"))
    return None


def _end_of_flac(name: str, handle: BinaryIO, size: int) -> int | None:
    _check_single(name, _find(handle, tag_bytes(handle, 0) + len(_FLAC_START), _FLAC_START))
    return None


def _end_of_mp3(name: str, handle: BinaryIO, size: int) -> int | None:
    """Check that no other frames follow those that the header of LAME and others counts; without it, return their end.

    Tags may follow.
    """
    start = tag_bytes(handle, 0)
    count, length = counted(handle)
    if count is None:
        count, end = frames(handle, start)
        if count and size - end > _TAG_BYTES and not _only_zeros(handle, end):
            raise UserError(
                f"{name}: the frames end at byte {end}, and the rest would not be read; convert it: ffmpeg -i IN OUT.wav"
            )
        return end if count else None
    if length is None:
        return None
    end = start + length
    while tag := tag_bytes(handle, end):
        end += tag
    rest = _read(handle, end, _MP3_REST_BYTES)
    is_audio = len(rest) == _MP3_REST_BYTES and rest[0] == 0xFF and rest[1] >= 0xE0
    _check_single(name, end if is_audio and not any(tag in rest for tag in _MP3_TAGS) else -1)
    return None


def _end_of_tagged(name: str, handle: BinaryIO, size: int) -> int | None:
    """Find the end of a file with an ID3 tag in front."""
    is_flac = _read(handle, tag_bytes(handle, 0), 4) == _FLAC_START[:4]
    return (_end_of_flac if is_flac else _end_of_mp3)(name, handle, size)


def _end_of_caf(name: str, handle: BinaryIO, size: int) -> int | None:
    """Return the end of a Core Audio file: chunks with 4-byte names and 64-bit lengths."""
    place = 8
    while place + 12 <= size:
        chunk, length = struct.unpack(">4sq", _read(handle, place, 12))
        if chunk == b"data" and length == -1:  # it ends with the file
            return None
        if chunk == b"caff" or length < 0 or not re.fullmatch(rb"[ -~]{4}", chunk):
            break
        place += 12 + length
    return place


def _end_of_sphere(name: str, handle: BinaryIO, size: int) -> int | None:
    handle.seek(0)
    head = handle.read(1024)
    fields = dict(re.findall(rb"^(\w+) -\w+ (.*?)\s*$", head, re.MULTILINE))
    coding = fields.get(b"sample_coding", b"pcm").decode("ascii", "replace")
    if "embedded" in coding:
        raise UserError(
            f"{name}: is compressed ({coding}), which libsndfile does not read; convert it: sph2pipe -f wav IN OUT.wav,"
            " or ffmpeg -i IN OUT.wav"
        )
    try:
        sample = int(fields[b"sample_n_bytes"]) * int(fields[b"channel_count"])
        return int(head.split()[1]) + int(fields[b"sample_count"]) * sample
    except (KeyError, ValueError, IndexError):
        return None


def _check_single(name: str, place: int) -> None:
    """Raise a ``UserError`` if there is a place, not -1, where another recording begins."""
    if place >= 0:
        raise UserError(
            f"{name}: another recording begins at byte {place}, and would not be read; write each recording to its own file"
        )


def _read(handle: BinaryIO, place: int, count: int) -> bytes:
    handle.seek(place)
    return handle.read(count)


def _find(handle: BinaryIO, start: int, mark: bytes) -> int:
    """Return the first place of ``mark`` from ``start`` on; -1 if there is none."""
    handle.seek(start)
    kept = b""
    while block := handle.read(1 << 20):
        block = kept + block
        if (at := block.find(mark)) >= 0:
            return handle.tell() - len(block) + at
        kept = block[1 - len(mark) :]
    return -1


def _only_zeros(handle: BinaryIO, start: int) -> bool:
    """Return whether the file contains only zeros from ``start``: padding to the block size of a disk."""
    handle.seek(start)
    while block := handle.read(1 << 20):
        if block.count(0) < len(block):
            return False
    return True


_ENDS: dict[bytes, End] = {
    b"RIFF": _end_of_wav,
    b"RIFX": _end_of_wav,
    b"RF64": _end_of_wav,
    b"FORM": lambda name, handle, size: _end_of_chunks(handle, size, ">", b"SSND"),
    b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000"): _end_of_w64,
    b".snd": _end_of_au,
    b"dns.": _end_of_au,
    _VOC_START: _end_of_voc,
    b"OggS": _end_of_ogg,
    b"fLaC": _end_of_flac,
    b"ID3": _end_of_tagged,
    b"\xff": _end_of_mp3,
    b"caff": _end_of_caf,
    b"NIST_1A": _end_of_sphere,
}
