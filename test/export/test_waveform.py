"""The log-mel front end inside the graph, against kaldi-native-fbank, torchaudio and a computation in double precision."""

import numpy as np
import pytest
import torch

from asrprune.config.schema import FrontendConfig
from asrprune.export.waveform import Fbank
from asrprune.features.fbank import compute_fbank

RATE8 = FrontendConfig(sample_rate=8000, num_mels=40, frame_length_ms=20.0, high_freq=3700.0)


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.05, 0.1, size).astype(np.float32)


def in_graph(options: FrontendConfig, *signals: np.ndarray) -> tuple[np.ndarray, list[int]]:
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(signal) for signal in signals], batch_first=True)
    features, frames = Fbank(options)(padded, torch.tensor([len(signal) for signal in signals]))
    return features.numpy(), frames.tolist()


@pytest.mark.parametrize("options", [FrontendConfig(), RATE8])
@pytest.mark.parametrize("size", [80, 239, 240, 401, 16000, 36161])
def test_features_of_one_utterance(options: FrontendConfig, size: int) -> None:
    features, (frames,) = in_graph(options, noise(size))
    expected = compute_fbank(noise(size), options)
    assert frames == len(expected)
    np.testing.assert_allclose(features[0], expected, atol=1e-3)


def test_each_utterance_of_a_batch_is_mirrored_at_its_own_end() -> None:
    signals = [noise(size, size) for size in (16000, 7777, 90)]
    features, frames = in_graph(FrontendConfig(), *signals)
    for row, count, signal in zip(features, frames, signals, strict=True):
        expected = compute_fbank(signal, FrontendConfig())
        assert count == len(expected)
        np.testing.assert_allclose(row[:count], expected, atol=2e-3)


def test_a_loud_tone_does_not_drown_the_rest() -> None:
    """The transform is a sum of products in single precision; see test_fbank_oracle.py for how far that reaches."""
    options, time_s = FrontendConfig(), np.arange(8000) / 16000
    signal = (0.9 * np.sin(2 * np.pi * 440 * time_s) + 0.03 * noise(8000)).astype(np.float32)
    exact = in_double_precision(signal, options)
    heard = exact > exact.max(axis=1, keepdims=True) - 15
    assert 0.3 < heard.mean() < 1
    np.testing.assert_allclose(in_graph(options, signal)[0][0][heard], exact[heard], atol=1e-3)


def in_double_precision(signal: np.ndarray, options: FrontendConfig) -> np.ndarray:
    """Kaldi's definition, written out for frames of 400 samples: (T, F)."""
    mirrored = np.concatenate([signal[119::-1], signal, signal[:-401:-1]]).astype(np.float64) * 32768
    frames = np.stack([mirrored[start : start + 400] for start in range(0, len(signal) - 79, 160)])
    frames = frames - frames.mean(axis=1, keepdims=True)
    emphasised = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(emphasised * np.hanning(400) ** 0.85, 512)) ** 2
    mel = 1127 * np.log1p(np.arange(257) * 16000 / 512 / 700)
    low, high = (1127 * np.log1p(hz / 700) for hz in (options.low_freq, 8000 + options.high_freq))
    edges = np.linspace(low, high, options.num_mels + 2)
    up = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    return np.log(np.maximum(power @ np.clip(np.minimum(up, down), 0, None), np.finfo(np.float32).eps))
