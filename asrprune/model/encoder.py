"""The encoder, and the ONE step through a layer: training, SVCCA, search, pruned decoding and benchmarks all take it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.lengths import min_frames, output_length
from asrprune.config.schema import ModelConfig
from asrprune.model.dropout import dropout
from asrprune.model.layer import Layer
from asrprune.model.subsampling import make_subsampling
from asrprune.model.transformer import sinusoids
from asrprune.runtime.errors import UserError


@dataclass(frozen=True)
class Encoded:
    """The result of the encoder."""

    x: Tensor  # (B, T', D): the residual stream after the last kept layer, not normalised
    lens: Tensor  # (B,) int64: real frames of each utterance
    taps: dict[int, Tensor]  # layer -> (B, T', D), the stream after that layer (0: before the first)


@dataclass(frozen=True)
class Context:
    """Facts about a batch that all layers share: they are found out once, as the mask makes a GPU wait."""

    lens: Tensor  # (B,) int64: real frames of each utterance
    mask: Tensor | None  # (B, 1, 1, T') bool, True on real frames; None where there is no padding

    def repeat(self, times: int) -> "Context":
        """The context of the same batch ``times`` times over, stacked."""
        return Context(self.lens.repeat(times), None if self.mask is None else self.mask.repeat(times, 1, 1, 1))


Between = Callable[[Tensor, int], Tensor]  # the stream, and the layer that it comes from, on its way to the next kept layer


class Encoder(nn.Module):
    """Subsampling, positions and L layers of one type."""

    def __init__(self, config: ModelConfig, num_mels: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.dropout = config.dropout
        self.factor = config.subsampling.factor
        self.subsampling = make_subsampling(config, num_mels)
        layers = [_layer(config) for _ in range(config.num_layers)]
        self.layers = nn.ModuleList(layers)
        self.holds_pairs = layers[0].holds_pairs
        # None: the layers know relative positions, and no others are added.
        self.position_scale: float | None = getattr(config.layer, "position_scale", None)

    def initialise(self) -> None:
        """Let each layer change what should not start with Xavier weights and zero biases."""
        for layer in self.layers:
            cast(Layer, layer).initialise(len(self.layers))

    def embed(self, features: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """x_0: (B, T, F) features -> (B, T', D) subsampled, with any positions; and T' of each utterance.

        Utterances shorter than ``min_frames`` have T' = 0; a batch of nothing else is padded so that the convolutions run.
        """
        if (lacking := min_frames(self.factor) - features.shape[1]) > 0:
            features = F.pad(features, (0, 0, 0, lacking))
        x = self.subsampling(features)
        if self.position_scale is not None:
            positions = torch.arange(x.shape[1], dtype=torch.float32, device=x.device)
            x = x + self.position_scale * sinusoids(positions, self.dim)
        return dropout(x, self.dropout, self.training), output_length(lens, self.factor)

    def context(self, lens: Tensor, frames: int) -> Context:
        """Make what the layers need to know of a batch of streams of ``frames`` frames, ``lens`` (B,) of which are real."""
        return Context(lens, padding_mask(lens, frames))

    def step(
        self, x: Tensor, layer: int, context: Context, scale: float = 1.0, after: int = 0, between: Between | None = None
    ) -> Tensor:
        """Run one layer. Whatever runs a layer goes through here.

        Args:
            x: (B, T', D), the stream after layer ``after`` (0: before the first).
            layer: which one, from 1.
            context: of the batch.
            scale: factor of the layer's residual branches.
            after: the last layer that ``x`` went through.
            between: changes the stream on its way between two layers (self-conditioning).
        """
        return self.layers[layer - 1](x if between is None else between(x, after), context.mask, scale)

    def run(
        self,
        x: Tensor,
        context: Context,
        keep: Sequence[int] | None = None,
        taps: Sequence[int] = (),
        scales: Sequence[float] | None = None,
        between: Between | None = None,
    ) -> Encoded:
        """The loop over ``step``: run the kept layers over x_0.

        Args:
            x: (B, T', D).
            context: of the batch.
            keep: ascending 1-based layers to run; None: all. The others are the identity.
            taps: layers whose output is wanted, 0..L; a layer that is not kept yields the stream that passes it.
            scales: factor of the residual branches of each layer 1..L; None: 1.
            between: as ``step``. The last kept layer, whichever it is, gives out what its tap was trained on.
        """
        kept = set(self.check_keep(keep))
        outputs, after = {0: x} if 0 in taps else {}, 0
        for layer in range(1, len(self.layers) + 1):
            if layer in kept:
                x = self.step(x, layer, context, scales[layer - 1] if scales else 1.0, after, between)
                after = layer
            if layer in taps:
                outputs[layer] = x
        return Encoded(x, context.lens, outputs)

    def forward(
        self,
        features: Tensor,
        lens: Tensor,
        keep: Sequence[int] | None = None,
        taps: Sequence[int] = (),
        scales: Sequence[float] | None = None,
        between: Between | None = None,
    ) -> Encoded:
        """``embed``, then ``run``: (B, T, F) features and (B,) frame counts -> ``Encoded``."""
        x, lens = self.embed(features, lens)
        return self.run(x, self.context(lens, x.shape[1]), keep, taps, scales, between)

    def check_keep(self, keep: Sequence[int] | None) -> Sequence[int]:
        """All layers for None; a ``UserError`` if ``keep`` is not ascending or has a layer that the model lacks."""
        if keep is None:
            return range(1, len(self.layers) + 1)
        if list(keep) != sorted(set(keep)) or any(not 1 <= layer <= len(self.layers) for layer in keep):
            raise UserError(f"layers to keep must ascend and lie in 1..{len(self.layers)}, got {list(keep)}")
        return keep


def _layer(config: ModelConfig) -> Layer:
    """A layer of the config's type, which ``make_layer`` of the module of that name makes."""
    return cast(Layer, import_module(f"asrprune.model.{config.layer.type}").make_layer(config))


def padding_mask(lens: Tensor, frames: int) -> Tensor | None:
    """(B, 1, 1, T') bool, True on real frames; None where there is no padding, which is the faster path in attention.

    An utterance without any real frame attends to all: its output is never used, and a row of -inf would be NaN.
    """
    return None if bool((lens >= frames).all()) else real_frames(lens, frames)


def real_frames(lens: Tensor, frames: int) -> Tensor:
    """The mask of ``padding_mask``, whether there is padding or not."""
    real = torch.arange(frames, device=lens.device) < lens.unsqueeze(1)
    return (real | (lens == 0).unsqueeze(1))[:, None, None, :]
