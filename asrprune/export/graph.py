"""The parts of an exported graph as torch.export traces them: front end, layer, self-conditioning, head, exit."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.lengths import min_frames, output_length
from asrprune.export.waveform import Fbank
from asrprune.features.fbank import UNIT_SCALE
from asrprune.infer.early_exit import confidence
from asrprune.model.ctc_model import CtcModel, Emissions
from asrprune.model.masks import attention_mask


class FrontEnd(nn.Module):
    """All before the first layer. With ``fbank`` the input is samples (B, S), else features (B, T, F) of such samples."""

    def __init__(self, model: CtcModel, fbank: Fbank | None = None) -> None:
        super().__init__()
        self.model, self.fbank = model, fbank
        self.factor = model.config.subsampling.factor

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x_0 (B, T', D), its lengths (B,) and the mask (B, 1, 1, T').

        The input may have any length; its samples are in [-1, 1). The convolutions need ``min_frames`` feature frames, so
        frames are added at the end, and their outputs are cut off. The mask is always computed: whether a batch has padding
        is known only when the graph runs.
        """
        features, lens = (x + UNIT_SCALE, lens) if self.fbank is None else self.fbank(x, lens)
        padded = F.pad(features, (0, 0, 0, min_frames(self.factor) - 1))
        embedded, _ = self.model.encoder.embed(self.model.normalise(padded), lens)
        embedded = embedded[:, : torch.sym_max(output_length(features.shape[1], self.factor), 1)]
        lens = output_length(lens, self.factor)
        return embedded, lens, attention_mask(lens, embedded.shape[1])


class Step(nn.Module):
    """One layer, which maps the stream (B, T', D) to the stream; with the mask (B, 1, 1, T')."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Run the layer."""
        return self.layer(x, mask, 1.0)


class _OfModel(nn.Module):
    def __init__(self, model: CtcModel) -> None:
        super().__init__()
        self.model = model


class Head(_OfModel):
    """The head, which maps the stream (B, T', D) to log-probabilities (B, T', V)."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the head."""
        return self.model.head(x)


class Condition(_OfModel):
    """Self-conditioning after a tap, which maps the stream (B, T', D) to the stream."""

    def forward(self, x: Tensor) -> Tensor:
        """Add what the head says to the stream."""
        return self.model.self_condition(x)


class Exit(_OfModel):
    """An exit with a threshold."""

    def forward(self, x: Tensor, lens: Tensor, done: Tensor, threshold: Tensor) -> Tensor:
        """Return which utterances of the stream (B, T', D) have ended after this exit (B,), or before it: ``done`` (B,)."""
        return done | (confidence(Emissions(self.model.head(x), lens)) >= threshold)
