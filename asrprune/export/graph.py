"""The model as torch.export traces it: features, CMVN, subsampling, layers and head, with lengths and layers as inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.lengths import min_frames, output_length
from asrprune.export.waveform import Fbank
from asrprune.features.fbank import UNIT_SCALE
from asrprune.infer.early_exit import confidence
from asrprune.model.ctc_model import CtcModel, Emissions
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
        tapped = torch.zeros((), dtype=torch.bool)
        for layer in range(1, self.model.config.num_layers + 1):
            x, tapped = self.step_if(keep[layer - 1], x, layer, context, tapped)
        return self.model.head(x), context.lens

    def step_if(self, runs: Tensor, x: Tensor, layer: int, context: Context, tapped: Tensor) -> tuple[Tensor, Tensor]:
        """Run a layer if ``runs`` () bool.

        ``tapped`` () bool: whether the last layer that ran is a tap, for self-conditioning; it is returned, too.
        """
        assert context.mask is not None
        module = self.model.encoder.layers[layer - 1]
        if self.model.condition is not None:
            x = torch.cond(runs & tapped, self.model.self_condition, torch.clone, (x,))
            tapped = (runs & (layer in self.model.config.tap_layers)) | (~runs & tapped)
        x = torch.cond(runs, lambda x, mask: module(x, mask, 1.0), lambda x, mask: x.clone(), (x, context.mask))
        return x, tapped


class EarlyExit(AnyDepth):
    """All layers. Those in ``keep`` run until each utterance has reached the threshold of an exit; ``thresholds`` (E - 1,).

    An utterance that has ended keeps its stream, while the others of the batch go on. A threshold above 1 is never reached;
    its exit computes nothing. The last layer has no threshold.
    """

    def __init__(self, model: CtcModel, exits: Sequence[int], fbank: Fbank | None = None) -> None:
        super().__init__(model, fbank)
        self.exits = tuple(exits)

    def forward(  # type: ignore[override]
        self, x: Tensor, lens: Tensor, keep: Tensor, thresholds: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map an input and its lengths (B,) to log-probabilities (B, T', V), their lengths, and numbers of layers (B,)."""
        x, context = self.embed(x, lens)
        done = torch.zeros_like(context.lens, dtype=torch.bool)
        ran, tapped = torch.zeros_like(context.lens), torch.zeros((), dtype=torch.bool)
        for layer in range(1, self.exits[-1] + 1):
            runs = keep[layer - 1] & ~done.all()
            grown, tapped = self.step_if(runs, x, layer, context, tapped)
            x = torch.where(done[:, None, None], x, grown)
            ran = ran + (keep[layer - 1] & ~done)
            if layer in self.exits[:-1]:
                threshold = thresholds[self.exits.index(layer)]
                arguments = (x, context.lens, done, threshold)
                done = torch.cond(
                    runs & (threshold <= 1.0), self._end, lambda x, lens, done, threshold: done.clone(), arguments
                )
        return self.model.head(x), context.lens, ran

    def _end(self, x: Tensor, lens: Tensor, done: Tensor, threshold: Tensor) -> Tensor:
        """Return which utterances have ended after an exit (B,), for the stream (B, T', D)."""
        return done | (confidence(Emissions(self.model.head(x), lens)) >= threshold)


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
