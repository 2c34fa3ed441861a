"""The feed-forward module of Conformer and E-Branchformer layers."""

from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.model.dropout import dropout


class FeedForward(nn.Module):
    """A feed-forward network with one hidden layer and swish."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T', D) to (B, T', D)."""
        return self.contract(dropout(F.silu(self.expand(x)), self.dropout, self.training))
