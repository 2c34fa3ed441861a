"""The hierarchical bootstrap: intervals of error rates and of differences that include the choice of speakers and seeds.

Errors (S, K) are the error counts of S seeds and K speakers, words (K,) the reference words of each speaker. A rate is the sum
of errors divided by the sum of words. A resample draws, with replacement, K speakers with all their utterances (the same
speakers for all systems) and S seeds, and adds the effects of both draws to the rate:

    rate* = rate + (K / (K - 1))^0.5 (rate of drawn speakers - rate) + (S / (S - 1))^0.5 (mean rate of drawn seeds - rate)

If two systems have the same seed numbers, their seeds are drawn together, otherwise separately. The variance of a resample of n
items is too small by the factor 1 - 1/n; the roots correct this. ``percentiles`` are the percentiles of the resamples. For a
test, ``bounds`` multiplies their distances from the estimate by t_p / z_p: t_p is the quantile of Student's distribution with
Satterthwaite's degrees of freedom, z_p that of the normal distribution. This matters for few seeds: two seeds have one degree
of freedom, which percentiles ignore. Both parts of a resample contain the interaction of seeds and speakers, so intervals are
slightly too wide.

Sources: Davison and Hinkley, "Bootstrap methods and their application", 1997, section 3.8 (groups are drawn with replacement
and kept whole, because a second draw inside them would count their noise twice; the factors n / (n - 1)); Bisani and Ney,
ICASSP 2004 (pairing); Liu and Peng, "Statistical testing on ASR performance via blockwise bootstrap", Interspeech 2020
(speakers as blocks); Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007 (draws of two crossed factors);
Satterthwaite, Biometrics Bulletin 1946.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist
from typing import Generic, TypeVar

import numpy as np

from asrprune.scoring.bootstrap import resampled_rates

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Runs:
    """One system, trained with each of ``seeds``: errors (S, K) of each seed and speaker."""

    seeds: tuple[int, ...]
    errors: np.ndarray


@dataclass(frozen=True)
class SeedSpread:
    """The variance of a mean over ``seeds`` seeds, in points squared."""

    seeds: int
    of_seeds: float  # from the spread between seeds
    mixed: float  # from the interaction of seeds and speakers; ``Spread.of_speakers`` contains it


@dataclass(frozen=True)
class Spread:
    """The variance of a rate or a difference, in points squared: a part from the speakers, and one from each group of seeds."""

    speakers: int
    of_speakers: float
    groups: tuple[SeedSpread, ...]

    def with_seeds(self, seeds: int) -> "Spread":
        """Return the spread with another number of seeds: the parts that depend on seeds change as 1 / seeds.

        Raises:
            ValueError: a system has one seed, so the spread between seeds is not known.
        """
        if any(group.seeds < 2 for group in self.groups):
            raise ValueError("the spread between seeds is not known from one seed")
        groups = tuple(
            SeedSpread(seeds, group.of_seeds * group.seeds / seeds, group.mixed * group.seeds / seeds) for group in self.groups
        )
        lasting = max(0.0, self.of_speakers - sum(group.mixed for group in self.groups))
        return Spread(self.speakers, lasting + sum(group.mixed for group in groups), groups)

    @property
    def variance(self) -> float:
        return self.of_speakers + sum(group.of_seeds for group in self.groups)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the variance (Satterthwaite 1946): (sum of v)^2 / sum of (v^2 / degrees of v) for parts v."""
        parts = [(self.of_speakers, self.speakers - 1), *((group.of_seeds, group.seeds - 1) for group in self.groups)]
        parts = [(variance, degrees) for variance, degrees in parts if variance > 0]
        return self.variance**2 / sum(variance**2 / degrees for variance, degrees in parts) if parts else inf


@dataclass(frozen=True, eq=False)
class Estimate:
    """A rate in percent, or a difference in points, its resamples (R,) and its spread."""

    value: float
    draws: np.ndarray
    spread: Spread

    def percentiles(self, level: float) -> tuple[float, float]:
        """Return the two-sided interval of a level such as 0.95; with two or three seeds it is too narrow."""
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def bounds(self, level: float) -> tuple[float, float]:
        """Return the interval, widened for few seeds and speakers; each end is a one-sided bound of level (1 + level) / 2."""
        share = (1 + level) / 2
        stretch = t_quantile(share, self.spread.degrees) / NormalDist().inv_cdf(share)
        low, high = self.percentiles(level)
        return self.value + stretch * (low - self.value), self.value + stretch * (high - self.value)


