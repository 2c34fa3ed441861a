"""Remove the layers that change the stream least, by block influence."""

from collections.abc import Sequence

import numpy as np

from asrprune.experiment.plan import Step


def influence(influences: np.ndarray, depths: Sequence[int]) -> tuple[Step, ...]:
    """Keep the d layers of the highest influence, without decoding (ShortGPT, arXiv 2403.03853).

    Args:
        influences: (L,), the influence of layers 1..L, from asrprune/analysis/influence.py.
        depths: the numbers of layers to keep.

    >>> [step.keep for step in influence(np.array([0.9, 0.2, 0.5, 0.2]), [3, 2])]
    [(1, 2, 3), (1, 3)]
    """
    highest_first = (1 + np.argsort(-influences, kind="stable")).tolist()
    return tuple(Step.of(tuple(sorted(highest_first[:depth]))) for depth in sorted(set(depths), reverse=True))
