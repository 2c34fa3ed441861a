"""The test that a pruned model is not worse than one trained for its depth, and the power of the test by number of seeds."""

from math import sqrt
from statistics import NormalDist

from asrprune.compare.hierarchical import Spread, t_quantile

MARGIN_POINTS = 0.5
MARGIN_SHARE = 0.1  # of the error rate of the model trained alone
LEVEL = 0.9  # of the two-sided interval whose upper end is the one-sided 95 % bound
MOST_SEEDS = 99
_ONE_SIDED = (1 + LEVEL) / 2


def margin(alone: float) -> float:
    """Return how many points a pruned model may lose and still count as not worse than a model of WER ``alone`` (percent).

    >>> margin(3.0), margin(20.0)
    (0.3, 0.5)
    """
    return round(min(MARGIN_POINTS, MARGIN_SHARE * alone), 6)


def power(spread: Spread, limit: float) -> float:
    """Return the probability that the upper bound of a difference lies below ``limit`` points if the true difference is 0.

    The difference d is normal with standard error se, which is estimated; the bound is d + t se. So P(d + t se < limit) =
    Phi(limit / se - t), where t is the 95 % quantile of Student's distribution with the degrees of freedom of ``spread``.
    Source: Julious, "Sample sizes for clinical trials with normal data", Statistics in Medicine 2004 (non-inferiority).
    """
    if spread.variance == 0:
        return 1.0
    return NormalDist().cdf(limit / sqrt(spread.variance) - t_quantile(_ONE_SIDED, spread.degrees))


def seeds_for(wanted: float, spread: Spread, limit: float) -> int | None:
    """Return the smallest number of seeds of each system with the power ``wanted``.

    None if more than 99 are needed, or if the spread between seeds is not known.
    """
    if any(group.seeds < 2 for group in spread.groups):
        return None
    counts = range(2, MOST_SEEDS + 1)
    return next((count for count in counts if power(spread.with_seeds(count), limit) >= wanted), None)
