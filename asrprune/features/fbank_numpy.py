"""Log-mel filterbanks in numpy, for machines without torch; equal to ``fbank.compute_fbank`` except for the last bits."""

from functools import cache

import numpy as np

from asrprune.config.schema import FrontendConfig
from asrprune.features.fbank import INT16_SCALE, LEAST_ENERGY, PREEMPHASIS, frame_sizes, pad_edges

_POVEY = 0.85  # exponent of the Hann window


def compute_fbank_numpy(samples: np.ndarray, options: FrontendConfig) -> np.ndarray:
    """Compute log-mel filterbanks; see ``fbank.compute_fbank``."""
    padded, frames = pad_edges(samples, options)
    if frames == 0:
        return np.zeros((0, options.num_mels), dtype=np.float32)
    shift, width = frame_sizes(options)
    scaled = padded.astype(np.float32) * np.float32(INT16_SCALE)
    windows = np.lib.stride_tricks.sliding_window_view(scaled, width)[::shift][:frames]  # (T, N)
    windows = windows - windows.mean(axis=1, keepdims=True)
    before = np.concatenate([windows[:, :1], windows[:, :-1]], axis=1)
    windows = (windows - np.float32(PREEMPHASIS) * before) * _window(width)
    banks = _mel_banks(options)
    spectrum = np.fft.rfft(windows, 2 * len(banks))[:, : len(banks)]  # no filter reaches the Nyquist frequency
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.log(np.maximum(power @ banks, np.float32(LEAST_ENERGY)))


@cache
def _window(width: int) -> np.ndarray:
    """Return Kaldi's window "povey" (N,)."""
    return (np.hanning(width) ** _POVEY).astype(np.float32)


@cache
def _mel_banks(options: FrontendConfig) -> np.ndarray:
    """Return the triangular filters (bins of the Fourier transform, filters); the transform has a power of two of samples."""
    _, width = frame_sizes(options)
    size, nyquist = 1 << (width - 1).bit_length(), options.sample_rate / 2
    high = options.high_freq if options.high_freq > 0 else nyquist + options.high_freq
    edges = np.linspace(_mel(options.low_freq), _mel(high), options.num_mels + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = _mel(options.sample_rate / size * np.arange(size // 2))[:, None]
    return np.maximum(np.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)), 0.0).astype(np.float32)


def _mel(frequency: float | np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(np.asarray(frequency) / 700.0)
