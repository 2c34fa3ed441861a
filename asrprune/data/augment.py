"""SpecAugment (arXiv 1904.08779) and volume on normalised features; speed is changed when features are computed."""

import math

import torch
from torch import Tensor

from asrprune.config import AugmentConfig
from asrprune.doctor import import_torchaudio


def spec_augment(features: Tensor, config: AugmentConfig) -> Tensor:
    """Mask frequency bands and time spans with 0 (the mean, as CMVN has been applied), other masks for each utterance.

    Args:
        features: (B, T, F), normalised. Masks are drawn from torch's global generator.
        config: counts and largest widths; a time mask is at most ``max_time_mask`` of T wide.
    """
    functional = import_torchaudio().functional
    x = features.unsqueeze(1)  # (B, 1, T, F), as torchaudio masks batches
    for _ in range(config.num_freq_masks):
        x = functional.mask_along_axis_iid(x, config.max_freq_mask + 1, 0.0, axis=3)
    width = int(config.max_time_mask * features.shape[1])
    for _ in range(config.num_time_masks if width else 0):
        x = functional.mask_along_axis_iid(x, width + 1, 0.0, axis=2)
    return x.squeeze(1)


def change_volume(features: Tensor, cmvn_scale: Tensor, config: AugmentConfig) -> Tensor:
    """Make each utterance louder or softer by up to ``volume_db``: a constant on the logarithm of the power in every bin.

    Args:
        features: (B, T, F), normalised. The gain is drawn from torch's global generator.
        cmvn_scale: (F,), by which the logarithms were multiplied.
        config: ``volume_db``.
    """
    if config.volume_db == 0:
        return features
    gain_db = (2.0 * torch.rand(len(features), 1, 1, device=features.device) - 1.0) * config.volume_db
    return features + gain_db * (math.log(10.0) / 10.0) * cmvn_scale