class Resampled(Generic[Name]):
    """Systems that are evaluated on the same resamples of the speakers of a set."""

    def __init__(self, systems: Mapping[Name, Runs], words: np.ndarray, resamples: int = 10000) -> None:
        """Resample.

        Args:
            systems: name -> errors.
            words: (K,) reference words of each speaker; at least two speakers, because one has no interval.
            resamples: the number of resamples.
        """
        assert len(words) > 1, "one speaker has no spread"
        self._systems, self._words, self._total = systems, words, float(words.sum())
        means = np.stack([runs.errors.mean(axis=0) for runs in systems.values()])
        self._draws = dict(zip(systems, resampled_rates(means, words, resamples=resamples), strict=True))

    def rate(self, name: Name) -> Estimate:
        """Return the error rate of a system, in percent."""
        return self._estimate(self._value(name), self._draws[name], [self._effects(name)])

    def difference(self, a: Name, b: Name) -> Estimate:
        """Return the rate of ``a`` minus the rate of ``b``, in points."""
        paired = self._systems[a].seeds == self._systems[b].seeds
        effects = self._effects(a), -self._effects(b)
        groups = [effects[0] + effects[1]] if paired else list(effects)
        return self._estimate(self._value(a) - self._value(b), self._draws[a] - self._draws[b], groups)

    def _value(self, name: Name) -> float:
        errors = self._systems[name].errors
        return 100.0 * float(errors.sum()) / len(errors) / self._total

    def _effects(self, name: Name) -> np.ndarray:
        """Return the effect of each seed and speaker on the rate, to first order: (S, K). A row sums to rate(seed) - rate."""
        return (100.0 * self._systems[name].errors - self._value(name) * self._words) / self._total

    def _estimate(self, value: float, speaker_draws: np.ndarray, groups: Sequence[np.ndarray]) -> Estimate:
        """Add drawn seeds to the rates of drawn speakers (R,). ``groups``: effects (S, K) of seeds that are drawn together."""
        correction = len(self._words) / (len(self._words) - 1)
        draws = value + sqrt(correction) * (speaker_draws - value)
        for rng_seed, effects in enumerate(groups, start=1):
            draws += _drawn_seeds(effects.sum(axis=1), len(draws), rng_seed)
        of_speakers = correction * float(np.square(sum(effects.mean(axis=0) for effects in groups)).sum())
        return Estimate(value, draws, Spread(len(self._words), of_speakers, tuple(_seed_spread(effects) for effects in groups)))


def of_speakers(counts: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Sum counts (..., U) of utterances over the utterances of each speaker: (..., K). ``speakers`` (U,): 0 ... K - 1."""
    rows = [np.bincount(speakers, weights=row) for row in counts.reshape(-1, len(speakers))]
    return np.reshape(rows, (*counts.shape[:-1], -1))


def t_quantile(share: float, degrees: float) -> float:
    """Return a quantile of Student's distribution, by numerical integration of its density.

    With t = sqrt(degrees) tan(angle) the density is cos(angle)^(degrees - 1). The error is at most 1e-4 for shares of 0.02 to
    0.98 and one degree or more. Above 1,000 degrees the quantile of the normal distribution is used.
    """
    if degrees > 1000:
        return NormalDist().inv_cdf(share)
    edges = np.linspace(-np.pi / 2, np.pi / 2, 4001)
    density = np.cos((edges[1:] + edges[:-1]) / 2) ** (degrees - 1)
    below = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
    return sqrt(degrees) * float(np.tan(np.interp(share, below, edges)))


def _drawn_seeds(effects: np.ndarray, resamples: int, rng_seed: int) -> np.ndarray:
    """Return the mean effect (resamples,) of seeds drawn from ``effects`` (S,), which sum to 0; 0 for a single seed."""
    count = len(effects)
    if count == 1:
        return np.zeros(resamples)
    times = np.random.default_rng(rng_seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return sqrt(count / (count - 1)) * (times @ effects) / count


def _seed_spread(effects: np.ndarray) -> SeedSpread:
    """Estimate the spread of seeds from effects (S, K), by the sums of squares of a two-way analysis of variance."""
    seeds, speakers = effects.shape
    if seeds == 1:
        return SeedSpread(1, 0.0, 0.0)
    of_seeds = effects.sum(axis=1)
    rest = effects - effects.mean(axis=0) - of_seeds[:, None] / speakers
    mixed = float(np.square(rest).sum()) / (seeds * (seeds - 1)) * speakers / (speakers - 1)
    return SeedSpread(seeds, float(of_seeds.var(ddof=1)) / seeds, mixed)
