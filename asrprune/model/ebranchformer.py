"""One E-Branchformer layer (arXiv 2210.00077) as in ESPnet: attention beside a gated convolution, between half-step FFNs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.schema import EBranchformerConfig, ModelConfig
from asrprune.model.depthwise import convolve, depthwise_conv
from asrprune.model.dropout import dropout
from asrprune.model.feed_forward import FeedForward
from asrprune.model.layer import Layer, shrink_branches
from asrprune.model.relative_attention import RelativeAttention
from asrprune.model.transformer import NORM_EPS


def make_layer(config: ModelConfig) -> "EBranchformerLayer":
    """Make a layer with the sizes of the config."""
    layer = config.layer
    assert isinstance(layer, EBranchformerConfig)
    sizes = (config.dim, config.heads, config.ffn, layer.cgmlp or 4 * config.dim, layer.kernel, layer.merge_kernel)
    return EBranchformerLayer(*sizes, config.dropout, config.attention_dropout)


class EBranchformerLayer(Layer):
    """An E-Branchformer layer: x + c/2 FFN(x), + c Merge(MHSA(x), cgMLP(x)), + c/2 FFN(x), LayerNorm; branches are pre-norm."""

    holds_pairs = True

    def __init__(
        self,
        dim: int,
        heads: int,
        ffn: int,
        cgmlp: int,
        kernel: int,
        merge_kernel: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm_macaron = nn.LayerNorm(dim, eps=NORM_EPS)
        self.macaron = FeedForward(dim, ffn, dropout)
        self.norm_attention = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = RelativeAttention(dim, heads, attention_dropout)
        self.norm_cgmlp = nn.LayerNorm(dim, eps=NORM_EPS)
        self.cgmlp = GatingMlp(dim, cgmlp, kernel, dropout)
        self.merge = Merge(dim, merge_kernel)
        self.norm_ffn = nn.LayerNorm(dim, eps=NORM_EPS)
        self.ffn = FeedForward(dim, ffn, dropout)
        self.norm_out = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """Run the layer; see ``Layer.forward``. ``scale`` is c, the factor of all three residual branches."""
        x = x + self.drop(self.macaron(self.norm_macaron(x)), 0.5 * scale)
        far = self.drop(self.attention(self.norm_attention(x), mask))
        near = self.drop(self.cgmlp(self.norm_cgmlp(x), mask))
        x = x + self.drop(self.merge(far, near, mask), scale)
        x = x + self.drop(self.ffn(self.norm_ffn(x)), 0.5 * scale)
        return self.norm_out(x)

    def initialise(self, num_layers: int) -> None:
        """Scale the branches down, and open the gate."""
        shrink_branches((self.macaron.contract, self.merge.project, self.ffn.contract), num_layers)
        self.cgmlp.open_gate()


class GatingMlp(nn.Module):
    """The cgMLP: an MLP in which one half of the hidden units, after a convolution over time, gates the other half."""

    def __init__(self, dim: int, hidden: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.expand = nn.Linear(dim, hidden)
        self.norm = nn.LayerNorm(hidden // 2, eps=NORM_EPS)
        self.depthwise = depthwise_conv(hidden // 2, kernel)
        self.contract = nn.Linear(hidden // 2, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, T', D) to (B, T', D); ``mask`` (B, 1, 1, T') is True on real frames, None without padding."""
        content, gate = F.gelu(self.expand(x)).chunk(2, dim=-1)
        gate = convolve(self.depthwise, self.norm(gate), mask)
        return self.contract(dropout(content * gate, self.dropout, self.training))

    def open_gate(self) -> None:
        """Initialise the gate near 1 (gMLP, arXiv 2105.08050, section 2.1)."""
        nn.init.normal_(self.depthwise.weight, std=1e-6)
        assert self.depthwise.bias is not None
        nn.init.ones_(self.depthwise.bias)


class Merge(nn.Module):
    """The merge of two branches: concatenation, plus its depthwise convolution, projected to the width of the stream."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = depthwise_conv(2 * dim, kernel)
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, far: Tensor, near: Tensor, mask: Tensor | None) -> Tensor:
        """Merge two (B, T', D) into one; ``mask`` (B, 1, 1, T') is True on real frames, None without padding."""
        both = torch.cat([far, near], dim=-1)
        return self.project(both + convolve(self.depthwise, both, mask))
