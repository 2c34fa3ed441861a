"""The interface of a model to a recogniser. Trained models run in torch, exported ones in onnxruntime."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from asrprune.config.schema import FrontendConfig
from asrprune.data.units import Units
from asrprune.decode.decoder import Decoder
from asrprune.decode.windows import Timing
from asrprune.experiment.plan import Keep, Plan
from asrprune.features.fbank import Read


class Model(Protocol):
    """A model that can run at several depths."""

    word_tail_s: float  # the longest time that a word lasts after its last label
    batches: bool  # whether a batch gives the same outputs as its utterances one by one

    @property
    def num_layers(self) -> int:
        """The number of layers of the full model."""

    @property
    def default(self) -> Keep:
        """The layers that run if none are chosen."""

    @property
    def plan(self) -> Plan:
        """The layers of each depth."""

    @property
    def frontend(self) -> FrontendConfig:
        """The settings of the features."""

    @property
    def timing(self) -> Timing:
        """The duration of frames, and the windows of long recordings."""

    @property
    def units(self) -> Units:
        """The text of each label."""

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise a ``UserError`` unless the model can run these layers."""

    def decoder(self, given: Mapping[str, Any]) -> Decoder:
        """Make the decoder of the model; numbers in ``given`` replace its own.

        Raises:
            UserError: the numbers do not fit together, or the language model cannot be read.
        """

    def features(self, read: Read, num_samples: int, start: int, stop: int) -> np.ndarray:
        """Compute the feature frames ``start`` to ``stop`` - 1 (T, F) of a recording; see ``fbank_of_part``.

        A model that takes samples returns those of the frames: (S,).
        """

    def emissions(self, batch: Sequence[np.ndarray], keep: Keep) -> list[np.ndarray]:
        """Compute log-probabilities (T', V) of each utterance, for what ``features`` returns of it."""

    def thresholds(self, given: float | None, decoder: str) -> Sequence[float]:
        """Return how sure each exit but the last one must be for early exit: 0..1, or more than 1 for never.

        Args:
            given: a number for all exits; None: the numbers that `asrprune early-exit` chose.
            decoder: the identity of the decoder, which should be the one with which they were chosen, if that is known.

        Raises:
            UserError: the model has one exit only, or no numbers were chosen for it.
        """

    def emissions_until_sure(self, features: np.ndarray, thresholds: Sequence[float]) -> tuple[np.ndarray, int]:
        """Compute log-probabilities (T', V) of one utterance at the first exit that is sure enough; return its layer, too."""

    def params_m(self, keep: Keep) -> float:
        """Return the number of parameters of a sub-model, in millions; ``keep`` must be in the plan."""

    def memory_mb(self, keep: Keep) -> float:
        """Return the size of the weights of a sub-model, in 10^6 bytes; ``keep`` must be in the plan."""
