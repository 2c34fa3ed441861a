"""Resampling in numpy: torchaudio's result, and the same in parts of any size."""

import tracemalloc
from math import ceil, gcd

import numpy as np
import pytest
import torch

from asrprune.features.resample import SPEED_FILTER, at_rate, change_speed
from asrprune.runtime.errors import UserError
from asrprune.runtime.torch_pair import import_torchaudio


def resampled(samples: np.ndarray, source: int, target: int, part: int) -> np.ndarray:
    """The samples at another rate, read in parts of this size."""
    read, count = at_rate("x", lambda start, count: samples[start : start + count], len(samples), source, target)
    parts = [read(start, min(part, count - start)) for start in range(0, count, part)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


@pytest.mark.parametrize("source", [8000, 11025, 22050, 32000, 44100, 48000, 96000])
def test_it_is_torchaudio_at_any_length(source: int) -> None:
    """torchaudio computes its filter in the type of the samples; in float64 it is exact."""
    resample = import_torchaudio().functional.resample
    for count in (1, 2, 500, 7919):
        samples = np.random.default_rng(count).normal(0.0, 0.1, count)
        expected = resample(torch.from_numpy(samples), source, 16000, **SPEED_FILTER).numpy()
        assert len(expected) == ceil(count * 16000 / source)
        for part in (len(expected), 777):
            np.testing.assert_allclose(resampled(samples, source, 16000, part), expected, atol=3e-7, rtol=0.0)


def test_a_tone_keeps_its_pitch_at_a_rate_without_a_common_factor() -> None:
    """22254 Hz, of old Macs, has 8000 samples for 11127; 1 kHz stays 1 kHz away from the edges."""
    assert gcd(22254, 16000) == 2
    tone = np.sin(2 * np.pi * 1000 * np.arange(4000) / 22254).astype(np.float32)
    found = resampled(tone, 22254, 16000, 10_000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(found)) / 16000)
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=1e-3)


def test_what_is_above_the_new_nyquist_frequency_is_gone() -> None:
    tone = np.sin(2 * np.pi * 9000 * np.arange(48000) / 48000).astype(np.float32)
    assert np.abs(resampled(tone, 48000, 16000, 16000)[500:-500]).max() < 1e-4


def test_its_own_rate_is_untouched_and_strange_rates_are_refused() -> None:
    samples = np.random.default_rng(0).normal(size=100).astype(np.float32)
    np.testing.assert_array_equal(resampled(samples, 16000, 16000, 33), samples)
    for rate in (0, 50, 2_000_000, 44100.5):
        with pytest.raises(UserError, match=rf"x: is sampled at {rate} Hz, but only whole rates of 4000 to 192000 Hz"):
            resampled(samples, rate, 16000, 33)  # type: ignore[arg-type]


@pytest.mark.parametrize("speed", [1.1, 9.99994])
def test_a_speed_without_a_common_factor_takes_little_memory(speed: float) -> None:
    """At 11025 Hz it is any speed; a filter as long as torchaudio's would take gigabytes for each utterance."""
    samples = np.random.default_rng(0).normal(0.0, 0.1, 11025).astype(np.float32)
    tracemalloc.start()
    try:
        changed = change_speed(samples, 11025, speed)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(changed) == ceil(11025 * 11025 / round(11025 * speed))
    assert most < 300e6
