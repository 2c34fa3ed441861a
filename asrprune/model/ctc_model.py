"""The CTC model: CMVN, encoder, one CTC head that all taps share, and the losses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrprune.config.schema import ModelConfig
from asrprune.model.encoder import Between, Context, Encoded, Encoder
from asrprune.model.head import CtcHead, ctc_losses
from asrprune.runtime.errors import UserError


@dataclass(frozen=True)
class Emissions:
    """Log-probabilities over the vocabulary."""

    log_probs: Tensor  # (B, T', V) float32
    lens: Tensor  # (B,) int64


class CtcModel(nn.Module):
    """An encoder with intermediate CTC (arXiv 2102.03216), stochastic depth, and optional self-conditioning (2104.02724).

    The head is shared by the taps and the last layer, so any kept layers make a complete model.
    """

    cmvn_mean: Tensor
    cmvn_scale: Tensor
    all_take_part = False  # whether every parameter must take part in every backward pass: DDP waits for all of them

    def __init__(self, config: ModelConfig, num_mels: int, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("cmvn_mean", torch.zeros(num_mels))
        self.register_buffer("cmvn_scale", torch.ones(num_mels))
        self.encoder = Encoder(config, num_mels)
        self.head = CtcHead(config.dim, vocab_size)
        self.condition = nn.Linear(vocab_size, config.dim) if config.self_conditioning else None
        self.apply(_initialise)
        self.encoder.initialise()

    def set_cmvn(self, mean: Tensor, scale: Tensor) -> None:
        """Global CMVN, (F,) each: features become (x - mean) * scale."""
        self.cmvn_mean.copy_(mean)
        self.cmvn_scale.copy_(scale)

    def normalise(self, features: Tensor) -> Tensor:
        """CMVN on (B, T, F).

        Raises:
            UserError: the features are not as wide as the model's.
        """
        if features.shape[-1] != len(self.cmvn_mean):
            raise UserError(
                f"the features have {features.shape[-1]} filters, but the model's had {len(self.cmvn_mean)}; compute them"
                " with its config (stage 2, fbank)"
            )
        return (features - self.cmvn_mean) * self.cmvn_scale

    def encode(
        self,
        features: Tensor,
        lens: Tensor,
        keep: Sequence[int] | None = None,
        taps: Sequence[int] = (),
        scales: Sequence[float] | None = None,
    ) -> Encoded:
        """(B, T, F) normalised features -> the encoder's stream, with this model's self-conditioning."""
        return self.encoder(features, lens, keep, taps, scales, self._between)

    def embed(self, features: Tensor, lens: Tensor) -> tuple[Tensor, Context]:
        """Raw (B, T, F) features and (B,) frame counts -> the stream x_0 (B, T', D), and what all layers share."""
        x, lens = self.encoder.embed(self.normalise(features), lens)
        return x, self.encoder.context(lens, x.shape[1])

    def step(self, x: Tensor, layer: int, context: Context, after: int) -> Tensor:
        """Run a layer on the stream (B, T', D) after the kept layer ``after``, with this model's self-conditioning."""
        return self.encoder.step(x, layer, context, after=after, between=self._between)

    def forward(
        self,
        features: Tensor,
        lens: Tensor,
        labels: Tensor,
        label_lens: Tensor,
        keep: Sequence[int] | None = None,
        scales: Sequence[float] | None = None,
        depth: int | None = None,
    ) -> Tensor:
        """CTC losses of a training step, summed over its utterances: (E,), one for each exit up to ``depth``.

        Args:
            features: (B, T, F), normalised (and augmented).
            lens: (B,) feature frames.
            labels: (B, U) int64, padded; ``label_lens`` (B,) says how far they are real.
            keep: the layers that stochastic depth runs in this step.
            scales: c_l of every layer.
            depth: the exit at which a truncated step ends; None: the last layer. ``keep`` has no layer above it.
        """
        exits = [exit for exit in self.config.exits if depth is None or exit <= depth]
        encoded = self.encode(features, lens, keep, exits, scales)
        streams = torch.cat([encoded.taps[exit] for exit in exits])  # one head call for all: (E * B, T', D)
        losses = ctc_losses(self.head(streams), encoded.lens, labels, label_lens)
        return losses.view(len(exits), -1).sum(dim=1) + self._touch(keep)

    def total(self, losses: Tensor) -> Tensor:
        """The weighted mean of the losses of the lowest exits, as many as there are; ``losses`` as ``forward`` returns them.

        With one weight w for all taps, and all exits: (1 - w) * CTC of the last layer + w * mean over the taps.
        """
        weights = torch.tensor(self.config.exit_weights[: len(losses)], device=losses.device)
        return (weights * losses).sum() / weights.sum()

    @property
    def _between(self) -> Between | None:
        return None if self.condition is None else self._self_condition

    def _self_condition(self, x: Tensor, after: int) -> Tensor:
        """Add Linear(softmax(CTC logits)) to the stream (B, T', D) on its way from a tap to the next kept layer."""
        assert self.condition is not None
        return x + self.condition(self.head(x).exp()) if after in self.config.tap_layers else x

    def _touch(self, keep: Sequence[int] | None) -> Tensor | float:
        """Zero times the parameters that a step may leave out: skipped layers, and self-conditioning if no tap is run."""
        if not self.all_take_part:
            return 0.0
        parts = [layer for number, layer in enumerate(self.encoder.layers, start=1) if keep is not None and number not in keep]
        parts += [] if self.condition is None else [self.condition]
        return 0.0 * sum((p.sum() for part in parts for p in part.parameters()), torch.zeros(()))


def num_params(model: nn.Module, keep: Sequence[int] | None = None) -> int:
    """Parameters of the sub-model of the kept layers (None: all)."""
    total = sum(p.numel() for p in model.parameters())
    if keep is None:
        return total
    assert isinstance(model, CtcModel)
    skipped = [layer for number, layer in enumerate(model.encoder.layers, start=1) if number not in keep]
    return total - sum(p.numel() for layer in skipped for p in layer.parameters())


def _initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as in ESPnet's recipes (`init: xavier_uniform`)."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
