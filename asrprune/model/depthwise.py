"""Depthwise convolutions over time, with padded frames set to 0."""

from torch import Tensor, nn


def depthwise_conv(channels: int, kernel: int) -> nn.Conv1d:
    """Make a depthwise convolution over ``kernel`` frames, an odd number; it keeps the number of frames."""
    return nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2, groups=channels)


def convolve(conv: nn.Conv1d, x: Tensor, mask: Tensor | None) -> Tensor:
    """Run ``conv`` on (B, T', C); ``mask`` (B, 1, 1, T') is True on real frames, None without padding.

    Padded frames are set to 0, like frames beyond the ends, so the output of an utterance does not depend on its batch.
    (ESPnet does not set them to 0.)
    """
    if mask is not None:
        x = x * mask[:, 0, 0, :, None].to(x.dtype)
    return conv(x.transpose(1, 2)).transpose(1, 2)
