"""SpecAugment (arXiv 1904.08779) on normalised features; speed perturbation is done when features are computed."""

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
