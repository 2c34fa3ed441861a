"""The score of a sub-model on the dev set, and what tells it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from asrprune.experiment.plan import Keep


@dataclass(frozen=True, order=True)
class DevScore:
    """Lower is better; the loss decides between equal errors."""

    primary: float  # in the plan's metric
    tie_break: float


# Sub-models, the promising first -> their dev scores; with a number n, those that cannot be among the n best may be missing.
Scorer = Callable[[Sequence[Keep], int | None], Mapping[Keep, DevScore]]
