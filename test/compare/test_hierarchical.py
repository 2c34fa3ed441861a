"""The hierarchical bootstrap against the plain one, SciPy, Welch, the analysis of variance, and simulation."""

import time
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from asrprune.compare.hierarchical import Resampled, Runs, SeedSpread, Spread, of_speakers, t_quantile
from asrprune.scoring.bootstrap import resampled_rates


def runs(*errors: np.ndarray, first: int = 1) -> Runs:
    """A system with a seed for each row of errors."""
    return Runs(tuple(range(first, first + len(errors))), np.stack(errors))


@pytest.fixture
def words() -> np.ndarray:
    return np.random.default_rng(3).integers(3, 20, size=80)


def test_with_one_seed_and_a_speaker_for_each_utterance_it_is_the_plain_paired_bootstrap(words: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.binomial(words, 0.3), rng.binomial(words, 0.25)
    estimate = Resampled({"a": runs(a), "b": runs(b)}, words).difference("a", "b")
    plain = np.subtract(*resampled_rates(np.stack([a, b]), words))
    value = 100 * (a.sum() - b.sum()) / words.sum()
    assert estimate.value == pytest.approx(value)
    assert (estimate.draws - value) / sqrt(80 / 79) + value == pytest.approx(plain)
    theirs = stats.bootstrap(
        (a, b, words),
        lambda a, b, w, axis: 100 * (a.sum(axis=axis) - b.sum(axis=axis)) / w.sum(axis=axis),
        paired=True, vectorized=True, method="percentile", n_resamples=10000, confidence_level=0.9, random_state=5,
    ).confidence_interval  # fmt: skip
    assert estimate.percentiles(0.9) == pytest.approx((theirs.low, theirs.high), abs=0.04 * (theirs.high - theirs.low))
    stretch = stats.t.ppf(0.95, 79) / stats.norm.ppf(0.95)
    low, high = estimate.percentiles(0.9)
    assert estimate.bounds(0.9) == pytest.approx((value + stretch * (low - value), value + stretch * (high - value)), abs=1e-4)


def test_speakers_are_drawn_with_all_that_they_say() -> None:
    speakers, errors, words = np.repeat(np.arange(20), 5), np.tile([0, 4], 50), np.full(100, 5)
    errors = np.where(speakers < 10, 0, 4)  # a speaker is good or bad, and all alike within
    whole = Resampled({"a": runs(of_speakers(errors, speakers))}, of_speakers(words, speakers)).rate("a")
    alone = Resampled({"a": runs(errors)}, words).rate("a")
    assert whole.value == alone.value == 40
    assert np.std(whole.draws) == pytest.approx(sqrt(5) * np.std(alone.draws), rel=0.05)
    assert np.std(whole.draws) == pytest.approx(np.std([0, 80] * 10, ddof=1) / sqrt(20), rel=0.03)


def test_where_only_seeds_differ_the_variance_is_theirs_and_the_bound_students() -> None:
    words, errors = np.full(50, 10), np.array([[1], [2], [3], [3]]) * np.ones((1, 50))
    estimate = Resampled({"a": runs(*errors), "b": runs(*np.zeros((4, 50)))}, words).difference("a", "b")
    seeds = 100 * errors[:, 0] / 10
    assert estimate.value == pytest.approx(seeds.mean())
    assert np.std(estimate.draws) == pytest.approx(np.std(seeds, ddof=1) / 2, rel=0.02)
    assert sqrt(estimate.spread.variance) == pytest.approx(stats.sem(seeds))
    assert estimate.spread.degrees == pytest.approx(3)
    stretched = (np.quantile(estimate.draws, 0.95) - seeds.mean()) * stats.t.ppf(0.95, 3) / stats.norm.ppf(0.95)
    assert estimate.bounds(0.9)[1] == pytest.approx(seeds.mean() + stretched, abs=1e-3)


def test_seeds_of_one_number_are_drawn_together_and_others_each_for_itself() -> None:
    words = np.full(40, 10)
    errors = np.array([[1], [2], [4], [5], [3], [0]]) * np.ones((1, 40))
    a, same, other = runs(*errors), runs(*(errors + 1)), runs(*(errors + 1), first=7)
    resampled = Resampled({"a": a, "same": same, "other": other}, words)
    assert np.ptp(resampled.difference("a", "same").draws) == pytest.approx(0, abs=1e-9)
    apart = resampled.difference("a", "other")
    assert apart.value == pytest.approx(-10)
    welch = stats.ttest_ind(errors[:, 0], errors[:, 0] + 1, equal_var=False)
    assert sqrt(apart.spread.variance) == pytest.approx(10 * 1 / abs(welch.statistic))
    assert apart.spread.degrees == pytest.approx(welch.df)
    assert np.std(apart.draws) == pytest.approx(10 / abs(welch.statistic), rel=0.03)


def test_the_parts_of_the_variance_are_those_of_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(8)
    seeds, speakers, words = 5, 30, np.full(30, 10)
    errors = rng.poisson(3, size=(seeds, speakers)) + np.arange(seeds)[:, None]
    spread = Resampled({"a": runs(*errors)}, words).rate("a").spread
    cells = 100 * errors / 10
    rest = cells - cells.mean(0) - cells.mean(1)[:, None] + cells.mean()
    mean_square = (rest**2).sum() / ((seeds - 1) * (speakers - 1))
    assert spread.of_speakers == pytest.approx(cells.mean(0).var(ddof=1) / speakers)
    assert spread.groups[0].of_seeds == pytest.approx(cells.mean(1).var(ddof=1) / seeds)
    assert spread.groups[0].mixed == pytest.approx(mean_square / (seeds * speakers))


def test_more_seeds_leave_what_speakers_do_alone() -> None:
    spread = Spread(100, 5.0, (SeedSpread(2, 4.0, 3.0),))
    assert spread.with_seeds(2) == spread
    more = spread.with_seeds(8)
    assert (more.of_speakers, more.groups[0].of_seeds) == (2.0 + 3.0 / 4, 1.0)
    assert more.degrees > spread.degrees
    assert Spread(100, 1.0, (SeedSpread(2, 4.0, 3.0),)).with_seeds(2).of_speakers == 3.0  # an estimate below 0 counts as 0
    with pytest.raises(ValueError, match="not known from one seed"):
        Spread(100, 5.0, (SeedSpread(1, 0.0, 0.0),)).with_seeds(2)


@pytest.mark.parametrize("degrees", [1, 1.3, 2.5, 7, 60, 900])
@pytest.mark.parametrize("share", [0.025, 0.05, 0.95, 0.975])
def test_students_quantile_is_scipys(share: float, degrees: float) -> None:
    assert t_quantile(share, degrees) == pytest.approx(stats.t.ppf(share, degrees), rel=1e-4)


def test_of_many_degrees_it_is_the_normal_one() -> None:
    assert t_quantile(0.95, 5000.0) == pytest.approx(stats.norm.ppf(0.95))


@pytest.mark.parametrize(("seeds", "of_seeds"), [(2, 0.2), (4, 0.4)])
def test_the_bound_lies_above_the_true_difference_as_often_as_it_says(seeds: int, of_seeds: float) -> None:
    """Two systems of the same true rate: seeds move theirs by 100 * of_seeds / 20 points, speakers both alike."""
    rng, speakers, words, held = np.random.default_rng(seeds), 40, np.full(40, 50), 0
    for _ in range(400):
        hard = rng.gamma(4, 2.5 / 4, size=speakers)
        errors = rng.poisson(hard * (1 + of_seeds * rng.normal(size=(2, seeds, 1))).clip(0))
        estimate = Resampled({"a": runs(*errors[0]), "b": runs(*errors[1])}, words, resamples=1000).difference("a", "b")
        held += estimate.bounds(0.9)[1] > 0
    assert 0.92 <= held / 400 <= 0.99  # 95 %, and more where seeds and speakers mix; its standard error is 1.1 %


def test_four_seeds_of_two_thousand_utterances_take_seconds() -> None:
    rng, words = np.random.default_rng(0), np.full(2000, 6)
    systems = {name: runs(*rng.binomial(6, 0.1, size=(4, 2000))) for name in ("a", "b")}
    begun = time.process_time()
    Resampled(systems, words).difference("a", "b").bounds(0.9)
    assert time.process_time() - begun < 10
