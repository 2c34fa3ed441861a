"""The front ends: convolutions that make a few frames of model width of many feature frames. Lengths: config/lengths.py."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asrprune.config.lengths import output_length
from asrprune.config.schema import Conv1dConfig, ModelConfig
from asrprune.model.transformer import NORM_EPS


def make_subsampling(config: ModelConfig, num_mels: int) -> nn.Module:
    """The front end of ``config.subsampling``: (B, T, F) features -> (B, T', D)."""
    options = config.subsampling
    kind = Conv1dSubsampling if isinstance(options, Conv1dConfig) else Conv2dSubsampling
    return kind(num_mels, options.channels or config.dim, config.dim, options.factor)


class Conv2dSubsampling(nn.Module):
    """2 or 3 x (3x3 convolution over time and frequency, stride 2, ReLU), a linear layer, times sqrt(D): ESPnet's.

    Mostly with the channels last in memory: the convolutions take 0.5 to 0.9 of the time then on a CPU.
    """

    def __init__(self, num_mels: int, channels: int, dim: int, factor: int) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)
        self.conv1 = nn.Conv2d(1, channels, 3, stride=2)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2)
        self.conv3 = nn.Conv2d(channels, channels, 3, stride=2) if factor == 8 else None
        self.linear = nn.Linear(channels * output_length(num_mels, factor), dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, F) -> (B, T', D)."""
        x = F.relu(self.conv1(self._layout(x)), inplace=True)  # (B, C, T/2, F/2)
        x = F.relu(self.conv2(x), inplace=True)  # (B, C, T/4, F/4)
        if self.conv3 is not None:
            x = F.relu(self.conv3(x), inplace=True)  # (B, C, T/8, F/8)
        return self.linear(x.transpose(1, 2).flatten(2)) * self.scale  # (B, T', C * F') -> (B, T', D)

    def _layout(self, x: Tensor) -> Tensor:
        """(B, T, F) -> (B, 1, T, F)."""
        if torch.is_grad_enabled() and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return x.unsqueeze(1)  # the float32 kernel for the weight gradient takes 1.5 to 3 times as long otherwise
        return x.unsqueeze(3).permute(0, 3, 1, 2)  # channels last in memory


class Conv1dSubsampling(nn.Module):
    """2 or 3 x (convolution of width 3 over time, stride 2, ReLU), with the mel bins as channels; a linear layer; LayerNorm.

    After Whisper (arXiv 2212.04356, section 2.2), with ReLU as in the rest of the model. All of it costs less than a layer.
    The linear layer lets ``channels`` differ from the width. The LayerNorm starts the stream with a size of 1, whatever the
    channels. Times sqrt(D) instead, it would be 2 to 6, where that of the 2-D convolutions is 0.7 to 1.8, and the positions,
    of size 0.7, would drown in it.
    """

    def __init__(self, num_mels: int, channels: int, dim: int, factor: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(num_mels, channels, 3, stride=2)
        self.conv2 = nn.Conv1d(channels, channels, 3, stride=2)
        self.conv3 = nn.Conv1d(channels, channels, 3, stride=2) if factor == 8 else None
        self.linear = nn.Linear(channels, dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, F) -> (B, T', D)."""
        x = F.relu(self.conv1(x.transpose(1, 2)), inplace=True)  # (B, C, T/2)
        x = F.relu(self.conv2(x), inplace=True)  # (B, C, T/4)
        if self.conv3 is not None:
            x = F.relu(self.conv3(x), inplace=True)  # (B, C, T/8)
        return self.norm(self.linear(x.transpose(1, 2)))  # (B, T', C) -> (B, T', D)
