"""One Conformer layer (arXiv 2005.08100) as in ESPnet: half-step FFNs, relative positions, convolution module."""

from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.schema import ConformerConfig, ModelConfig
from asrprune.model.depthwise import convolve, depthwise_conv
from asrprune.model.feed_forward import FeedForward
from asrprune.model.layer import Layer, shrink_branches
from asrprune.model.relative_attention import RelativeAttention
from asrprune.model.transformer import NORM_EPS


def make_layer(config: ModelConfig) -> "ConformerLayer":
    """Make a layer with the sizes of the config."""
    layer = config.layer
    assert isinstance(layer, ConformerConfig)
    return ConformerLayer(
        config.dim, config.heads, config.ffn, layer.kernel, layer.norm, config.dropout, config.attention_dropout
    )


class ConformerLayer(Layer):
    """A Conformer layer: x + c/2 FFN(x), + c MHSA(x), + c Conv(x), + c/2 FFN(x), LayerNorm; all branches are pre-norm."""

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
        """Run the layer; see ``Layer.forward``. ``scale`` is c, the factor of all four residual branches."""
        x = x + self.drop(self.macaron(self.norm_macaron(x)), 0.5 * scale)
        x = x + self.drop(self.attention(self.norm_attention(x), mask), scale)
        x = x + self.drop(self.conv(self.norm_conv(x), mask), scale)
        x = x + self.drop(self.ffn(self.norm_ffn(x)), 0.5 * scale)
        return self.norm_out(x)

    def initialise(self, num_layers: int) -> None:
        """Scale the branches down."""
        shrink_branches((self.macaron.contract, self.attention.project, self.conv.project, self.ffn.contract), num_layers)


class ConvolutionModule(nn.Module):
    """The convolution module: pointwise to 2 D, GLU, depthwise over time, norm, swish, pointwise.

    The norm is ``batch`` (the paper's) or ``layer``. BatchNorm uses the statistics of training, with small batches and
    skipped layers; they may not fit a sub-model.
    """

    def __init__(self, dim: int, kernel: int, norm: str) -> None:
        super().__init__()
        self.widen = nn.Linear(dim, 2 * dim)
        self.depthwise = depthwise_conv(dim, kernel)
        self.norm = nn.BatchNorm1d(dim) if norm == "batch" else nn.LayerNorm(dim, eps=NORM_EPS)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, T', D) to (B, T', D); ``mask`` (B, 1, 1, T') is True on real frames, None without padding."""
        x = convolve(self.depthwise, F.glu(self.widen(x), dim=-1), mask)
        x = self.norm(x.flatten(0, 1)).view_as(x)  # BatchNorm needs batch and frames in one dimension
        return self.project(F.silu(x))
