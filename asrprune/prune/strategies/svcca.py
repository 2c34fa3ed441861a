"""Remove runs of layers that change the stream least, by SVCCA similarity."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from asrprune.experiment.plan import Keep

MOST_EXHAUSTIVE = 20_000  # the largest number of sets of one size to try; for more, a beam is used
BEAM = 64  # sets of each size that the beam keeps


def svcca(similarity: np.ndarray, depths: Sequence[int], count: int = 1) -> dict[int, list[Keep]]:
    """Propose sub-models for each depth: remove the runs of layers that change the stream least. Nothing is decoded.

    A set of removed layers consists of runs [a..b] of adjacent layers. Its value is the mean of C[a-1][b] over its runs. All
    sets of a size are tried if there are at most ``MOST_EXHAUSTIVE``; else a beam adds one layer at a time.

    Args:
        similarity: C, (L + 1, L + 1), the similarity of x_0..x_L.
        depths: the numbers of layers to keep.
        count: the number of proposals for each depth, best first.
    """
    num_layers = len(similarity) - 1
    sets: list[Keep] = [()]
    best: dict[int, list[Keep]] = {num_layers: sets}
    for size in range(1, num_layers):
        if math.comb(num_layers, size) <= MOST_EXHAUSTIVE:
            sets = list(itertools.combinations(range(1, num_layers + 1), size))
        else:
            grown = {tuple(sorted((*old, layer))) for old in sets for layer in range(1, num_layers + 1) if layer not in old}
            sets = sorted(grown)
        sets = sorted(sets, key=lambda removed: -run_similarity(removed, similarity))[: max(BEAM, count)]
        best[num_layers - size] = sets[:count]
    layers = range(1, num_layers + 1)
    return {
        depth: [tuple(layer for layer in layers if layer not in removed) for removed in best[depth]]
        for depth in sorted(set(depths), reverse=True)
    }


def run_similarity(removed: Sequence[int], similarity: np.ndarray) -> float:
    """Return the mean of C[a-1][b] over the runs [a..b] of the ascending ``removed`` layers."""
    values, first = [], 0
    for position, layer in enumerate(removed):
        if position == 0 or removed[position - 1] != layer - 1:
            first = layer
        if position + 1 == len(removed) or removed[position + 1] != layer + 1:
            values.append(similarity[first - 1, layer])
    return float(np.mean(values))
