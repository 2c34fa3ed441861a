"""Keep layers spread evenly."""

import math
from collections.abc import Sequence

from asrprune.experiment.plan import Step


def every(num_layers: int, depths: Sequence[int]) -> tuple[Step, ...]:
    """Keep layers spread evenly, with the last one; at half depth, every other layer (LayerDrop, arXiv 1909.11556).

    >>> [step.keep for step in every(12, [6, 5])]
    [(2, 4, 6, 8, 10, 12), (2, 5, 7, 10, 12)]
    """
    deepest_first = sorted(set(depths), reverse=True)
    return tuple(
        Step.of(tuple(math.floor(i * num_layers / depth + 0.5) for i in range(1, depth + 1))) for depth in deepest_first
    )
