"""The number of encoder frames of an utterance: the same rule for all front ends, because no convolution is padded."""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Lengths = TypeVar("Lengths", "int", "np.ndarray", "Tensor")


def output_length(frames: Lengths, factor: int) -> Lengths:
    """Return the number of encoder frames for ``frames`` feature frames (integers of any shape); 0 below ``min_frames``.

    A convolution of width 3 and stride 2 turns T frames into (T - 1) // 2 = (T + 1) // 2 - 1. A chain of log2(factor) such
    convolutions turns T frames into (T + 1) // factor - 1.

    >>> output_length(100, 4), output_length(100, 8)
    (24, 11)
    """
    left = (frames + 1) // factor - 1
    return left * (left > 0)


def min_frames(factor: int) -> int:
    """Return the smallest number of feature frames that gives an encoder frame.

    >>> min_frames(4), min_frames(8)
    (7, 15)
    """
    return 2 * factor - 1
