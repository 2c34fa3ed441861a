"""The emissions of one sub-model by the encoder's own loop: what a runner's prefix tree must give, too."""

from collections.abc import Sequence

from torch import Tensor

from asrprune.model.ctc_model import CtcModel, Emissions


def emit(model: CtcModel, features: Tensor, lens: Tensor, keep: Sequence[int] | None = None) -> Emissions:
    """Raw (B, T, F) features and (B,) lengths -> log-probabilities of the sub-model of the kept layers."""
    encoded = model.encode(model.normalise(features), lens, keep)
    return Emissions(model.head(encoded.x), encoded.lens)
