"""Kaldi's binary matrices, in archives with scp entries and alone in a file; nothing else is read, so nothing can be run."""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from asrprune.runtime.errors import UserError
from asrprune.runtime.planted import open_plain

_BROKEN = (OSError, ValueError, struct.error)
_PLAIN = {b"\0BFM": "<f4", b"\0BDM": "<f8"}
_COMPRESSED = {b"\0BCM": "<u1", b"\0BCM2": "<u2", b"\0BCM3": "<u1"}  # compressed-matrix.h of Kaldi says what each means
_LONGEST_HEADER = 22
_INT = b"\4\4"  # before each whole number stands its size
_WIDEST = 1 << 16  # columns; no features have more


def write_ark(ark: Path, named_as: Path, matrices: Iterable[tuple[str, np.ndarray]]) -> dict[str, str]:
    """Write (id, (T, F) float32) pairs to ``ark``; returns id -> ``named_as:offset``, the entries of an scp file.

    ``named_as`` is the path that the archive will have once it is renamed.
    """
    entries = {}
    with open(ark, "wb") as handle:
        for key, matrix in matrices:
            handle.write(f"{key} ".encode())
            entries[key] = f"{named_as}:{handle.tell()}"
            handle.write(_written(matrix))
    return entries


def read_matrix(entry: str) -> np.ndarray:
    """Read the matrix of an scp entry ``PATH:OFFSET``: (T, F) float32.

    Raises:
        UserError: the archive is missing or broken; stage 2 makes it.
    """
    path, _, offset = entry.rpartition(":")
    if not path or path.startswith("|") or not (offset.isascii() and offset.isdigit() and len(offset) < 19):
        raise UserError(f"{entry}: not an scp entry PATH:OFFSET (pipes are not run); stage 2 (fbank) makes the features")
    try:
        return np.asarray(_read(path, int(offset)), dtype=np.float32)
    except _BROKEN as error:
        raise UserError(
            f"{entry}: cannot read the feature matrix ({error}); delete {path} and run stage 2 (fbank) again"
        ) from None


def write_matrix(path: Path, matrix: np.ndarray) -> None:
    """Write one matrix in Kaldi's binary format, without an id (as compute-cmvn-stats does)."""
    path.write_bytes(_written(matrix))


def read_plain_matrix(path: Path) -> np.ndarray:
    """Read what ``write_matrix`` wrote; a missing or broken file is a ``UserError``."""
    try:
        return _read(str(path), 0)
    except _BROKEN as error:
        raise UserError(f"{path}: cannot read the matrix ({error})") from None


def _written(matrix: np.ndarray) -> bytes:
    kind = next(kind for kind, dtype in _PLAIN.items() if matrix.dtype == dtype)
    rows, cols = matrix.shape
    return kind + b" " + struct.pack("<bibi", 4, rows, 4, cols) + matrix.astype(_PLAIN[kind]).tobytes()


def _read(path: str, offset: int) -> np.ndarray:
    """Read the matrix at an offset; its header is believed only as far as the file goes."""
    with open_plain(path) as handle:
        room = os.fstat(handle.fileno()).st_size - offset
        handle.seek(offset)
        kind, _, numbers = handle.read(_LONGEST_HEADER).partition(b" ")
        if kind in _PLAIN:
            marks, (rows, cols), used = numbers[:6:5], struct.unpack_from("<xixi", numbers), len(kind) + 11
        elif kind in _COMPRESSED:
            marks, (low, span, rows, cols), used = _INT, struct.unpack_from("<ffii", numbers), len(kind) + 17
        else:
            raise ValueError("no binary matrix of Kaldi's begins there")
        dtype, table = np.dtype(_PLAIN.get(kind) or _COMPRESSED[kind]), 8 * cols if kind == b"\0BCM" else 0
        sound = marks == _INT and ((rows >= 0 and 0 < cols <= _WIDEST) or rows == cols == 0)
        if not sound or used + table + rows * cols * dtype.itemsize > room:
            raise ValueError(f"its header promises {rows} x {cols} numbers, which the file does not hold")
        handle.seek(offset + used)
        percentiles = np.frombuffer(handle.read(table), "<u2")
        data = np.frombuffer(handle.read(rows * cols * dtype.itemsize), dtype)
    if kind in _PLAIN:
        return data.reshape(rows, cols)
    if table:
        return _by_column(low + span * percentiles.reshape(cols, 4) / 65535, data.reshape(cols, rows)).T
    return low + span * data.reshape(rows, cols) / np.iinfo(dtype).max


def _by_column(percentiles: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Look up codes (C, T), which lie on straight lines between the column's percentiles (C, 4): 0 to 64, to 192, to 255."""
    shares = [np.interp(np.arange(256), (0, 64, 192, 255), one) for one in np.eye(4)]
    return np.take_along_axis(percentiles @ np.stack(shares), codes.astype(np.intp), axis=1)
