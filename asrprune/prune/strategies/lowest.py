"""Keep the lowest layers."""

from collections.abc import Sequence

from asrprune.experiment.plan import Step


def lowest(depths: Sequence[int]) -> tuple[Step, ...]:
    """Keep layers 1..d."""
    return tuple(Step.of(tuple(range(1, depth + 1))) for depth in sorted(set(depths), reverse=True))
