"""The influence of a layer: how much it changes the stream (block influence of ShortGPT, arXiv 2403.03853)."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def influence(streams: Sequence[np.ndarray]) -> np.ndarray:
    """Return 1 minus the mean cosine, over frames, of the stream before and after each layer: (L,) float64, in 0..2.

    The influence is 0 if the layer only scales the stream.

    Args:
        streams: x_0..x_L, (N, D) each; row i is the same frame in all. In a frame of zeros the cosine counts as 0.
    """
    units = [_units(x) for x in streams]
    return np.array([1.0 - float(np.mean(np.sum(before * after, axis=1))) for before, after in pairwise(units)])


def _units(x: np.ndarray) -> np.ndarray:
    """Scale the rows to length 1."""
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
