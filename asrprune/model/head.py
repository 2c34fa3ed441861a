"""The CTC head that all taps and depths share."""

from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.model.transformer import NORM_EPS

BLANK = 0


class CtcHead(nn.Module):
    """LayerNorm, a linear layer and log-softmax: because every exit shares them, any kept layers make a complete model."""

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.project = nn.Linear(dim, vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) stream -> (..., V) float32 log-probabilities."""
        return F.log_softmax(self.project(self.norm(x)).float(), dim=-1)


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
