"""The score of a sub-model on the dev set, and the type of a function that computes scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from asrprune.experiment.plan import Keep

CLEAR = 2.0  # standard errors


@dataclass(frozen=True, order=True)
class DevScore:
    """The score of a sub-model; lower is better."""

    primary: float  # in the metric of the plan
    tie_break: float  # in the other metric; decides between equal ``primary``
    by_speaker: tuple[float, ...] = field(default=(), compare=False)  # errors, or loss, of each speaker; the metric of the plan

    def clearly_better(self, other: "DevScore") -> bool:
        """Return whether the gain over ``other`` exceeds ``CLEAR`` standard errors.

        With less than two speakers the standard error is not known, and any gain counts.
        """
        gains = np.subtract(other.by_speaker, self.by_speaker)
        if len(gains) < 2:
            return self.primary < other.primary
        return bool(gains.sum() > CLEAR * standard_error(gains))


def standard_error(gains: np.ndarray) -> float:
    """Return the standard error of the sum of the gains of at least two speakers, (S,): sqrt(S) * their standard deviation."""
    return float(np.sqrt(len(gains)) * gains.std(ddof=1))


# (sub-models, most promising first; n) -> dev scores. If n is given, the result may lack scores that are not among the n best.
Scorer = Callable[[Sequence[Keep], int | None], Mapping[Keep, DevScore]]
