"""Kaldi's archives of binary matrices and of recordings. kaldiio writes them; it would run commands when reading."""

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from asrprune.runtime.errors import UserError
from asrprune.runtime.planted import open_plain

_BROKEN = (OSError, ValueError, struct.error)
_PLAIN = {b"\0BFM": "<f4", b"\0BDM": "<f8"}
_COMPRESSED = {b"\0BCM": "<u1", b"\0BCM2": "<u2", b"\0BCM3": "<u1"}  # see compressed-matrix.h of Kaldi
_LONGEST_HEADER = 22
_INT = b"\4\4"  # the size that precedes each integer
_WIDEST = 1 << 16  # the largest number of columns
_MOST_NUMBERS = 1 << 30  # of a matrix; those of 37 hours
_MOST_BYTES = 1 << 31  # of a recording
_LARGEST = 1e4  # features are logarithms: those of 16-bit samples lie between -16 and 30


def write_ark(ark: Path, final_path: Path, matrices: Iterable[tuple[str, np.ndarray]]) -> dict[str, str]:
    """Write (id, (T, F) float32) pairs to ``ark`` and return the scp entries, id -> ``final_path:offset``.

    ``final_path`` is the path of the archive after it is renamed.
    """
    import kaldiio  # only where archives are written, so that transcription does without it

    entries = {}
    with open(ark, "wb") as handle:
        for key, matrix in matrices:
            offset = handle.tell() + len(key.encode()) + 1
            kaldiio.save_ark(handle, {key: matrix})
            entries[key] = f"{final_path}:{offset}"
    return entries


def read_matrix(entry: str) -> np.ndarray:
    """Read the matrix of an scp entry ``PATH:OFFSET``: (T, F) float32.

    Raises:
        UserError: the archive is missing or broken, or a number is not finite or far too large.
    """
    path, _, offset = entry.rpartition(":")
    if not path or path.startswith("|") or not (offset.isascii() and offset.isdigit() and len(offset) < 19):
        raise UserError(f"{entry}: not an scp entry PATH:OFFSET (pipes are not run); stage 2 (fbank) makes the features")
    try:
        matrix = np.asarray(_read(path, int(offset)), dtype=np.float32)
    except FileNotFoundError:
        raise UserError(f"{entry}: there is no such archive; run stage 2 (fbank) again") from None
    except _BROKEN as error:
        raise UserError(
            f"{entry}: cannot read the feature matrix ({error}); delete {path} and run stage 2 (fbank) again"
        ) from None
    low, high = matrix.min(initial=0.0), matrix.max(initial=0.0)
    if not -_LARGEST <= low <= high <= _LARGEST:
        what = f"as large as {max(-low, high):g}" if np.isfinite(matrix).all() else "that are not finite"
        raise UserError(f"{entry}: contains features {what}; delete {path} and run stage 2 (fbank) again")
    return matrix


def checksum(matrix: np.ndarray) -> int:
    """Return the CRC-32 of the numbers of a matrix."""
    return zlib.crc32(np.ascontiguousarray(matrix, dtype="<f4").data)


def write_matrix(path: Path, matrix: np.ndarray) -> None:
    """Write one matrix in Kaldi's binary format, without an id (as compute-cmvn-stats does)."""
    import kaldiio

    kaldiio.save_mat(str(path), matrix)


def read_plain_matrix(path: Path) -> np.ndarray:
    """Read a matrix that ``write_matrix`` wrote; raise a ``UserError`` if the file is missing or broken."""
    try:
        return _read(str(path), 0)
    except _BROKEN as error:
        raise UserError(f"{path}: cannot read the matrix ({error})") from None


def read_recording(path: str, offset: int) -> bytes:
    """Read the audio file at an offset of an archive: a wav, or a file of any kind with its length in front, as in ESPnet.

    Raises:
        OSError: the archive cannot be read.
        UserError: there is no recording at this offset, or the archive ends within it.
    """
    with open_plain(path) as handle:
        room = os.fstat(handle.fileno()).st_size - offset
        handle.seek(offset)
        head = handle.read(8)
        if head.startswith(b"RIFF"):
            start, length = 0, 8 + int.from_bytes(head[4:], "little")
        elif head.startswith(b"AUDIO") and len(head) > 6:
            start = 6 + head[5]
            handle.seek(offset + 6)
            length = int.from_bytes(handle.read(head[5]), "little")
        else:
            raise UserError(f"{path}:{offset}: there is no recording at this offset; correct it, or name an audio file")
        if start + length > room:
            raise UserError(f"{path}:{offset}: the archive ends within this recording; copy or unpack it again")
        if length > _MOST_BYTES:
            raise UserError(f"{path}:{offset}: has {length / 1e6:.0f} MB, more than may fit into memory; name an audio file")
        handle.seek(offset + start)
        return handle.read(length)


def _read(path: str, offset: int) -> np.ndarray:
    """Read the matrix at an offset; check that the file is as long as the header requires."""
    with open_plain(path) as handle:
        room = os.fstat(handle.fileno()).st_size - offset
        handle.seek(offset)
        kind, _, numbers = handle.read(_LONGEST_HEADER).partition(b" ")
        if kind in _PLAIN:
            marks, (rows, cols), used = numbers[:6:5], struct.unpack_from("<xixi", numbers), len(kind) + 11
        elif kind in _COMPRESSED:
            marks, (low, span, rows, cols), used = _INT, struct.unpack_from("<ffii", numbers), len(kind) + 17
        else:
            raise ValueError("no binary Kaldi matrix at this position")
        dtype, table = np.dtype(_PLAIN.get(kind) or _COMPRESSED[kind]), 8 * cols if kind == b"\0BCM" else 0
        sound = marks == _INT and ((rows >= 0 and 0 < cols <= _WIDEST) or rows == cols == 0)
        if not sound or used + table + rows * cols * dtype.itemsize > room:
            raise ValueError(f"its header gives {rows} x {cols} numbers, but the file is shorter")
        if rows * cols > _MOST_NUMBERS:
            raise ValueError(f"it has {rows} x {cols} numbers, which may not fit into memory")
        handle.seek(offset + used)
        percentiles = np.frombuffer(handle.read(table), "<u2")
        data = np.frombuffer(handle.read(rows * cols * dtype.itemsize), dtype)
    if kind in _PLAIN:
        return data.reshape(rows, cols)
    if table:
        return _by_column(low + span * percentiles.reshape(cols, 4) / 65535, data.reshape(cols, rows)).T
    return low + span * data.reshape(rows, cols) / np.iinfo(dtype).max


def _by_column(percentiles: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Decode codes (C, T): interpolate linearly between the percentiles (C, 4) of each column, at codes 0, 64, 192 and 255."""
    shares = [np.interp(np.arange(256), (0, 64, 192, 255), one) for one in np.eye(4)]
    return np.take_along_axis(percentiles @ np.stack(shares), codes.astype(np.intp), axis=1)
