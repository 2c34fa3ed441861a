"""SpecAugment: how many masks, how wide, where; 0 inside and nothing changed outside. Volume: as if the signal were louder."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from asrprune.config.schema import AugmentConfig, FrontendConfig
from asrprune.features.augment import _between_bins, change_vocal_tract, change_volume, spec_augment, warped_bins
from asrprune.features.fbank import compute_fbank

BATCH, FRAMES, MELS = 400, 100, 80


def masked(config: AugmentConfig, batch: int = BATCH, frames: int = FRAMES, mels: int = MELS) -> Tensor:
    """(B, T, F) bool: where ones were replaced."""
    torch.manual_seed(0)
    augmented = spec_augment(torch.ones(batch, frames, mels), config)
    assert augmented.shape == (batch, frames, mels)
    assert set(augmented.unique().tolist()) <= {0.0, 1.0}
    return augmented == 0.0


def runs(line: Tensor) -> list[int]:
    """Widths of the masked stretches of a bool line."""
    values, counts = torch.unique_consecutive(line, return_counts=True)
    return counts[values].tolist()


def config(freq: tuple[int, int] = (0, 27), time: tuple[int, float] = (0, 0.05)) -> AugmentConfig:
    frequencies = {"num_freq_masks": freq[0], **({"max_freq_mask": freq[1]} if freq[0] else {})}
    times = {"num_time_masks": time[0], **({"max_time_mask": time[1]} if time[0] else {})}
    return AugmentConfig.model_validate(frequencies | times)


@pytest.mark.parametrize("widest", [1, 5, 27])
def test_one_frequency_mask_has_every_width_up_to_the_widest_and_no_other(widest: int) -> None:
    where = masked(config(freq=(1, widest)))
    assert bool((where == where[:, :1]).all()), "a band is masked in all frames alike"
    bands = [runs(line) for line in where[:, 0]]
    assert max(len(band) for band in bands) == 1
    assert {sum(band) for band in bands} == set(range(widest + 1))


@pytest.mark.parametrize(("share", "widest"), [(0.05, 5), (0.1, 10), (0.019, 1)])
def test_one_time_mask_has_every_width_up_to_its_share(share: float, widest: int) -> None:
    where = masked(config(time=(1, share)))
    assert bool((where == where[:, :, :1]).all()), "a span is masked in all bins alike"
    spans = [runs(line) for line in where[:, :, 0]]
    assert max(len(span) for span in spans) == 1
    assert {sum(span) for span in spans} == set(range(widest + 1))


def test_masks_begin_anywhere() -> None:
    """A mask of width f begins in [0, F - f), as in the paper: the last bin is never masked, the one before it is."""
    where = masked(config(freq=(1, 27), time=(1, 0.2)), batch=800)
    bins, frames = where.all(dim=1).any(dim=0), where.all(dim=2).any(dim=0)
    assert bins.tolist() == [True] * (MELS - 1) + [False]
    assert frames.tolist() == [True] * (FRAMES - 1) + [False]


def test_there_are_as_many_masks_as_asked_for() -> None:
    bands = [len(runs(line)) for line in masked(config(freq=(3, 4)))[:, 0]]
    spans = [len(runs(line)) for line in masked(config(time=(4, 0.03)))[:, :, 0]]
    assert max(bands) == 3
    assert max(spans) == 4


@pytest.mark.parametrize(
    "none", [config(freq=(0, 27)), config(freq=(2, 0)), config(time=(5, 0.0)), config(time=(5, 0.009)), config(time=(0, 1.0))]
)
def test_nothing_is_masked_where_nothing_is_asked_for(none: AugmentConfig) -> None:
    assert not bool(masked(none).any())


def test_values_outside_the_masks_are_untouched_and_the_input_too() -> None:
    torch.manual_seed(1)
    features = torch.randn(8, FRAMES, MELS)
    before = features.clone()
    augmented = spec_augment(features, config(freq=(2, 27), time=(2, 0.1)))
    assert torch.equal(features, before)
    kept = augmented != 0.0
    assert torch.equal(augmented[kept], features[kept])
    assert 0.3 < float(kept.float().mean()) < 0.95


def test_every_utterance_has_masks_of_its_own() -> None:
    where = masked(config(freq=(2, 27), time=(2, 0.1)), batch=16)
    assert len({tuple(line.tolist()) for line in where[:, 0]}) > 12
    assert len({tuple(line.tolist()) for line in where[:, :, 0]}) > 12


def test_the_seed_decides() -> None:
    features = torch.ones(4, FRAMES, MELS)
    first, again, other = (spec_augment(features, AugmentConfig()) for seed in (3, 3, 4) if torch.manual_seed(seed))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_masks_wider_than_the_spectrum_and_one_frame_do_no_harm() -> None:
    masked(config(freq=(2, 500), time=(2, 1.0)), batch=50, frames=1, mels=8)
    masked(config(freq=(2, 500), time=(2, 1.0)), batch=50, frames=0, mels=8)


# -- volume


def test_volume_is_that_of_the_louder_signal() -> None:
    """Features of a scaled signal, normalised, are what the gain makes of the signal's own; gains differ and stay within."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0.0, 0.02, 16000).astype(np.float32)
    options, mean, scale = FrontendConfig(), torch.linspace(8.0, 12.0, 80), torch.linspace(0.2, 0.5, 80)

    def normalised(signal: np.ndarray) -> Tensor:
        return (torch.from_numpy(compute_fbank(signal, options)) - mean) * scale

    torch.manual_seed(0)
    original = normalised(samples)
    louder = change_volume(original.expand(200, -1, -1), scale, AugmentConfig(volume_db=6.0))
    gains_db = ((louder - original) / scale).mean(dim=(1, 2)) * 10.0 / math.log(10.0)
    assert -6.0 <= gains_db.min() < -5.0
    assert 5.0 < gains_db.max() <= 6.0
    for row in (0, 1):
        torch.testing.assert_close(louder[row], normalised(samples * 10 ** (float(gains_db[row]) / 20)), atol=1e-3, rtol=0.0)


