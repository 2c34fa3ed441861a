"""The CTC head that all taps and depths share, and the losses of its emissions."""

from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.data.units import BLANK
from asrprune.model.masks import real_frames
from asrprune.model.transformer import NORM_EPS


class CtcHead(nn.Module):
    """The CTC head: LayerNorm, a linear layer and log-softmax. All exits share it."""

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.project = nn.Linear(dim, vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map the stream (..., D) to float32 log-probabilities (..., V)."""
        return F.log_softmax(self.project(self.norm(x)).float(), dim=-1)


def ctc_losses(log_probs: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
    """Compute the CTC loss of each utterance, for one or several stacked sets of emissions.

    Args:
        log_probs: (N * B, T', V), N sets of emissions of the same B utterances.
        lens: (B,) emission frames; labels: (B, U); label_lens: (B,).

    Returns:
        (N * B,) losses; 0 for utterances with too few frames, which training leaves out.
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


def consistency_losses(log_probs: Tensor, lens: Tensor) -> Tensor:
    """Compute how much the emissions of two augmented views of the same utterances differ (CR-CTC, arXiv 2410.05101).

    This is the mean of KL(a || b) and KL(b || a). The first view in each KL is a constant, so each view learns from the other.

    Args:
        log_probs: (N * 2 * B, T', V), N sets of emissions; each has the first views of B utterances, then the second ones.
        lens: (B,) emission frames.

    Returns:
        (N * B,) divergences, summed over the frames.
    """
    views = log_probs.unflatten(0, (-1, 2, len(lens)))
    others = views.detach().flip(1)
    divergences = (others.exp() * (others - views)).sum(dim=-1).mean(dim=1)  # (N, B, T')
    return (divergences * real_frames(lens, log_probs.shape[1])).sum(dim=-1).flatten()
