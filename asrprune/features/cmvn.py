"""Global CMVN: statistics of features, in Kaldi's format."""

from pathlib import Path

import numpy as np

from asrprune.features.ark import read_plain_matrix, write_matrix
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path


def statistics(matrix: np.ndarray) -> np.ndarray:
    """(2, F + 1) of a (T, F) matrix, as ``compute_cmvn``."""
    matrix = matrix.astype(np.float64)
    return np.stack([np.append(matrix.sum(axis=0), len(matrix)), np.append(np.square(matrix).sum(axis=0), 0.0)])


def write_cmvn(path: Path, stats: np.ndarray) -> None:
    """Write CMVN statistics in Kaldi's format."""
    with atomic_path(path) as temporary:
        write_matrix(temporary, stats)


def read_statistics(path: Path) -> np.ndarray:
    """Read what ``write_cmvn`` wrote: (2, F + 1); anything else is a ``UserError``."""
    stats = read_plain_matrix(path)
    if len(stats) != 2 or stats.shape[1] < 2 or not np.isfinite(stats).all() or not stats[0, -1] > 0:
        raise UserError(f"{path}: are no CMVN statistics of a frame or more; stage 2 (`asrprune fbank --cmvn`) makes them")
    return stats


def read_cmvn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read CMVN statistics; returns mean (F,) and 1 / standard deviation (F,), float32; features become (x - mean) * scale."""
    stats = read_statistics(path)
    count = stats[0, -1]
    mean = stats[0, :-1] / count
    variance = np.maximum(stats[1, :-1] / count - mean**2, 1e-10)  # a constant bin must not divide by 0
    return mean.astype(np.float32), (1.0 / np.sqrt(variance)).astype(np.float32)
