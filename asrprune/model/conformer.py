"""One Conformer layer (arXiv 2005.08100) as in ESPnet: half-step FFNs, relative positions, convolution module."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.schema import ConformerConfig, ModelConfig
from asrprune.model.dropout import dropout
from asrprune.model.transformer import NORM_EPS, sinusoids


def make_layer(config: ModelConfig) -> "ConformerLayer":
    """A layer with the sizes of a config."""
    layer = config.layer
    assert isinstance(layer, ConformerConfig)
    return ConformerLayer(
        config.dim, config.heads, config.ffn, layer.kernel, layer.norm, config.dropout, config.attention_dropout
    )


class ConformerLayer(nn.Module):
    """x + c/2 * FFN(x), then + c * MHSA(x), then + c * Conv(x), then + c/2 * FFN(x), then LayerNorm; branches are pre-norm."""

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


class FeedForward(nn.Module):
    """(B, T', D) -> (B, T', D) with swish and one hidden layer."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """The two linear layers."""
        return self.contract(dropout(F.silu(self.expand(x)), self.dropout, self.training))


class RelativeAttention(nn.Module):
    """Multi-head attention with relative positions (Transformer-XL, arXiv 1901.02860, section 3.3)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(dim))  # the paper's u
        self.position_bias = nn.Parameter(torch.zeros(dim))  # and v
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T', D) and a (B, 1, 1, T') mask of the real frames -> (B, T', D)."""
        batch, frames, dim = x.shape
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        position = self._split(self.position(distances(frames, dim, x.device)).unsqueeze(0))
        content = self._split(query + self.content_bias.to(query.dtype)) @ self._split(key).transpose(-1, -2)
        distance = _shift(self._split(query + self.position_bias.to(query.dtype)) @ position.transpose(-1, -2))
        scores = (content + distance).float() * (dim // self.heads) ** -0.5  # (B, H, T', T'), as bfloat16 softmax is slow
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = dropout(scores.softmax(-1).to(value.dtype), self.dropout, self.training)
        return self.project((weights @ self._split(value)).transpose(1, 2).reshape(batch, frames, dim))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, T, D) -> (B, H, T, D/H)


class ConvolutionModule(nn.Module):
    """Pointwise to 2 D, GLU, depthwise over time, norm, swish, pointwise: (B, T', D) -> (B, T', D).

    Padded frames enter the depthwise convolution as 0, like what lies beyond the ends (ESPnet lets padding through), so an
    utterance's output does not depend on its batch. The norm is ``batch`` (the paper's) or ``layer``: BatchNorm's statistics
    are those of training, with small batches and layers skipped, which those of a sub-model need not be.
    """

    def __init__(self, dim: int, kernel: int, norm: str) -> None:
        super().__init__()
        self.widen = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=(kernel - 1) // 2, groups=dim)
        self.norm = nn.BatchNorm1d(dim) if norm == "batch" else nn.LayerNorm(dim, eps=NORM_EPS)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T', D) and a (B, 1, 1, T') mask of the real frames -> (B, T', D)."""
        x = F.glu(self.widen(x), dim=-1)
        if mask is not None:
            x = x * mask[:, 0, 0, :, None].to(x.dtype)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        x = self.norm(x.flatten(0, 1)).view_as(x)  # BatchNorm wants frames and batch in one dimension
        return self.project(F.silu(x))


@lru_cache(maxsize=16)  # all layers of a batch, and often the next batch too, need the same one
def distances(frames: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoids of the distances from ``frames`` - 1 down to 1 - ``frames``: (2 * frames - 1, dim)."""
    with torch.inference_mode(False), torch.no_grad():  # or a table made in decoding could not be used in training
        return sinusoids(torch.arange(frames - 1, -frames, -1, dtype=torch.float32, device=device), dim)


def _shift(scores: Tensor) -> Tensor:
    """(B, H, T, 2T - 1) scores by distance -> (B, H, T, T) by key: row i, column T - 1 - i + j goes to column j."""
    batch, heads, frames, width = scores.shape
    padded = F.pad(scores, (1, 0)).view(batch, heads, width + 1, frames)
    return padded[:, :, 1:].reshape(batch, heads, frames, width)[..., :frames]
