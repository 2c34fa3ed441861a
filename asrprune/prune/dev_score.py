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

        The gain is the sum of the speakers' gains. Its standard error is sqrt(S) times their standard deviation, S speakers.
        With less than two speakers the standard error is not known, and any gain counts.
        """
        gains = np.subtract(other.by_speaker, self.by_speaker)
        if len(gains) < 2:
            return self.primary < other.primary
        return bool(gains.sum() > CLEAR * np.sqrt(len(gains)) * gains.std(ddof=1))


# (sub-models, most promising first; n) -> dev scores. If n is given, the result may lack scores that are not among the n best.
Scorer = Callable[[Sequence[Keep], int | None], Mapping[Keep, DevScore]]
