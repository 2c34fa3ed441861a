"""Intervals of error rates and their differences that hold the choice of speakers and seeds: the hierarchical bootstrap.

Errors (S, K) are counts of S seeds and K speakers, words (K,) those of the references; a rate is sum of errors / sum of words.
A resample draws K speakers, each with all that it says, for all systems alike, and S seeds, and adds what both do to the rate:

    rate* = rate + (K / (K - 1))^0.5 (rate of drawn speakers - rate) + (S / (S - 1))^0.5 (mean rate of drawn seeds - rate)

Seeds of two systems are drawn together if both have the same seed numbers, else each for itself. The roots undo that a resample
of n varies by 1 - 1/n too little. ``percentiles`` are those of the resamples; for a test, ``bounds`` stretches their distances
from the estimate by t_p / z_p, quantiles of Student's and the normal distribution, with Satterthwaite's degrees of freedom: two
seeds have one degree, of which percentiles know nothing. What seeds and speakers do together is in both parts of a resample, so
an interval is somewhat wider than it need be.

Sources: Davison and Hinkley, "Bootstrap methods and their application", 1997, section 3.8 (groups are drawn with replacement,
what is in them is kept: drawing inside them, too, would count their noise twice; factors for small groups); Bisani and Ney,
ICASSP 2004 (pairing); Liu and Peng, "Statistical testing on ASR performance via blockwise bootstrap", Interspeech 2020
(speakers as blocks); Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007 (two crossed kinds of draws);
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
    """Variance of a mean over ``seeds`` of them, in points squared."""

    seeds: int
    of_seeds: float  # from the spread between seeds
    mixed: float  # from what seeds and speakers do together; it is a part of the variance that is due to speakers


@dataclass(frozen=True)
class Spread:
    """Variance of a rate or a difference, in points squared: from the choice of speakers, and of each group of seeds."""

    speakers: int
    of_speakers: float
    groups: tuple[SeedSpread, ...]

    def with_seeds(self, seeds: int) -> "Spread":
        """Compute the interval for another number of seeds: speakers remain, the rest falls in proportion.

        Raises:
            ValueError: the spread between seeds is not known, as a system has one seed.
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
        """Degrees of freedom of the variance (Satterthwaite 1946): (sum of v)^2 / sum of v^2 / degrees of v."""
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
        """The two-sided interval of a level such as 0.95 from the resamples alone; with two or three seeds it is too narrow."""
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def bounds(self, level: float) -> tuple[float, float]:
        """Compute the interval, stretched for few seeds and speakers; an end is a one-sided bound of level (1 + level) / 2."""
        share = (1 + level) / 2
        stretch = t_quantile(share, self.spread.degrees) / NormalDist().inv_cdf(share)
        low, high = self.percentiles(level)
        return self.value + stretch * (low - self.value), self.value + stretch * (high - self.value)


class Resampled(Generic[Name]):
    """Systems on the same resamples of a set's speakers."""

    def __init__(self, systems: Mapping[Name, Runs], words: np.ndarray, resamples: int = 10000) -> None:
        """``words`` (K,): of each speaker; there must be two of them at least, as there is no interval of one."""
        assert len(words) > 1, "one speaker has no spread"
        self._systems, self._words, self._total = systems, words, float(words.sum())
        means = np.stack([runs.errors.mean(axis=0) for runs in systems.values()])
        self._draws = dict(zip(systems, resampled_rates(means, words, resamples=resamples), strict=True))

    def rate(self, name: Name) -> Estimate:
        """The error rate of a system, in percent."""
        return self._estimate(self._value(name), self._draws[name], [self._effects(name)])

    def difference(self, a: Name, b: Name) -> Estimate:
        """Rate of ``a`` minus rate of ``b``, in points."""
        paired = self._systems[a].seeds == self._systems[b].seeds
        effects = self._effects(a), -self._effects(b)
        groups = [effects[0] + effects[1]] if paired else list(effects)
        return self._estimate(self._value(a) - self._value(b), self._draws[a] - self._draws[b], groups)

    def _value(self, name: Name) -> float:
        errors = self._systems[name].errors
        return 100.0 * float(errors.sum()) / len(errors) / self._total

    def _effects(self, name: Name) -> np.ndarray:
        """Compute what each seed and speaker adds to the rate, to first order: (S, K); a row sums to rate(seed) - rate."""
        return (100.0 * self._systems[name].errors - self._value(name) * self._words) / self._total

    def _estimate(self, value: float, of_speakers: np.ndarray, groups: Sequence[np.ndarray]) -> Estimate:
        small = len(self._words) / (len(self._words) - 1)
        draws = value + sqrt(small) * (of_speakers - value)
        for place, effects in enumerate(groups, start=1):
            draws += _drawn_seeds(effects.sum(axis=1), len(draws), seed=place)
        spread = small * float(np.square(sum(effects.mean(axis=0) for effects in groups)).sum())
        return Estimate(value, draws, Spread(len(self._words), spread, tuple(_seed_spread(effects) for effects in groups)))


def of_speakers(counts: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Counts (..., U) of utterances summed over those of each speaker 0 ... K - 1 in ``speakers`` (U,): (..., K)."""
    rows = [np.bincount(speakers, weights=row) for row in counts.reshape(-1, len(speakers))]
    return np.reshape(rows, (*counts.shape[:-1], -1))


def t_quantile(share: float, degrees: float) -> float:
    """Quantile of Student's distribution: its density in t = sqrt(degrees) tan(angle) is cos(angle)^(degrees - 1), summed up.

    Good to 1e-4 between 0.02 and 0.98 from one degree on; above 1,000 degrees that of the normal distribution.
    """
    if degrees > 1000:
        return NormalDist().inv_cdf(share)
    edges = np.linspace(-np.pi / 2, np.pi / 2, 4001)
    density = np.cos((edges[1:] + edges[:-1]) / 2) ** (degrees - 1)
    below = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
    return sqrt(degrees) * float(np.tan(np.interp(share, below, edges)))


def _drawn_seeds(effects: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Mean effect (resamples,) of seeds drawn from ``effects`` (S,), which sum to 0; none of a single seed."""
    count = len(effects)
    if count == 1:
        return np.zeros(resamples)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return sqrt(count / (count - 1)) * (times @ effects) / count


def _seed_spread(effects: np.ndarray) -> SeedSpread:
    """Estimate the spread of seeds from effects (S, K), by the sums of squares of an analysis of variance in two directions."""
    seeds, speakers = effects.shape
    if seeds == 1:
        return SeedSpread(1, 0.0, 0.0)
    of_seeds = effects.sum(axis=1)
    rest = effects - effects.mean(axis=0) - of_seeds[:, None] / speakers
    mixed = float(np.square(rest).sum()) / (seeds * (seeds - 1)) * speakers / (speakers - 1)
    return SeedSpread(seeds, float(of_seeds.var(ddof=1)) / seeds, mixed)
