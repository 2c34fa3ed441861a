"""Which layers to remove: strategies as pure functions of a number of layers, a similarity matrix or a score callable."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asrprune.prune.plan import Step

MOST_EXHAUSTIVE = 20_000  # sets of one size; beyond, the svcca strategy uses a beam
BEAM = 64


def top(num_layers: int, depths: Sequence[int]) -> tuple[Step, ...]:
    """Keep layers 1..d: needs no data, natural where a depth carries a tap."""
    return tuple(Step(tuple(range(1, depth + 1))) for depth in _deepest_first(depths))


def every(num_layers: int, depths: Sequence[int]) -> tuple[Step, ...]:
    """Keep layers spread evenly, the last among them; half of them is every other layer (LayerDrop, arXiv 1909.11556).

    >>> [step.keep for step in every(12, [6, 5])]
    [(2, 4, 6, 8, 10, 12), (2, 5, 7, 10, 12)]
    """
    return tuple(
        Step(tuple(math.floor(i * num_layers / depth + 0.5) for i in range(1, depth + 1))) for depth in _deepest_first(depths)
    )


@dataclass(frozen=True, order=True)
class Score:
    """Lower is better; the loss decides between equal errors."""

    primary: float  # in the plan's metric
    tie_break: float


Scorer = Callable[[tuple[int, ...]], Mapping[int, Score]]


def greedy(num_layers: int, full: Score, score_removals: Scorer, min_depth: int = 1) -> tuple[Step, ...]:
    """Remove one layer after another, each time the one whose removal hurts the dev score least.

    Args:
        num_layers: L.
        full: score of all layers.
        score_removals: kept layers -> score of the sub-model without layer l, for each kept layer l.
        min_depth: where to stop.

    Returns:
        One step for each depth L..min_depth, nested, each with the scores of all removals that were tried from it.
    """
    keep, score, steps = tuple(range(1, num_layers + 1)), full.primary, []
    while len(keep) > min_depth:
        scores = score_removals(keep)
        steps.append(Step(keep, score, {layer: scores[layer].primary for layer in keep}))
        gone = min(scores, key=lambda layer: (scores[layer], -layer))
        keep, score = tuple(layer for layer in keep if layer != gone), scores[gone].primary
    return (*steps, Step(keep, score))


def svcca(similarity: np.ndarray, depths: Sequence[int]) -> tuple[Step, ...]:
    """Remove the runs of layers across which the stream changes least; nothing is decoded.

    A set of removed layers falls into runs [a..b]; its value is the mean over runs of C[a-1][b]. All sets of a size are
    tried where they are few, else a beam grows them one layer at a time.

    Args:
        similarity: C, (L + 1, L + 1), of x_0..x_L.
        depths: wanted numbers of layers.
    """
    num_layers = len(similarity) - 1
    beam: list[tuple[int, ...]] = [()]
    best: dict[int, tuple[int, ...]] = {num_layers: ()}
    for size in range(1, num_layers):
        if math.comb(num_layers, size) <= MOST_EXHAUSTIVE:
            sets: list[tuple[int, ...]] = list(itertools.combinations(range(1, num_layers + 1), size))
        else:
            sets = sorted(
                {tuple(sorted((*old, layer))) for old in beam for layer in range(1, num_layers + 1) if layer not in old}
            )
        beam = sorted(sets, key=lambda removed: -run_similarity(removed, similarity))[:BEAM]
        best[num_layers - size] = beam[0]
    layers = range(1, num_layers + 1)
    return tuple(Step(tuple(layer for layer in layers if layer not in best[depth])) for depth in _deepest_first(depths))


def run_similarity(removed: Sequence[int], similarity: np.ndarray) -> float:
    """Mean over the runs [a..b] of ascending ``removed`` layers of C[a-1][b]."""
    values, first = [], 0
    for position, layer in enumerate(removed):
        if position == 0 or removed[position - 1] != layer - 1:
            first = layer
        if position + 1 == len(removed) or removed[position + 1] != layer + 1:
            values.append(similarity[first - 1, layer])
    return float(np.mean(values))


def _deepest_first(depths: Sequence[int]) -> list[int]:
    return sorted(set(depths), reverse=True)
