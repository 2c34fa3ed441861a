"""Self-attention with relative positions."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from asrprune.model.dropout import dropout
from asrprune.model.transformer import sinusoids


class RelativeAttention(nn.Module):
    """Multi-head attention with relative positions (Transformer-XL, arXiv 1901.02860, section 3.3)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(dim))  # u in the paper
        self.position_bias = nn.Parameter(torch.zeros(dim))  # v in the paper
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, T', D) to (B, T', D); ``mask`` (B, 1, 1, T') is True on real frames, None without padding."""
        batch, frames, dim = x.shape
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        position = self._split(self.position(distances(frames, dim, x.device)).unsqueeze(0))
        content = self._split(query + self.content_bias.to(query.dtype)) @ self._split(key).transpose(-1, -2)
        distance = _shift(self._split(query + self.position_bias.to(query.dtype)) @ position.transpose(-1, -2))
        # (B, H, T', T'), float32, because softmax in bfloat16 is slow
        scores = (content + distance).float() * (dim // self.heads) ** -0.5
        if mask is not None:
            scores = scores + torch.where(mask, 0.0, float("-inf"))  # in onnxruntime faster than masked_fill of all scores
        weights = dropout(scores.softmax(-1).to(value.dtype), self.dropout, self.training)
        return self.project((weights @ self._split(value)).transpose(1, 2).reshape(batch, frames, dim))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, T, D) -> (B, H, T, D/H)


@lru_cache(maxsize=16)  # all layers of a batch, and often of the next batch, need the same table
def distances(frames: int, dim: int, device: torch.device) -> Tensor:
    """Return sinusoids of the distances ``frames`` - 1, ..., -``frames``: (2 * frames, dim)."""
    with torch.inference_mode(False), torch.no_grad():  # otherwise training could not use a table that decoding has cached
        return sinusoids(torch.arange(frames - 1, -frames - 1, -1, dtype=torch.float32, device=device), dim)


def _shift(scores: Tensor) -> Tensor:
    """Turn (B, H, T, 2T) scores by distance into (B, H, T, T) by key: in row i, column T - 1 - i + j becomes column j.

    In a flat row of all scores, these of row i start at T - 1 + i * (2T - 1). So they are the first columns of a matrix with
    rows of 2T - 1. It is a view of the scores, which are not copied. The last distance is never used.
    """
    frames = scores.shape[-2]
    start, width = frames - 1, 2 * frames - 1
    return scores.flatten(-2)[..., start : start + frames * width].unflatten(-1, (frames, width))[..., :frames]
