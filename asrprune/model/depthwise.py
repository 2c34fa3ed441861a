"""Depthwise convolutions over time that do not see the padding."""

from torch import Tensor, nn


def depthwise_conv(channels: int, kernel: int) -> nn.Conv1d:
    """A convolution of each channel on its own over ``kernel`` frames, an odd number; T' stays."""
    return nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2, groups=channels)


def convolve(conv: nn.Conv1d, x: Tensor, mask: Tensor | None) -> Tensor:
    """Run ``conv`` over the frames of (B, T', C), with a (B, 1, 1, T') mask of the real ones; None: all are.

    Padded frames enter as 0, like what lies beyond the ends (ESPnet lets padding through), so an utterance's output does not
    depend on its batch.
    """
    if mask is not None:
        x = x * mask[:, 0, 0, :, None].to(x.dtype)
    return conv(x.transpose(1, 2)).transpose(1, 2)