def test_no_volume_change_draws_nothing() -> None:
    features = torch.randn(2, 5, 3)
    state = torch.get_rng_state()
    assert change_volume(features, torch.ones(3), AugmentConfig()) is features
    assert torch.equal(torch.get_rng_state(), state)


# -- vocal tract


def test_a_scaled_tone_is_found_where_its_frequency_went() -> None:
    """The spectrum of a tone, read at f / 1.2 for every f, has its peak where a tone of 1.2 times the frequency has its own."""
    options, seconds = FrontendConfig(), np.arange(16000) / 16000
    for hz in (500.0, 1500.0, 3000.0):
        low, high = (
            torch.from_numpy(compute_fbank(0.1 * np.sin(2 * np.pi * f * seconds).astype(np.float32), options))
            for f in (hz, 1.2 * hz)
        )
        warped = low.unsqueeze(0) @ _between_bins(warped_bins(torch.tensor([1 / 1.2]), options), 80)
        assert abs(int(warped[0, 50].argmax()) - int(high[50].argmax())) <= 1


def test_a_factor_of_one_changes_nothing_and_the_edges_hold() -> None:
    options = FrontendConfig()
    bins = warped_bins(torch.tensor([1.0, 0.5, 2.0]), options)
    torch.testing.assert_close(bins[0], torch.arange(80.0), atol=1e-4, rtol=0.0)
    assert bins.min() >= 0.0
    assert bins.max() <= 79.0
    weights = _between_bins(bins, 80)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, 80))


def test_each_utterance_has_a_factor_of_its_own_within_the_range() -> None:
    torch.manual_seed(0)
    options, ramp = FrontendConfig(), torch.arange(80.0).expand(300, 4, 80)
    moved = change_vocal_tract(ramp, options, AugmentConfig(vocal_tract=0.1))[:, 0, 40]  # of a ramp, the place itself
    least, most = (float(warped_bins(torch.tensor([factor]), options)[0, 40]) for factor in (0.9, 1.1))
    assert least <= moved.min() < least + 0.2
    assert most - 0.2 < moved.max() <= most
    state = torch.get_rng_state()
    assert change_vocal_tract(ramp, options, AugmentConfig()) is ramp
    assert torch.equal(torch.get_rng_state(), state)
