"""The frames of an mp3. Without the header of LAME and others (Xing, Info), libsndfile guesses their number from the first.

The format: ISO 11172-3, 2.4.2.3; the header: http://gabriel.mp3-tech.org/mp3infotag.html
"""

import struct
from typing import BinaryIO

_RATES = {  # kbit/s of layer III, by the version of MPEG
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HZ = (44100, 48000, 32000)
_HAS_FRAMES, _HAS_BYTES = 1, 2


def tag_bytes(handle: BinaryIO, place: int) -> int:
    """Return the length of the tag (ID3 or APE) at a place; 0 if there is none."""
    handle.seek(place)
    head = handle.read(16).ljust(16, b"\0")
    if head.startswith(b"ID3"):
        return 10 + sum(seven_bits << shift for seven_bits, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    if head.startswith(b"APETAGEX"):
        return 32 + int.from_bytes(head[12:], "little")
    return 128 if head.startswith(b"TAG") else 0


def counted(handle: BinaryIO) -> tuple[int | None, int | None]:
    """Return the numbers of frames and of bytes that the header in the first frame gives; None: it gives none."""
    handle.seek(tag_bytes(handle, 0))
    _, found, header = handle.read(64).replace(b"Xing", b"Info").partition(b"Info")
    if not found or len(header) < 12:
        return None, None
    flags, *numbers = struct.unpack(">III", header[:12])
    if not flags & _HAS_FRAMES:
        return None, None
    return numbers[0], numbers[1] if flags & _HAS_BYTES else None


def frames(handle: BinaryIO, start: int) -> tuple[int, int]:
    """Return the number of frames of layer III from byte ``start`` on, and the byte after the last one; tags may be between."""
    count, end = 0, start
    while True:
        handle.seek(end)
        if length := frame_bytes(handle.read(4)):
            count, end = count + 1, end + length
        elif length := tag_bytes(handle, end):
            end += length
        else:
            return count, end


def frame_bytes(head: bytes) -> int:
    """Return the length of the frame of layer III that begins with the four bytes ``head``; 0 if none does."""
    bits = int.from_bytes(head, "big")
    version, rate, hz = bits >> 19 & 3, bits >> 12 & 15, bits >> 10 & 3
    if len(head) < 4 or bits >> 21 != 0x7FF or version == 1 or bits >> 17 & 3 != 1 or rate in (0, 15) or hz == 3:
        return 0
    mpeg, halved = (1, 0) if version == 3 else (2, 1 if version == 2 else 2)
    return (144000 // mpeg) * _RATES[mpeg][rate - 1] // (_HZ[hz] >> halved) + (bits >> 9 & 1)


def header_frame(first: bytes, count: int) -> bytes:
    """Return a silent frame with the header that counts frames. ``first``: the four bytes with which the first one begins."""
    bits = int.from_bytes(first, "big") & ~0xF200 | 0x18000  # no padding, no checksum, and a rate that leaves room
    mono, mpeg1 = bits >> 6 & 3 == 3, bits >> 19 & 3 == 3
    side = (17 if mono else 32) if mpeg1 else (9 if mono else 17)  # bytes before the header
    head = bits.to_bytes(4, "big")
    return (head + bytes(side) + struct.pack(">4sII", b"Info", _HAS_FRAMES, count)).ljust(frame_bytes(head), b"\0")
