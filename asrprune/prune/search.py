"""Which layers to remove: strategies as pure functions of a number of layers, a similarity matrix or a score callable."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asrprune.experiment.plan import Keep, Step

MOST_EXHAUSTIVE = 20_000  # sets of one size; beyond, the svcca strategy uses a beam
BEAM = 64  # sets of each size that it goes on from


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
class DevScore:
    """Lower is better; the loss decides between equal errors."""

    primary: float  # in the plan's metric
    tie_break: float


# Sub-models, the promising first -> their dev scores; with a number n, those that cannot be among the n best may be missing.
Scorer = Callable[[Sequence[Keep], int | None], Mapping[Keep, DevScore]]


def greedy(num_layers: int, score: Scorer, min_depth: int = 1) -> tuple[Step, ...]:
    """Remove one layer after another, each time the one whose removal hurts the dev score least.

    Args:
        num_layers: L.
        score: dev scores of sub-models.
        min_depth: where to stop.

    Returns:
        One step for each depth L..min_depth, nested. Each has the scores of the removals that were tried from it: the first of
        all layers, the others of those that could have been the best.
    """
    keep: Keep = tuple(range(1, num_layers + 1))
    now, found = _first(keep, score, min_depth)
    harm, steps = dict(found), []
    while len(keep) > min_depth:
        if len(keep) < num_layers:
            promising = sorted(keep, key=lambda layer: harm[layer])
            found = _by_layer(keep, score([_less(keep, layer) for layer in promising], 1))
            harm |= found
        steps.append(Step(keep, now.primary, {layer: result.primary for layer, result in found.items()}))
        gone = min(found, key=lambda layer: (found[layer], -layer))
        keep, now = _less(keep, gone), found[gone]
    return (*steps, Step(keep, now.primary))


def beam(num_layers: int, score: Scorer, min_depth: int, width: int) -> tuple[Step, ...]:
    """As ``greedy``, but go on from the ``width`` best sub-models of each depth, those of ``greedy`` and of ``top`` among them.

    No depth can be worse than theirs; ``top`` is there as greedy never takes a layer back, which it may need below a tap. The
    steps need not be nested. Removals from the best parents come first, of one parent those that harm the full model least: the
    hopeless ones come last and are given up.
    """
    known: dict[Keep, DevScore] = {}

    def remembered(keeps: Sequence[Keep], best: int | None) -> Mapping[Keep, DevScore]:
        if unknown := [keep for keep in keeps if keep not in known]:
            known.update(score(unknown, best))
        return {keep: known[keep] for keep in keeps if keep in known}

    chain = greedy(num_layers, remembered, min_depth)
    if width == 1:
        return chain
    frontier, chosen, harm = [chain[0].keep], [chain[0].keep], chain[0].without
    for step in chain[1:]:  # the frontier holds the best sub-models with one layer more
        promise = {_less(parent, layer): (known[parent], harm[layer]) for parent in reversed(frontier) for layer in parent}
        tried = dict.fromkeys([*sorted(promise, key=promise.__getitem__), chain[0].keep[: step.depth]])
        found = {step.keep: known[step.keep], **remembered(list(tried), width)}
        frontier = sorted(found, key=lambda keep: (found[keep], keep))[:width]
        chosen.append(frontier[0])
    return tuple(Step(keep, known[keep].primary, _without(keep, known)) for keep in chosen)


def rerank(proposals: Mapping[int, Sequence[Keep]], score: Scorer) -> tuple[Step, ...]:
    """Of several sub-models for each depth, the one with the best dev score; of equals the one that was proposed first."""
    steps = []
    for depth in _deepest_first(list(proposals)):
        found = score(proposals[depth], 1)
        best = min(found, key=lambda keep: (found[keep], proposals[depth].index(keep)))
        steps.append(Step(best, found[best].primary))
    return tuple(steps)


def _first(keep: Keep, score: Scorer, min_depth: int) -> tuple[DevScore, dict[int, DevScore]]:
    """Score of all layers, and of all removals of one, which a figure shows: none of them is given up."""
    removals = [_less(keep, layer) for layer in keep] if len(keep) > min_depth else []
    found = score([keep, *removals], None)
    return found[keep], _by_layer(keep, found)


def _by_layer(keep: Keep, found: Mapping[Keep, DevScore]) -> dict[int, DevScore]:
    return {layer: found[_less(keep, layer)] for layer in keep if _less(keep, layer) in found}


def _without(keep: Keep, known: Mapping[Keep, DevScore]) -> dict[int, float]:
    return {layer: result.primary for layer, result in _by_layer(keep, known).items()}


def _less(keep: Keep, gone: int) -> Keep:
    return tuple(layer for layer in keep if layer != gone)


def svcca(similarity: np.ndarray, depths: Sequence[int], count: int = 1) -> dict[int, list[Keep]]:
    """Remove the runs of layers across which the stream changes least; nothing is decoded.

    A set of removed layers falls into runs [a..b]; its value is the mean over runs of C[a-1][b]. All sets of a size are
    tried where they are few, else a beam grows them one layer at a time.

    Args:
        similarity: C, (L + 1, L + 1), of x_0..x_L.
        depths: wanted numbers of layers.
        count: how many sets of each depth to propose, the best first.
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
        for depth in _deepest_first(depths)
    }


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
