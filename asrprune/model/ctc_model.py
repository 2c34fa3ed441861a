"""The CTC model: CMVN, encoder, one CTC head that all taps share, and the losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.schema import ModelConfig
from asrprune.model.encoder import Encoded, Encoder
from asrprune.runtime.errors import UserError

BLANK = 0


@dataclass(frozen=True)
class Emissions:
    """Log-probabilities over the vocabulary."""

    log_probs: Tensor  # (B, T', V) float32
    lens: Tensor  # (B,) int64


class CtcModel(nn.Module):
    """An encoder with intermediate CTC (arXiv 2102.03216), stochastic depth, and optional self-conditioning (2104.02724).

    The final LayerNorm and the CTC layer are shared by the taps and the last layer, so any kept layers make a complete model.
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
        self.ctc = nn.Linear(config.dim, vocab_size)
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
        return self.encoder(features, lens, keep, taps, scales, self._conditioner())

    def run(
        self,
        x: Tensor,
        lens: Tensor,
        keep: Sequence[int] | None = None,
        after: int = 0,
        mask: Tensor | EllipsisType | None = ...,
    ) -> Encoded:
        """As ``encode``, from the stream (B, T', D) after the kept layer ``after`` on: what the search needs."""
        return self.encoder.run(x, lens, keep, condition=self._conditioner(), after=after, mask=mask)

    def log_probs(self, x: Tensor) -> Tensor:
        """The head of every tap and depth: (..., D) stream -> (..., V) float32 log-probabilities."""
        return F.log_softmax(self.ctc(self.encoder.final_norm(x)).float(), dim=-1)

    def emit(self, features: Tensor, lens: Tensor, keep: Sequence[int] | None = None) -> Emissions:
        """Raw (B, T, F) features and (B,) lengths -> log-probabilities of the sub-model of the kept layers."""
        encoded = self.encode(self.normalise(features), lens, keep)
        return Emissions(self.log_probs(encoded.x), encoded.lens)

    def emit_taps(self, features: Tensor, lens: Tensor, taps: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """Raw (B, T, F) features -> log-probabilities (B, T', V) after each tap, then the last layer; and lengths (B,)."""
        encoded = self.encode(self.normalise(features), lens, taps=taps)
        return [self.log_probs(stream) for stream in (*(encoded.taps[tap] for tap in taps), encoded.x)], encoded.lens

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
        losses = ctc_losses(self.log_probs(streams), encoded.lens, labels, label_lens)
        return losses.view(len(exits), -1).sum(dim=1) + self._touch(keep)

    def total(self, losses: Tensor) -> Tensor:
        """The weighted mean of the losses of the lowest exits, as many as there are; ``losses`` as ``forward`` returns them.

        With one weight w for all taps, and all exits: (1 - w) * CTC of the last layer + w * mean over the taps.
        """
        weights = torch.tensor(self.config.exit_weights[: len(losses)], device=losses.device)
        return (weights * losses).sum() / weights.sum()

    def _conditioner(self) -> "Conditioner | None":
        return None if self.condition is None else Conditioner(self)

    def _touch(self, keep: Sequence[int] | None) -> Tensor | float:
        """Zero times the parameters that a step may leave out: skipped layers, and self-conditioning if no tap is run."""
        if not self.all_take_part:
            return 0.0
        parts = [layer for number, layer in enumerate(self.encoder.layers, start=1) if keep is not None and number not in keep]
        parts += [] if self.condition is None else [self.condition]
        return 0.0 * sum((p.sum() for part in parts for p in part.parameters()), torch.zeros(()))


class Conditioner:
    """Self-conditioning: (B, T', D) -> Linear(softmax(CTC logits)), the term that is added to the stream."""

    def __init__(self, model: CtcModel) -> None:
        self.model = model
        self.layers = model.config.tap_layers

    def __call__(self, x: Tensor) -> Tensor:
        assert self.model.condition is not None
        return self.model.condition(self.model.log_probs(x).exp())


def ctc_losses(log_probs: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
    """CTC loss of each utterance, for one or several stacked sets of emissions.

    Args:
        log_probs: (N * B, T', V); N sets of the same B utterances.
        lens: (B,) emission frames; labels: (B, U); label_lens: (B,).

    Returns:
        (N * B,). Infeasible utterances give 0 (training sets are filtered by the exact rule beforehand).
    """
    times = log_probs.shape[0] // lens.shape[0]
    return F.ctc_loss(
        log_probs.transpose(0, 1),
        labels.repeat(times, 1),
        lens.repeat(times),
        label_lens.repeat(times),
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )


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
