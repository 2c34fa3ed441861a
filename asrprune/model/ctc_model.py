"""The CTC model: CMVN, encoder, one CTC head that all taps share, and the losses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrprune.config.schema import ModelConfig
from asrprune.model.encoder import Between, Context, Encoded, Encoder
from asrprune.model.head import CtcHead, consistency_losses, ctc_losses
from asrprune.runtime.errors import UserError


@dataclass(frozen=True)
class Emissions:
    """The output of the model: log-probabilities over the vocabulary."""

    log_probs: Tensor  # (B, T', V) float32
    lens: Tensor  # (B,) int64, encoder frames


class CtcModel(nn.Module):
    """An encoder with intermediate CTC (arXiv 2102.03216), stochastic depth, and optional self-conditioning (2104.02724).

    Taps and last layer share the head, so any subset of the layers is a complete model.
    """

    cmvn_mean: Tensor
    cmvn_scale: Tensor

    def __init__(self, config: ModelConfig, num_mels: int, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("cmvn_mean", torch.zeros(num_mels))
        self.register_buffer("cmvn_scale", torch.ones(num_mels))
        self.encoder = Encoder(config, num_mels)
        self.head = CtcHead(config.dim, vocab_size)
        self.condition = nn.Linear(vocab_size, config.dim) if config.self_conditioning else None
        self.factor: int = self.encoder.factor
        self.holds_pairs = self.encoder.holds_pairs
        self.apply(_initialise)
        self.encoder.initialise()

    @property
    def layers(self) -> nn.ModuleList:
        """The layers of the encoder."""
        return self.encoder.layers

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.cmvn_mean.device

    def set_cmvn(self, mean: Tensor, scale: Tensor) -> None:
        """Set global CMVN, (F,) each: features become (x - mean) * scale."""
        self.cmvn_mean.copy_(mean)
        self.cmvn_scale.copy_(scale)

    def normalise(self, features: Tensor) -> Tensor:
        """Apply CMVN to (B, T, F).

        Raises:
            UserError: the features have another number of filters than the model.
        """
        if features.shape[-1] != len(self.cmvn_mean):
            raise UserError(
                f"the features have {features.shape[-1]} filters, but the model was trained with {len(self.cmvn_mean)};"
                " compute the features with the config of the model (stage 2, fbank)"
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
        """Run the encoder, with self-conditioning, on (B, T, F) normalised features."""
        return self.encoder(features, lens, keep, taps, scales, self._between)

    def embed(self, features: Tensor, lens: Tensor) -> tuple[Tensor, Context]:
        """Return the stream x_0 (B, T', D) and the context of the layers, for raw (B, T, F) features and (B,) frame counts."""
        x, lens = self.encoder.embed(self.normalise(features), lens)
        return x, self.encoder.context(lens, x.shape[1])

    def step(self, x: Tensor, layer: int, context: Context, after: int) -> Tensor:
        """Run one layer, with self-conditioning, on the stream (B, T', D) that comes from the kept layer ``after``."""
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
        consistency: float = 0.0,
    ) -> Tensor:
        """Compute the losses of a training step, summed over utterances: (E,), one for each exit up to ``depth``.

        This is the CTC loss; with two views of each utterance the mean of both CTC losses + ``consistency`` * their divergence.

        Args:
            features: (B, T, F), normalised (and augmented); or (2 * B, T, F): the first views of all utterances, then the
                second ones.
            lens: (B,) feature frames.
            labels: (B, U) int64, padded; ``label_lens`` (B,) are their lengths.
            keep: the layers that stochastic depth runs in this step.
            scales: c_l, the factor of the branches of each layer.
            depth: the exit at which a truncated step ends; None: the last layer. ``keep`` must have no layer above it.
            consistency: weight of the divergence between two views.
        """
        views = len(features) // len(lens)
        exits = [exit for exit in self.config.exits if depth is None or exit <= depth]
        encoded = self.encode(features, lens.repeat(views), keep, exits, scales)
        streams = torch.cat([encoded.taps[exit] for exit in exits])  # one call of the head for all exits: (E * B, T', D)
        log_probs, lens = self.head(streams), encoded.lens[: len(lens)]
        losses = ctc_losses(log_probs, lens, labels, label_lens).view(len(exits), -1).sum(dim=1) / views
        if views == 2:
            losses = losses + consistency * consistency_losses(log_probs, lens).view(len(exits), -1).sum(dim=1)
        return losses

    def total(self, losses: Tensor) -> Tensor:
        """Return the weighted mean of ``losses``, which ``forward`` returns for the lowest exits.

        For all exits and tap weight w this is (1 - w) * CTC loss of the last layer + w * mean CTC loss of the taps.
        """
        weights = torch.tensor(self.config.exit_weights[: len(losses)], device=losses.device)
        return (weights * losses).sum() / weights.sum()

    @property
    def _between(self) -> Between | None:
        if self.condition is None:
            return None
        return lambda x, after: self.self_condition(x) if after in self.config.tap_layers else x

    def self_condition(self, x: Tensor) -> Tensor:
        """Add Linear(softmax(CTC logits)) to the stream (B, T', D)."""
        assert self.condition is not None
        return x + self.condition(self.head(x).exp())


def num_params(model: CtcModel, keep: Sequence[int] | None = None) -> int:
    """Return the number of parameters of the sub-model with the kept layers (None: all)."""
    skipped = [layer for number, layer in enumerate(model.layers, start=1) if keep is not None and number not in keep]
    return sum(p.numel() for p in model.parameters()) - sum(p.numel() for layer in skipped for p in layer.parameters())


def _initialise(module: nn.Module) -> None:
    """Set Xavier-uniform weights and zero biases, as in ESPnet's recipes (`init: xavier_uniform`)."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
