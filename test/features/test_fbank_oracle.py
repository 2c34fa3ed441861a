"""Both filterbanks, torchaudio's and that in numpy, equal those of kaldi-native-fbank, which sherpa-onnx computes, within 1e-3.

Where a bin is more than 15 nats (65 dB) below the loudest bin of its frame, float32 itself is not that exact: against a
float64 computation of 50 LibriSpeech utterances either of the two was off by up to 0.03 there, and nowhere else by 1e-3.
"""

import io

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
from samples import first_members

from asrprune.config.schema import FrontendConfig
from asrprune.features.fbank import UNIT_SCALE, ComputeFbank, compute_fbank
from asrprune.features.fbank_numpy import compute_fbank_numpy

WIDE = FrontendConfig()
NARROW = FrontendConfig(sample_rate=8000, num_mels=40, high_freq=-200.0)
FLOAT32_RANGE = 15.0  # nats below the loudest bin of a frame
WAYS: tuple[ComputeFbank, ...] = (compute_fbank, compute_fbank_numpy)


def oracle(samples: np.ndarray, options: FrontendConfig) -> np.ndarray:
    """(N,) float32 in [-1, 1) -> (T, num_mels): sherpa-onnx's settings, written out; the result is brought to 16-bit scale."""
    settings = kaldi_native_fbank.FbankOptions()
    settings.frame_opts.samp_freq = options.sample_rate
    settings.frame_opts.frame_length_ms = 25.0
    settings.frame_opts.frame_shift_ms = 10.0
    settings.frame_opts.dither = 0.0
    settings.frame_opts.preemph_coeff = 0.97
    settings.frame_opts.remove_dc_offset = True
    settings.frame_opts.window_type = "povey"
    settings.frame_opts.snip_edges = False
    settings.mel_opts.num_bins = options.num_mels
    settings.mel_opts.low_freq = 20.0
    settings.mel_opts.high_freq = options.high_freq
    computer = kaldi_native_fbank.OnlineFbank(settings)
    computer.accept_waveform(options.sample_rate, samples.tolist())
    computer.input_finished()
    frames = [computer.get_frame(frame) for frame in range(computer.num_frames_ready)]
    return np.stack(frames) + np.float32(UNIT_SCALE) if frames else np.zeros((0, options.num_mels), dtype=np.float32)


def chirp(num_samples: int, sample_rate: int) -> np.ndarray:
    """(num_samples,) float32: a sweep from 50 Hz to the Nyquist frequency in noise, with a constant offset, at 16 bits."""
    time = np.arange(num_samples) / sample_rate
    duration = max(num_samples, 1) / sample_rate
    sweep = 0.4 * np.sin(2 * np.pi * (50.0 * time + (sample_rate / 2 - 50.0) / (2 * duration) * time**2))
    noise = 0.05 * np.random.default_rng(7).standard_normal(num_samples)
    return (np.round((sweep + noise + 0.02) * 32768.0) / 32768.0).astype(np.float32)


def assert_equals_oracle(samples: np.ndarray, options: FrontendConfig) -> None:
    expected = oracle(samples, options)
    exact = expected > expected.max(axis=1, initial=-np.inf, keepdims=True) - FLOAT32_RANGE
    assert exact.size == 0 or exact.mean() > 0.9
    for compute in WAYS:
        features = compute(samples, options)
        assert features.dtype == np.float32
        assert features.shape == expected.shape
        np.testing.assert_allclose(features[exact], expected[exact], atol=1e-3, rtol=0.0)
        np.testing.assert_allclose(features, expected, atol=0.02, rtol=0.0)


@pytest.mark.parametrize("options", [WIDE, NARROW], ids=["16kHz", "8kHz"])
@pytest.mark.parametrize("num_samples", [400, 401, 479, 480, 8000, 48079, 48080])
def test_chirp_of_any_length(num_samples: int, options: FrontendConfig) -> None:
    assert_equals_oracle(chirp(num_samples, options.sample_rate), options)


@pytest.mark.parametrize("num_samples", [0, 1, 79, 80, 120, 199, 200, 399])
def test_less_than_one_window(num_samples: int) -> None:
    assert_equals_oracle(chirp(num_samples, 16000), WIDE)


def test_digital_silence_between_two_sounds() -> None:
    """Frames of zeros have the log of float32's epsilon, at the scale of sherpa-onnx."""
    sound = chirp(4000, 16000)
    samples = np.concatenate([sound, np.zeros(4000, dtype=np.float32), sound])
    assert_equals_oracle(samples, WIDE)
    for compute in WAYS:
        assert compute(samples, WIDE).min() == pytest.approx(np.log(np.finfo(np.float32).eps) + UNIT_SCALE, abs=1e-4)


def test_other_frames_and_filters_in_numpy() -> None:
    """Frames of 20 ms every 7.5 ms, and filters up to 3 kHz: torchaudio's numbers."""
    options = FrontendConfig(frame_length_ms=20.0, frame_shift_ms=7.5, low_freq=0.0, high_freq=3000.0, num_mels=23)
    samples = chirp(16000, 16000)
    np.testing.assert_allclose(compute_fbank_numpy(samples, options), compute_fbank(samples, options), atol=0.02, rtol=0.0)


@pytest.mark.parametrize("subset", ["test-clean", "test-other"])
def test_librispeech(subset: str) -> None:
    for flac in first_members(f"librispeech/{subset}.tar.gz", ".flac", 4):
        samples, sample_rate = soundfile.read(io.BytesIO(flac), dtype="float32")
        assert sample_rate == 16000
        assert_equals_oracle(samples, WIDE)


def test_an4() -> None:
    for raw in first_members("an4/an4_raw.bigendian.tar.gz", ".raw", 20):
        samples = np.frombuffer(raw, dtype=">i2").astype(np.float32) / 32768.0
        assert_equals_oracle(samples, WIDE)
