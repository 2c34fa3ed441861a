"""The layers that a training step runs: stochastic depth (arXiv 1603.09382, 1909.11556), truncated updates, growth."""

from collections.abc import Mapping

import torch

from asrprune.runtime.seeds import mix

_GOLDEN = (5.0**0.5 - 1.0) / 2.0


def drop_probabilities(num_layers: int, rate: float, mode: str) -> list[float]:
    """Return the probability that layer l = 1..L is skipped: p * l / L for ``linear``, p for ``uniform``.

    >>> drop_probabilities(4, 0.5, "linear")
    [0.125, 0.25, 0.375, 0.5]
    """
    if mode == "uniform":
        return [rate] * num_layers
    assert mode == "linear", mode
    return [rate * layer / num_layers for layer in range(1, num_layers + 1)]


def draw_layers(probabilities: list[float], seed: int, step: int) -> list[int]:
    """Draw the layers, from 1, that run in this step: one Bernoulli draw per layer.

    The draws depend only on (seed, step), so they are the same on every rank and after a restart.
    """
    generator = torch.Generator().manual_seed(mix(seed, step))
    draws = torch.rand(len(probabilities), generator=generator).tolist()
    return [layer for layer, (draw, p) in enumerate(zip(draws, probabilities, strict=True), start=1) if draw >= p]


def draw_depth(shares: Mapping[int, float], num_layers: int, seed: int, step: int) -> int:
    """Draw the depth of this update: a tap, with the probability in ``shares``, else ``num_layers``.

    The draws are a low-discrepancy sequence: multiples of the golden ratio modulo 1, with an offset that depends on the seed.
    So every few dozen updates have these shares, for any seed. The draws depend only on (seed, step).

    >>> [draw_depth({2: 0.25}, 12, 1, step) for step in range(1, 9)].count(2)
    2
    """
    point = (mix(seed) / 2**63 + step * _GOLDEN) % 1.0
    for depth, share in sorted(shares.items()):
        if point < share:
            return depth
        point -= share
    return num_layers


def grown_depth(grow: Mapping[int, int], num_layers: int, step: int) -> int:
    """Return the highest layer that may run in update ``step``, from 1: the lowest tap whose number of updates is not over.

    >>> [grown_depth({2: 10, 4: 20}, 12, step) for step in (10, 11, 20, 21)]
    [2, 4, 4, 12]
    """
    return min((tap for tap, until in grow.items() if step <= until), default=num_layers)


def branch_scales(probabilities: list[float]) -> list[float]:
    """Return c_l = 1 / (1 - p_l), the factor of the residual branches of a layer that runs in training."""
    return [1.0 / (1.0 - p) for p in probabilities]
