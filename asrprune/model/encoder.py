"""The encoder, and the ONE loop over its layers: training, SVCCA, search, pruned decoding and benchmarks all call it."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.lengths import min_frames, output_length
from asrprune.config.schema import ModelConfig
from asrprune.model.conformer import ConformerLayer
from asrprune.model.dropout import dropout
from asrprune.model.ebranchformer import EBranchformerLayer
from asrprune.model.layer import Layer
from asrprune.model.subsampling import make_subsampling
from asrprune.model.transformer import NORM_EPS, TransformerLayer, sinusoids
from asrprune.runtime.errors import UserError


@dataclass(frozen=True)
class Encoded:
    """What the encoder returns."""

    x: Tensor  # (B, T', D): the residual stream after the last kept layer, not normalised
    lens: Tensor  # (B,) int64: real frames of each utterance
    taps: dict[int, Tensor]  # layer -> (B, T', D), the stream after that layer (0: before the first)


class Condition(Protocol):
    """Self-conditioning: what is added to the stream between some layers."""

    @property
    def layers(self) -> Sequence[int]:
        """After which it is added."""

    def __call__(self, x: Tensor) -> Tensor:
        """(B, T', D) stream -> (B, T', D), the term to add."""


class Encoder(nn.Module):
    """Subsampling, positions, L layers of one type, and the final LayerNorm that all taps share."""

    def __init__(self, config: ModelConfig, num_mels: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.dropout = config.dropout
        self.factor = config.subsampling.factor
        self.subsampling = make_subsampling(config, num_mels)
        layers = [_layer(config) for _ in range(config.num_layers)]
        self.layers = nn.ModuleList(layers)
        self.position_scale = config.position_scale
        self.absolute_positions = layers[0].absolute_positions
        self.holds_pairs = layers[0].holds_pairs
        self.final_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)

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
        if self.absolute_positions:
            positions = torch.arange(x.shape[1], dtype=torch.float32, device=x.device)
            x = x + self.position_scale * sinusoids(positions, self.dim)
        return dropout(x, self.dropout, self.training), output_length(lens, self.factor)

    def run(
        self,
        x: Tensor,
        lens: Tensor,
        keep: Sequence[int] | None = None,
        taps: Sequence[int] = (),
        scales: Sequence[float] | None = None,
        condition: Condition | None = None,
        after: int = 0,
        mask: Tensor | EllipsisType | None = ...,
    ) -> Encoded:
        """The loop: run the kept layers over x_0, or over the stream after any layer below the first kept one.

        Args:
            x: (B, T', D).
            lens: (B,) real frames.
            keep: ascending 1-based layers to run; None: all. The others are the identity.
            taps: layers whose output is wanted, 0..L; a layer that is not kept yields the stream that passes it.
            scales: factor of the residual branches of each layer 1..L; None: 1.
            condition: self-conditioning; it is added on the way from a kept layer of its own to the next kept layer, so the
                last kept layer, whichever it is, gives out what its tap was trained on.
            after: the last layer that ``x`` went through; 0: none.
            mask: what ``padding_mask`` made of ``lens``, for calls that share it: to make it is to wait for a GPU.
        """
        keep = self.check_keep(keep)
        mask = padding_mask(lens, x.shape[1]) if mask is ... else mask
        outputs = {0: x} if 0 in taps else {}
        kept = set(keep)
        for number, layer in enumerate(self.layers, start=1):
            if number in kept:
                if condition is not None and after in condition.layers:
                    x = x + condition(x)
                x = layer(x, mask, scales[number - 1] if scales else 1.0)
                after = number
            if number in taps:
                outputs[number] = x
        return Encoded(x, lens, outputs)

    def forward(
        self,
        features: Tensor,
        lens: Tensor,
        keep: Sequence[int] | None = None,
        taps: Sequence[int] = (),
        scales: Sequence[float] | None = None,
        condition: Condition | None = None,
    ) -> Encoded:
        """``embed``, then ``run``: (B, T, F) features and (B,) frame counts -> ``Encoded``."""
        x, lens = self.embed(features, lens)
        return self.run(x, lens, keep, taps, scales, condition)

    def check_keep(self, keep: Sequence[int] | None) -> Sequence[int]:
        """All layers for None; a ``UserError`` if ``keep`` is not ascending or has a layer that the model lacks."""
        if keep is None:
            return range(1, len(self.layers) + 1)
        if list(keep) != sorted(set(keep)) or any(not 1 <= layer <= len(self.layers) for layer in keep):
            raise UserError(f"layers to keep must ascend and lie in 1..{len(self.layers)}, got {list(keep)}")
        return keep


def _layer(config: ModelConfig) -> Layer:
    sizes, rates = (config.dim, config.heads, config.ffn), (config.dropout, config.attention_dropout)
    if config.layer == "transformer":
        return TransformerLayer(*sizes, *rates)
    if config.layer == "conformer":
        return ConformerLayer(*sizes, config.conv_kernel, config.conv_norm, *rates)
    return EBranchformerLayer(*sizes, config.cgmlp or 4 * config.dim, config.conv_kernel, config.merge_kernel, *rates)


def padding_mask(lens: Tensor, frames: int) -> Tensor | None:
    """(B, 1, 1, T') bool, True on real frames; None where there is no padding, which is the faster path in attention.

    An utterance without any real frame attends to all: its output is never used, and a row of -inf would be NaN.
    """
    return None if bool((lens >= frames).all()) else real_frames(lens, frames)


def real_frames(lens: Tensor, frames: int) -> Tensor:
    """The mask of ``padding_mask``, whether there is padding or not."""
    real = torch.arange(frames, device=lens.device) < lens.unsqueeze(1)
    return (real | (lens == 0).unsqueeze(1))[:, None, None, :]
