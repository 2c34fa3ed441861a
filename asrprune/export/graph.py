"""The model as torch.export traces it: features, CMVN, subsampling, layers and head, with lengths and layers as inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.lengths import min_frames, output_length
from asrprune.export.waveform import Fbank
from asrprune.features.fbank import UNIT_SCALE
from asrprune.model.ctc_model import CtcModel
from asrprune.model.encoder import Context, real_frames


class _Graph(nn.Module):
    """The parts that all forms share. With ``fbank`` the input is samples (B, S), else features (B, T, F) of such samples."""

    def __init__(self, model: CtcModel, fbank: Fbank | None = None) -> None:
        super().__init__()
        self.model, self.fbank = model, fbank
        self.factor = model.config.subsampling.factor

    def embed(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Context]:
        """Return x_0 (B, T', D) and the context. The input may have any length; its samples are in [-1, 1).

        The convolutions need ``min_frames`` feature frames, so frames are added at the end, and their outputs are cut off.
        The mask is always computed: whether a batch has padding is known only when the graph runs.
        """
        features, lens = (x + UNIT_SCALE, lens) if self.fbank is None else self.fbank(x, lens)
        padded = F.pad(features, (0, 0, 0, min_frames(self.factor) - 1))
        embedded, _ = self.model.encoder.embed(self.model.normalise(padded), lens)
        embedded = embedded[:, : torch.sym_max(output_length(features.shape[1], self.factor), 1)]
        lens = output_length(lens, self.factor)
        return embedded, Context(lens, real_frames(lens, embedded.shape[1]))


class AnyDepth(_Graph):
    """All layers; ``keep`` (L,) bool says which of them run."""

    def forward(self, x: Tensor, lens: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Map an input and its lengths (B,) to log-probabilities (B, T', V) and their lengths (B,)."""
        x, context = self.embed(x, lens)
        assert context.mask is not None
        tapped = torch.zeros((), dtype=torch.bool)  # whether the last layer that ran is a tap, for self-conditioning
        for number, layer in enumerate(self.model.encoder.layers, start=1):
            runs = keep[number - 1]
            if self.model.condition is not None:
                x = torch.cond(runs & tapped, self.model.self_condition, torch.clone, (x,))
                tapped = (runs & (number in self.model.config.tap_layers)) | (~runs & tapped)
            x = torch.cond(runs, lambda x, mask, layer=layer: layer(x, mask, 1.0), lambda x, mask: x.clone(), (x, context.mask))
        return self.model.head(x), context.lens


class OneDepth(_Graph):
    """The layers of one sub-model."""

    def __init__(self, model: CtcModel, keep: Sequence[int], fbank: Fbank | None = None) -> None:
        super().__init__(model, fbank)
        self.keep = tuple(keep)

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Map an input and its lengths (B,) to log-probabilities (B, T', V) and their lengths (B,)."""
        x, context = self.embed(x, lens)
        after = 0
        for layer in self.keep:
            x, after = self.model.step(x, layer, context, after), layer
        return self.model.head(x), context.lens
