"""Log-mel filterbanks of samples, computed as in kaldi-native-fbank and sherpa-onnx."""

import numpy as np
import torch

from asrprune.config.schema import FrontendConfig
from asrprune.runtime.torch_pair import import_torchaudio

INT16_SCALE = 32768.0  # Kaldi computes filterbanks on 16-bit integers


def compute_fbank(samples: np.ndarray, options: FrontendConfig) -> np.ndarray:
    """Compute log-mel filterbanks with the settings of kaldi-native-fbank / sherpa-onnx.

    Args:
        samples: (N,) float32 in [-1, 1).
        options: sample rate, frames and filters.

    Returns:
        (T, num_mels) float32 at 16-bit scale; T = N / shift, rounded half up.
    """
    padded, frames = _pad(samples, options)
    if frames == 0:
        return np.zeros((0, options.num_mels), dtype=np.float32)
    features = import_torchaudio().compliance.kaldi.fbank(
        torch.from_numpy(padded.astype(np.float32)).unsqueeze(0) * INT16_SCALE,
        sample_frequency=options.sample_rate,
        frame_length=options.frame_length_ms,
        frame_shift=options.frame_shift_ms,
        num_mel_bins=options.num_mels,
        low_freq=options.low_freq,
        high_freq=options.high_freq,
        window_type="povey",
        preemphasis_coefficient=0.97,
        remove_dc_offset=True,
        dither=0.0,
    )
    return features[:frames].numpy()


def _pad(samples: np.ndarray, options: FrontendConfig) -> tuple[np.ndarray, int]:
    """Mirror the edges as Kaldi does with ``snip_edges=False``; return the samples and the number of frames.

    torchaudio has the same option, but it fails on a signal shorter than one window.
    """
    shift = int(options.sample_rate * options.frame_shift_ms / 1000)
    window = int(options.sample_rate * options.frame_length_ms / 1000)
    frames = (len(samples) + shift // 2) // shift
    if frames == 0:
        return samples, 0
    before = window // 2 - shift // 2
    after = max((frames - 1) * shift + window - before - len(samples), 0)
    return np.pad(samples, (before, after), mode="symmetric"), frames


def change_speed(samples: np.ndarray, sample_rate: int, speed: float) -> np.ndarray:
    """Speed up (N,) samples by the factor ``speed`` (tempo and pitch, as sox's ``speed``); return (N / speed,)."""
    if speed == 1.0:
        return samples
    functional = import_torchaudio().functional
    faster, _ = functional.speed(torch.from_numpy(samples).unsqueeze(0), sample_rate, speed)
    return faster[0].numpy()
