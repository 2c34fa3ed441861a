"""One Conformer layer (arXiv 2005.08100) as in ESPnet: half-step FFNs, relative positions, convolution module."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.schema import ConformerConfig, ModelConfig
from asrprune.model.depthwise import convolve, depthwise_conv
from asrprune.model.dropout import dropout
from asrprune.model.feed_forward import FeedForward
from asrprune.model.layer import Layer
from asrprune.model.relative_attention import RelativeAttention
from asrprune.model.transformer import NORM_EPS


def make_layer(config: ModelConfig) -> "ConformerLayer":
    """A layer with the sizes of a config."""
    layer = config.layer
    assert isinstance(layer, ConformerConfig)
    return ConformerLayer(
        config.dim, config.heads, config.ffn, layer.kernel, layer.norm, config.dropout, config.attention_dropout
    )


class ConformerLayer(Layer):
    """x + c/2 * FFN(x), then + c * MHSA(x), then + c * Conv(x), then + c/2 * FFN(x), then LayerNorm; branches are pre-norm."""

    holds_pairs = True

    def __init__(
        self, dim: int, heads: int, ffn: int, kernel: int, norm: str, dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm_macaron = nn.LayerNorm(dim, eps=NORM_EPS)
        self.macaron = FeedForward(dim, ffn, dropout)
        self.norm_attention = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = RelativeAttention(dim, heads, attention_dropout)
        self.norm_conv = nn.LayerNorm(dim, eps=NORM_EPS)
        self.conv = ConvolutionModule(dim, kernel, norm)
        self.norm_ffn = nn.LayerNorm(dim, eps=NORM_EPS)
        self.ffn = FeedForward(dim, ffn, dropout)
        self.norm_out = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """One layer.

        Args:
            x: (B, T', D).
            mask: (B, 1, 1, T') bool, True where a frame is real; None if all are.
            scale: c, the factor of all four residual branches.
        """
        x = x + self._drop(self.macaron(self.norm_macaron(x)), 0.5 * scale)
        x = x + self._drop(self.attention(self.norm_attention(x), mask), scale)
        x = x + self._drop(self.conv(self.norm_conv(x), mask), scale)
        x = x + self._drop(self.ffn(self.norm_ffn(x)), 0.5 * scale)
        return self.norm_out(x)

    def initialise(self, num_layers: int) -> None:
        """Shrink the branches: the sum of four in each layer then has the stream's size (GPT-2's rule)."""
        self.shrink_branches((4 * num_layers) ** -0.5)

    @torch.no_grad()
    def shrink_branches(self, factor: float) -> None:
        """Scale what each branch adds: a deep stack of layers that end in a norm must start near the identity.

        Each of them divides the stream by the norm of what it has added, so with branches of its own size the signal is gone
        after a few layers: the upper ones then only spoil what the lower ones have learnt.
        """
        for last in (self.macaron.contract, self.attention.project, self.conv.project, self.ffn.contract):
            last.weight.mul_(factor)

    def _drop(self, x: Tensor, scale: float) -> Tensor:
        return dropout(x, self.dropout, self.training, scale)


class ConvolutionModule(nn.Module):
    """Pointwise to 2 D, GLU, depthwise over time, norm, swish, pointwise: (B, T', D) -> (B, T', D).

    The norm is ``batch`` (the paper's) or ``layer``: BatchNorm's statistics are those of training, with small batches and
    layers skipped, which those of a sub-model need not be.
    """

    def __init__(self, dim: int, kernel: int, norm: str) -> None:
        super().__init__()
        self.widen = nn.Linear(dim, 2 * dim)
        self.depthwise = depthwise_conv(dim, kernel)
        self.norm = nn.BatchNorm1d(dim) if norm == "batch" else nn.LayerNorm(dim, eps=NORM_EPS)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T', D) and a (B, 1, 1, T') mask of the real frames -> (B, T', D)."""
        x = convolve(self.depthwise, F.glu(self.widen(x), dim=-1), mask)
        x = self.norm(x.flatten(0, 1)).view_as(x)  # BatchNorm wants frames and batch in one dimension
        return self.project(F.silu(x))
