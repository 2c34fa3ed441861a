"""The score of a sub-model on the dev set, and the type of a function that computes scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from asrprune.experiment.plan import Keep


@dataclass(frozen=True, order=True)
class DevScore:
    """The score of a sub-model; lower is better."""

    primary: float  # in the metric of the plan
    tie_break: float  # in the other metric; decides between equal ``primary``


# (sub-models, most promising first; n) -> dev scores. If n is given, the result may lack scores that are not among the n best.
Scorer = Callable[[Sequence[Keep], int | None], Mapping[Keep, DevScore]]
