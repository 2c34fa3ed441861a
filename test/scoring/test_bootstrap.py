"""The bootstrap against scipy's, and what must hold of any interval and of any comparison."""

import numpy as np
import pytest
from scipy import stats

from asrprune.scoring import bootstrap
from asrprune.scoring.bootstrap import bootstrap_interval, interval95, resampled_rates


@pytest.fixture
def utterances() -> tuple[np.ndarray, np.ndarray]:
    """Errors and reference words of 60 utterances, about 30 % WER."""
    rng = np.random.default_rng(11)
    words = rng.integers(3, 20, size=60)
    return rng.binomial(words, 0.3), words


def test_interval_is_scipys(utterances: tuple[np.ndarray, np.ndarray]) -> None:
    errors, words = utterances
    theirs = stats.bootstrap(
        (errors, words),
        lambda e, w, axis: 100 * e.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20000,
        random_state=5,
    ).confidence_interval
    low, high = interval95(resampled_rates(errors[None], words, resamples=20000)[0])
    # Two runs of 20,000 resamples differ by about 1 % of the width.
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.04 * (theirs.high - theirs.low))


def test_interval_sanity(utterances: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    errors, words = utterances
    assert bootstrap_interval(0 * words, words) == (0, 0)
    assert bootstrap_interval(words, words) == (100, 100)
    low, high = bootstrap_interval(errors, words)
    assert low < 100 * errors.sum() / words.sum() < high
    assert interval95(resampled_rates(errors[None], words)[0]) == (low, high)
    assert interval95(resampled_rates(errors[None], words, seed=1)[0]) != (low, high)
    monkeypatch.setattr(bootstrap, "_MAX_DRAWS", 1000)  # less memory at once, same numbers
    assert bootstrap_interval(errors, words) == (low, high)


def test_the_interval_of_many_utterances_is_that_of_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    words = rng.integers(3, 40, size=4000)
    errors = rng.binomial(words, rng.choice([0.02, 0.3], size=4000))  # some utterances are much harder
    resampled = bootstrap_interval(errors, words)
    monkeypatch.setattr(bootstrap, "_MOST_RESAMPLED", 3999)
    normal = bootstrap_interval(errors, words)
    assert normal != resampled  # which 10,000 resamples know to about 1 % of the width
    assert normal == pytest.approx(resampled, abs=0.03 * (resampled[1] - resampled[0]))
    assert sum(normal) / 2 == pytest.approx(100 * errors.sum() / words.sum())
    assert bootstrap_interval(0 * words, words) == (0, 0)
    assert bootstrap_interval(words, words) == (100, 100)
    assert bootstrap_interval(1 * (np.arange(4000) == 7), words)[0] == 0
