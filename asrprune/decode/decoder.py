"""The interface of a decoder, which turns emissions into labels."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
Array: TypeAlias = Union["Tensor", np.ndarray]


@dataclass(frozen=True)
class BestPath:
    """The labels of one utterance, and their frames."""

    labels: list[int]
    first: list[int]  # first encoder frame of each label
    last: list[int]  # last encoder frame of each label


class Decoder(Protocol):
    """A decoder. No other code collapses CTC paths."""

    @property
    def identity(self) -> str:
        """The name of the decoder and all numbers on which its labels depend, for cache keys and records."""

    def decode(self, log_probs: Array, lens: Array) -> list[BestPath]:
        """Decode a batch.

        Args:
            log_probs: (B, T', V) float32.
            lens: (B,) numbers of encoder frames; 0 frames give no labels.
        """


def warn_of_thresholds(path: Path, chosen_with: str, decoder: str) -> None:
    """Warn if the thresholds of early exit in a file were chosen with another decoder; both are identities."""
    if decoder != chosen_with:
        logger.warning(
            "%s: the thresholds were chosen with the decoder %s, not with %s; run `asrprune early-exit` with that one",
            path, chosen_with, decoder,
        )  # fmt: skip


def with_precision(identity: str, precision: str) -> str:
    """Return how a text was made, such as ``greedy, float32``."""
    return f"{identity}, {precision}"


def without_precision(made: str) -> tuple[str, str]:
    """Take a value of ``with_precision`` apart.

    >>> without_precision("beam size=8, float32")
    ('beam size=8', 'float32')
    """
    identity, _, precision = made.rpartition(", ")
    return identity, precision


def on_cpu(values: Array) -> np.ndarray:
    """Return a tensor as an array, which shares the memory of a tensor on the CPU; return an array unchanged."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()
