"""The pre-norm Transformer layer, and sinusoidal positions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.schema import ModelConfig
from asrprune.model.dropout import dropout
from asrprune.model.layer import Layer

# As in ESPnet's LayerNorm; torch's default of 1e-5 changes the output by more than 1e-5.
NORM_EPS = 1e-12


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Return sinusoids (N, dim) of (N,) float32 positions, with sines in even columns (arXiv 1706.03762, section 3.5)."""
    rates = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) * -(math.log(10000.0) / dim))
    angles = positions.unsqueeze(1) * rates
    return torch.stack((torch.sin(angles), torch.cos(angles)), dim=2).flatten(1)[:, :dim]


def make_layer(config: ModelConfig) -> "TransformerLayer":
    """Make a layer with the sizes of the config."""
    return TransformerLayer(config.dim, config.heads, config.ffn, config.dropout, config.attention_dropout)


class TransformerLayer(Layer):
    """A pre-norm Transformer layer with ReLU: x + c * dropout(MHSA(LN(x))), then x + c * dropout(FFN(LN(x)))."""

    holds_pairs = False  # torch's attention does not store T'^2 values

    def __init__(self, dim: int, heads: int, ffn: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.norm_attention = nn.LayerNorm(dim, eps=NORM_EPS)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.norm_ffn = nn.LayerNorm(dim, eps=NORM_EPS)
        self.expand = nn.Linear(dim, ffn)
        self.contract = nn.Linear(ffn, dim)

    def forward(self, x: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """Run the layer; see ``Layer.forward``. ``scale`` is c, the factor of both residual branches."""
        x = x + self.drop(self._attend(self.norm_attention(x), mask), scale)
        hidden = self.drop(F.relu(self.expand(self.norm_ffn(x)), inplace=True))
        return x + self.drop(self.contract(hidden), scale)

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, frames, dim = x.shape
        qkv = self.qkv(x).view(batch, frames, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T', D/H)
        rate = self.attention_dropout if self.training else 0.0
        if query.dtype == torch.bfloat16 and query.device.type == "cpu" and query.requires_grad:
            y = _attention(query, key, value, mask, rate)
        else:
            y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=rate)
        return self.project(y.transpose(1, 2).reshape(batch, frames, dim))


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rate: float) -> Tensor:
    """Compute attention without the fused kernel, for (B, H, T', D/H) each.

    torch's fused CPU kernel is 3 to 6 times slower in bfloat16 with gradients (50 to 150 frames, heads of 32 to 64). The
    bfloat16 softmax is 1.5 times slower than the float32 softmax with both conversions.
    """
    scores = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return dropout(scores.softmax(-1).to(value.dtype), rate, rate > 0.0) @ value
