"""The bootstrap against scipy's, and what must hold of any interval and of any comparison."""

import numpy as np
import pytest
from scipy import stats

from asrprune.decode import bootstrap
from asrprune.decode.bootstrap import PairedBootstrap, bootstrap_interval, compare, interval95, resampled_rates


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


def paired(errors_a: np.ndarray, errors_b: np.ndarray, words: np.ndarray, margin: float = 0.0) -> PairedBootstrap:
    """Two systems on the same draws."""
    observed = 100 * (errors_a.sum() - errors_b.sum()) / words.sum()
    return compare(observed, *resampled_rates(np.stack([errors_a, errors_b]), words), margin)


def test_comparison_is_symmetric(utterances: tuple[np.ndarray, np.ndarray]) -> None:
    errors, words = utterances
    worse = errors + (np.arange(60) % 12 == 0)
    ab, ba = paired(worse, errors, words), paired(errors, worse, words)
    assert ab.difference == -ba.difference == pytest.approx(100 * 5 / words.sum())
    assert ab.ci95 == pytest.approx((-ba.ci95[1], -ba.ci95[0]))
    assert ab.ci95[0] < ab.difference < ab.ci95[1]
    assert ab.probability_worse > 0.98
    assert ba.probability_worse == 0


def test_margin_of_a_comparison(utterances: tuple[np.ndarray, np.ndarray]) -> None:
    _, words = utterances
    everywhere = paired(words, 0 * words, words, margin=99.0)
    assert (everywhere.difference, everywhere.ci95, everywhere.probability_worse) == (100, (100, 100), 1)
    assert paired(words, 0 * words, words, margin=100.0).probability_worse == 0
    assert paired(words, words, words).probability_worse == 0


def test_pairing_removes_what_both_systems_share(utterances: tuple[np.ndarray, np.ndarray]) -> None:
    errors, words = utterances
    low, high = bootstrap_interval(errors, words)
    difference = paired(errors + (np.arange(60) % 12 == 0), errors, words).ci95
    assert difference[1] - difference[0] < (high - low) / 2
