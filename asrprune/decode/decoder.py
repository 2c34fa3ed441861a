"""The interface of a decoder, which turns emissions into labels."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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

    def decode(self, log_probs: Tensor, lens: Tensor) -> list[BestPath]:
        """Decode a batch.

        Args:
            log_probs: (B, T', V).
            lens: (B,) numbers of encoder frames; 0 frames give no labels.
        """
