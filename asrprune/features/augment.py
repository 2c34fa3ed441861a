"""Augmentation of features: SpecAugment (arXiv 1904.08779), volume, vocal tract. Speed is changed in fbank.py, on samples."""

import math

import torch
from torch import Tensor

from asrprune.config.schema import AugmentConfig, FrontendConfig
from asrprune.runtime.torch_pair import import_torchaudio


def spec_augment(features: Tensor, config: AugmentConfig) -> Tensor:
    """Mask frequency bands and time spans with 0 (the mean after CMVN); each utterance has its own masks.

    Args:
        features: (B, T, F), normalised. Masks are drawn from torch's global generator.
        config: number and largest widths of masks; the largest time mask has ``max_time_mask`` * T frames.
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
    """Change the level of each utterance by up to ``volume_db``: add a constant to the log power of every bin.

    Args:
        features: (B, T, F), normalised. The gain is drawn from torch's global generator.
        cmvn_scale: (F,), the scale of CMVN, 1 / standard deviation.
        config: ``volume_db``.
    """
    if config.volume_db == 0:
        return features
    gain_db = (2.0 * torch.rand(len(features), 1, 1, device=features.device) - 1.0) * config.volume_db
    return features + gain_db * (math.log(10.0) / 10.0) * cmvn_scale


def change_vocal_tract(features: Tensor, frontend: FrontendConfig, config: AugmentConfig) -> Tensor:
    """Simulate another length of the vocal tract: scale the frequencies of each utterance (VTLP, Jaitly and Hinton 2013).

    The spectrum is interpolated between mel bins; the paper moves the filters instead. Beyond the outer bins it is constant.

    Args:
        features: (B, T, F), normalised or not. The factors are drawn from torch's global generator.
        frontend: the frequencies of the bins.
        config: factors lie in 1 +- ``vocal_tract``.
    """
    if config.vocal_tract == 0.0:
        return features
    factors = 1.0 + (2.0 * torch.rand(len(features), device=features.device) - 1.0) * config.vocal_tract
    return features @ _between_bins(warped_bins(factors, frontend), features.shape[2]).to(features.dtype)


def warped_bins(factors: Tensor, frontend: FrontendConfig) -> Tensor:
    """Return for (B,) factors the (B, F) source bins in 0..F-1: the bin with centre frequency f is read at f * factor."""
    high = frontend.high_freq if frontend.high_freq > 0 else frontend.sample_rate / 2 + frontend.high_freq
    first, last = (_mel(torch.tensor(float(hz))) for hz in (frontend.low_freq, high))
    step = (last - first) / (frontend.num_mels + 1)
    centres = 700.0 * torch.expm1((first + step * torch.arange(1, frontend.num_mels + 1)) / 1127.0)  # Hz
    bins = (_mel(factors.unsqueeze(1) * centres.to(factors.device)) - first) / step - 1.0
    return bins.clamp(0.0, frontend.num_mels - 1.0)


def _mel(hz: Tensor) -> Tensor:
    """Convert Hz to Kaldi's mel scale."""
    return 1127.0 * torch.log1p(hz / 700.0)


def _between_bins(bins: Tensor, num_mels: int) -> Tensor:
    """Return (B, F, F) weights of linear interpolation for (B, F) fractional bins; column f gives the new bin f."""
    return (1.0 - (bins.unsqueeze(1) - torch.arange(num_mels, device=bins.device).view(1, -1, 1)).abs()).clamp(min=0.0)
