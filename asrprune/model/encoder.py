"""The encoder, with the only code that runs a layer: training, SVCCA, search, pruned decoding and benchmarks use it."""

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
from asrprune.model.masks import padding_mask
from asrprune.model.subsampling import make_subsampling
from asrprune.model.transformer import sinusoids
from asrprune.runtime.errors import UserError


@dataclass(frozen=True)
class Encoded:
    """The output of the encoder."""

    x: Tensor  # (B, T', D), the residual stream after the last kept layer, before the norm of the head
    lens: Tensor  # (B,) int64: real frames of each utterance
    taps: dict[int, Tensor]  # layer -> (B, T', D), the stream after that layer (0: before the first)


@dataclass(frozen=True)
class Context:
    """Lengths and mask of a batch, shared by all layers and computed once, because computing the mask makes a GPU wait."""

    lens: Tensor  # (B,) int64: real frames of each utterance
    mask: Tensor | None  # (B, 1, 1, T') bool, True on real frames; None without padding

    def repeat(self, times: int) -> "Context":
        """Return the context of ``times`` stacked copies of the batch."""
        return Context(self.lens.repeat(times), None if self.mask is None else self.mask.repeat(times, 1, 1, 1))


Between = Callable[[Tensor, int], Tensor]  # (stream, layer that it comes from) -> input of the next kept layer


class Encoder(nn.Module):
    """The encoder: subsampling, positions and L layers of one type."""

    def __init__(self, config: ModelConfig, num_mels: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.dropout = config.dropout
        self.factor = config.subsampling.factor
        self.subsampling = make_subsampling(config, num_mels)
        layers = [_layer(config) for _ in range(config.num_layers)]
        self.layers = nn.ModuleList(layers)
        self.holds_pairs = layers[0].holds_pairs
        # None: the layers use relative positions, and no sinusoids are added.
        self.position_scale: float | None = getattr(config.layer, "position_scale", None)

    def initialise(self) -> None:
        """Let each layer replace Xavier weights and zero biases where it needs other values."""
        for layer in self.layers:
            cast(Layer, layer).initialise(len(self.layers))

    def embed(self, features: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_0 (B, T', D), subsampled (B, T, F) features plus positions, and T' of each utterance.

        Utterances shorter than ``min_frames`` have T' = 0. A batch of only such utterances is padded for the convolutions.
        """
        if (lacking := min_frames(self.factor) - features.shape[1]) > 0:
            features = F.pad(features, (0, 0, 0, lacking))
        x = self.subsampling(features)
        if self.position_scale is not None:
            positions = torch.arange(x.shape[1], dtype=torch.float32, device=x.device)
            x = x + self.position_scale * sinusoids(positions, self.dim)
        return dropout(x, self.dropout, self.training), output_length(lens, self.factor)

    def context(self, lens: Tensor, frames: int) -> Context:
        """Make the context of a batch of ``frames`` encoder frames, of which ``lens`` (B,) are real."""
        return Context(lens, padding_mask(lens, frames))

    def step(
        self, x: Tensor, layer: int, context: Context, scale: float = 1.0, after: int = 0, between: Between | None = None
    ) -> Tensor:
        """Run one layer. No other code runs a layer.

        Args:
            x: (B, T', D), the stream after layer ``after``.
            layer: number of the layer, from 1.
            context: the context of the batch.
            scale: factor of the residual branches of the layer.
            after: the last layer that ran on ``x``; 0: none.
            between: a function that changes the stream between two layers (self-conditioning).
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
        """Run the kept layers on x_0, in a loop over ``step``.

        Args:
            x: (B, T', D).
            context: the context of the batch.
            keep: the layers to run, from 1, ascending; None: all. Skipped layers are the identity.
            taps: the layers whose output is returned, 0..L; for a skipped layer this is its input.
            scales: factor of the residual branches of each layer 1..L; None: 1.
            between: see ``step``. It is not applied after the last kept layer, as in the training of a tap.
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
        """Call ``embed`` and ``run`` for (B, T, F) features and (B,) frame counts."""
        x, lens = self.embed(features, lens)
        return self.run(x, self.context(lens, x.shape[1]), keep, taps, scales, between)

    def check_keep(self, keep: Sequence[int] | None) -> Sequence[int]:
        """Return ``keep``, or all layers for None; raise a ``UserError`` if it is not ascending or not in 1..L."""
        if keep is None:
            return range(1, len(self.layers) + 1)
        if list(keep) != sorted(set(keep)) or any(not 1 <= layer <= len(self.layers) for layer in keep):
            raise UserError(f"layers to keep must ascend and lie in 1..{len(self.layers)}, got {list(keep)}")
        return keep


def _layer(config: ModelConfig) -> Layer:
    """Make a layer by ``make_layer`` of the module that has the name of the layer type."""
    return cast(Layer, import_module(f"asrprune.model.{config.layer.type}").make_layer(config))
