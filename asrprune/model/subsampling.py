"""The front ends: convolutions that subsample feature frames to the width of the model. See config/lengths.py for lengths."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.lengths import output_length
from asrprune.config.schema import ModelConfig
from asrprune.model.transformer import NORM_EPS


def make_subsampling(config: ModelConfig, num_mels: int) -> nn.Module:
    """Make the front end of ``config.subsampling``, which maps (B, T, F) features to (B, T', D)."""
    options = config.subsampling
    return FRONT_ENDS[options.type](num_mels, options.channels or config.dim, config.dim, options.factor)


class Conv2dSubsampling(nn.Module):
    """The front end of ESPnet: 2 or 3 x (3x3 convolution over time and frequency, stride 2, ReLU), linear layer, times sqrt(D).

    The convolutions use channels-last memory except in float32 training; on a CPU they then take 0.5 to 0.9 of the time.
    """

    def __init__(self, num_mels: int, channels: int, dim: int, factor: int) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)
        self.conv1 = nn.Conv2d(1, channels, 3, stride=2)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2)
        self.conv3 = nn.Conv2d(channels, channels, 3, stride=2) if factor == 8 else None
        self.linear = nn.Linear(channels * output_length(num_mels, factor), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, F) to (B, T', D)."""
        x = F.relu(self.conv1(self._layout(x)), inplace=True)  # (B, C, T/2, F/2)
        x = F.relu(self.conv2(x), inplace=True)  # (B, C, T/4, F/4)
        if self.conv3 is not None:
            x = F.relu(self.conv3(x), inplace=True)  # (B, C, T/8, F/8)
        return self.linear(x.transpose(1, 2).flatten(2)) * self.scale  # (B, T', C * F') -> (B, T', D)

    def _layout(self, x: Tensor) -> Tensor:
        """Reshape (B, T, F) to (B, 1, T, F), with the faster memory layout."""
        if torch.is_grad_enabled() and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return x.unsqueeze(1)  # with channels last, the float32 weight gradient takes 1.5 to 3 times as long
        return x.unsqueeze(3).permute(0, 3, 1, 2)  # channels last in memory


class Conv1dSubsampling(nn.Module):
    """A front end over time only: 2 or 3 x (convolution of width 3, stride 2, ReLU), linear layer, LayerNorm.

    The mel bins are the input channels, as in Whisper (arXiv 2212.04356, section 2.2), but with ReLU. The front end costs less
    than a layer. The linear layer allows ``channels`` that differ from the width D. The LayerNorm gives the stream a size
    of 1. With a factor of sqrt(D) instead, as in ``Conv2dSubsampling``, its size would be 2 to 6 (there it is 0.7 to 1.8),
    much larger than the positions, whose size is 0.7.
    """

    def __init__(self, num_mels: int, channels: int, dim: int, factor: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(num_mels, channels, 3, stride=2)
        self.conv2 = nn.Conv1d(channels, channels, 3, stride=2)
        self.conv3 = nn.Conv1d(channels, channels, 3, stride=2) if factor == 8 else None
        self.linear = nn.Linear(channels, dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, F) to (B, T', D)."""
        for conv in (self.conv1, self.conv2, self.conv3):
            if conv is not None:
                x = F.relu(_convolve(conv, x), inplace=True)  # (B, T/2, C), then T/4, then T/8
        return self.norm(self.linear(x))  # (B, T', C) -> (B, T', D)


def _convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply a convolution of width 3 and stride 2 to (B, T, C) as a product, which is faster on a CPU and can be quantised.

    Each output frame is the product of three input frames, side by side, with the weight.
    """
    frames = torch.cat([x[:, :-2:2], x[:, 1:-1:2], x[:, 2::2]], dim=2)  # (B, T/2, 3 C)
    return F.linear(frames, conv.weight.transpose(1, 2).flatten(1), conv.bias)


FRONT_ENDS = {"conv2d": Conv2dSubsampling, "conv1d": Conv1dSubsampling}  # type in the config -> class
