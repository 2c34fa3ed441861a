"""The number of frames that a front end leaves of an utterance: one rule for all types, as no convolution is padded."""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Lengths = TypeVar("Lengths", "int", "np.ndarray", "Tensor")


def output_length(frames: Lengths, factor: int) -> Lengths:
    """Encoder frames of ``frames`` feature frames, a number or integers of any shape; 0 below ``min_frames``.

    A convolution of width 3 and stride 2 makes (T - 1) // 2 = (T + 1) // 2 - 1 frames of T; log2(factor) of them, one after
    the other, (T + 1) // factor - 1.

    >>> output_length(100, 4), output_length(100, 8)
    (24, 11)
    """
    left = (frames + 1) // factor - 1
    return left * (left > 0)


def min_frames(factor: int) -> int:
    """Fewest feature frames that give an encoder frame.

    >>> min_frames(4), min_frames(8)
    (7, 15)
    """
    return 2 * factor - 1
