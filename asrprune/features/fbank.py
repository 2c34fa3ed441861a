"""Log-mel filterbanks of samples, equal to those that sherpa-onnx computes with kaldi-native-fbank."""

import math
from collections.abc import Callable

import numpy as np

from asrprune.config.schema import FrontendConfig
from asrprune.runtime.torch_pair import import_torchaudio

INT16_SCALE = 32768.0  # Kaldi computes filterbanks on 16-bit integers
# The least energy: kaldi-native-fbank's limit is float32's epsilon, and sherpa-onnx gives it samples in [-1, 1).
LEAST_ENERGY = float(np.finfo(np.float32).eps) * INT16_SCALE**2
UNIT_SCALE = 2 * math.log(INT16_SCALE)  # log-mel energies of 16-bit integers minus those of samples in [-1, 1)
PREEMPHASIS = 0.97
Read = Callable[[int, int], np.ndarray]
ComputeFbank = Callable[[np.ndarray, FrontendConfig], np.ndarray]


def compute_fbank(samples: np.ndarray, options: FrontendConfig) -> np.ndarray:
    """Compute log-mel filterbanks with the settings of sherpa-onnx.

    Args:
        samples: (N,) float32 in [-1, 1).
        options: sample rate, frames and filters.

    Returns:
        (T, num_mels) float32 at 16-bit scale; T = N / shift, rounded half up.
    """
    import torch  # here, because a recogniser of exported models does without it

    padded, frames = pad_edges(samples, options)
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
        preemphasis_coefficient=PREEMPHASIS,
        remove_dc_offset=True,
        dither=0.0,
    )
    return np.maximum(features[:frames].numpy(), np.float32(math.log(LEAST_ENERGY)))


def num_frames(num_samples: int, options: FrontendConfig) -> int:
    """Return the number of frames of ``compute_fbank``."""
    shift, _ = frame_sizes(options)
    return (num_samples + shift // 2) // shift


def fbank_of_part(
    read: Read,
    num_samples: int,
    start: int,
    stop: int,
    options: FrontendConfig,
    compute: ComputeFbank = compute_fbank,
) -> np.ndarray:
    """Compute the frames ``start`` to ``stop`` - 1 of a recording; read only the samples that these frames need.

    Args:
        read: a function; ``read(position, count)`` returns ``count`` samples from ``position`` on.
        num_samples: the length of the recording.
        start, stop: feature frames.
        options: sample rate, frames and filters.
        compute: ``compute_fbank``, or a function with the same results.
    """
    shift, window = frame_sizes(options)
    margin = window // shift  # frames; the samples of frame t begin at most half a window before t * shift
    first = max(0, start - margin)
    begin, end = first * shift, num_samples if stop == num_frames(num_samples, options) else (stop + margin) * shift
    features = compute(read(begin, min(end, num_samples) - begin), options)
    return features[start - first : stop - first]


def frame_sizes(options: FrontendConfig) -> tuple[int, int]:
    """Return the shift and the length of a frame, in samples."""
    return options.shift, int(options.sample_rate * options.frame_length_ms / 1000)


def pad_edges(samples: np.ndarray, options: FrontendConfig) -> tuple[np.ndarray, int]:
    """Mirror the edges as Kaldi does with ``snip_edges=False``; return the samples and the number of frames.

    torchaudio has the same option, but it fails on a signal shorter than one window.
    """
    shift, window = frame_sizes(options)
    frames = num_frames(len(samples), options)
    if frames == 0:
        return samples, 0
    before = window // 2 - shift // 2
    after = max((frames - 1) * shift + window - before - len(samples), 0)
    return np.pad(samples, (before, after), mode="symmetric"), frames
