"""Global CMVN: statistics of features, in Kaldi's format."""

from pathlib import Path

import numpy as np

from asrprune.features.ark import read_plain_matrix, write_matrix
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path


def statistics(matrix: np.ndarray) -> np.ndarray:
    """Return Kaldi's CMVN statistics (2, F + 1) of a (T, F) matrix: sums and count, sums of squares and 0."""
    matrix = matrix.astype(np.float64)
    return np.stack([np.append(matrix.sum(axis=0), len(matrix)), np.append(np.square(matrix).sum(axis=0), 0.0)])


def write_cmvn(path: Path, stats: np.ndarray) -> None:
    """Write CMVN statistics in Kaldi's format."""
    with atomic_path(path) as temporary:
        write_matrix(temporary, stats)


def read_statistics(path: Path) -> np.ndarray:
    """Read CMVN statistics (2, F + 1); raise a ``UserError`` for anything else."""
    stats = read_plain_matrix(path)
    if len(stats) != 2 or stats.shape[1] < 2 or not np.isfinite(stats).all() or not stats[0, -1] > 0:
        raise UserError(f"{path}: not CMVN statistics of at least one frame; stage 2 (`asrprune fbank --cmvn`) makes them")
    return stats


def read_cmvn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read CMVN statistics and return mean (F,) and scale = 1 / standard deviation (F,), for (x - mean) * scale."""
    stats = read_statistics(path)
    count = stats[0, -1]
    mean = stats[0, :-1] / count
    variance = np.maximum(stats[1, :-1] / count - mean**2, 1e-10)  # a constant bin must not divide by 0
    return mean.astype(np.float32), (1.0 / np.sqrt(variance)).astype(np.float32)
