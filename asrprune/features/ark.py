"""Kaldi ark/scp matrices: the only module that uses kaldiio (its licence is an evaluation licence)."""

from collections.abc import Iterable
from pathlib import Path

import kaldiio
import numpy as np

from asrprune.runtime.errors import UserError, first_line

_BROKEN = (OSError, ValueError, EOFError, AssertionError, RuntimeError)  # errors of kaldiio for a file that is not a matrix


def write_ark(ark: Path, final_path: Path, matrices: Iterable[tuple[str, np.ndarray]]) -> dict[str, str]:
    """Write (id, (T, F) float32) pairs to ``ark`` and return the scp entries, id -> ``final_path:offset``.

    ``final_path`` is the path of the archive after it is renamed.
    """
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
        UserError: the archive is missing or broken.
    """
    path, _, offset = entry.rpartition(":")
    if not path or not offset.isdigit():
        raise UserError(f"{entry}: not an scp entry PATH:OFFSET (pipes are not run); stage 2 (fbank) makes the features")
    try:
        matrix = kaldiio.load_mat(entry)
    except _BROKEN as error:
        raise UserError(
            f"{entry}: cannot read the feature matrix ({first_line(error)}); delete {path} and run stage 2 (fbank) again"
        ) from None
    return np.asarray(matrix, dtype=np.float32)


def write_matrix(path: Path, matrix: np.ndarray) -> None:
    """Write one matrix in Kaldi's binary format, without an id (as compute-cmvn-stats does)."""
    kaldiio.save_mat(str(path), matrix)


def read_plain_matrix(path: Path) -> np.ndarray:
    """Read a matrix that ``write_matrix`` wrote; raise a ``UserError`` if the file is missing or broken."""
    try:
        return np.asarray(kaldiio.load_mat(str(path)))
    except _BROKEN as error:
        raise UserError(f"{path}: cannot read the matrix ({first_line(error)})") from None
