"""From emissions to labels: what every decoder is."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class BestPath:
    """The labels of one utterance, and where they lie."""

    labels: list[int]
    first: list[int]  # encoder frame at which each label begins
    last: list[int]  # and the last frame on which it is held


class Decoder(Protocol):
    """Turns log-probabilities into labels. Nothing else collapses CTC paths."""

    @property
    def identity(self) -> str:
        """The decoder and all numbers that its labels depend on: a part of every cache key and record."""

    def decode(self, log_probs: Tensor, lens: Tensor) -> list[BestPath]:
        """Decode a batch.

        Args:
            log_probs: (B, T', V).
            lens: (B,) real frames; an utterance of 0 frames gives no label.
        """
