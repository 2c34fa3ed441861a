"""Confidence intervals of error rates by the bootstrap over utterances."""

from statistics import NormalDist

import numpy as np

_MAX_DRAWS = 1 << 20  # draws at once, which limits the memory to 8 MB per array
_MOST_RESAMPLED = 100_000  # utterances; 10,000 resamples of so many take half a minute


def bootstrap_interval(errors: np.ndarray, ref_words: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval, in percent, of sum(errors) / sum(ref_words); both (U,), a number per utterance.

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
    For more than 100,000 utterances the normal approximation is used instead.
    """
    if len(ref_words) > _MOST_RESAMPLED:
        return normal_interval(errors, ref_words)
    return interval95(resampled_rates(errors[None], ref_words)[0])


def normal_interval(errors: np.ndarray, ref_words: np.ndarray) -> tuple[float, float]:
    """Approximate ``bootstrap_interval`` by the delta method, in percent.

    With r = sum(e) / sum(w) the interval is r +- 1.96 s, where s = sqrt(sum((e - r w)^2)) / sum(w) is, to first order, the
    standard deviation of a ratio of sums over utterances drawn with replacement.
    Source: Cochran, "Sampling techniques", 3rd edition, 1977, chapter 6 (ratio estimators).
    """
    total = float(ref_words.sum())
    rate = float(errors.sum()) / total
    spread = NormalDist().inv_cdf(0.975) * float(np.linalg.norm(errors - rate * ref_words)) / total
    return 100 * max(0.0, rate - spread), 100 * (rate + spread)


def resampled_rates(errors: np.ndarray, ref_words: np.ndarray, seed: int = 0, resamples: int = 10000) -> np.ndarray:
    """Return the WER in percent of resampled utterances: errors (S, U) of S systems, ref_words (U,) -> (S, resamples).

    A resample has the same utterances for all systems.
    """
    assert errors.shape[1:] == ref_words.shape, f"{errors.shape[1:]} error counts for {ref_words.shape} references"
    assert ref_words.size, "there are no utterances to draw from"
    assert ref_words.min() > 0, "every utterance needs reference words"
    rng, count = np.random.default_rng(seed), len(ref_words)
    step = max(1, _MAX_DRAWS // count)
    rates = []
    for done in range(0, resamples, step):
        rows = min(step, resamples - done)
        drawn = rng.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
        rates.append(100 * (errors @ times.T) / (times @ ref_words))  # sums of integers: exact
    return np.concatenate(rates, axis=1)


def interval95(values: np.ndarray) -> tuple[float, float]:
    """Return the percentiles 2.5 and 97.5."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
