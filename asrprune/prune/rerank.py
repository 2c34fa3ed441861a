"""Choosing among the proposals of a strategy by dev scores."""

from collections.abc import Mapping, Sequence

from asrprune.experiment.plan import Keep, Step
from asrprune.prune.dev_score import Scorer


def rerank(proposals: Mapping[int, Sequence[Keep]], score: Scorer) -> tuple[Step, ...]:
    """Choose for each depth the proposal with the best dev score; of equal ones, the first."""
    steps = []
    for depth in sorted(proposals, reverse=True):
        found = score(proposals[depth], 1)
        best = min(found, key=lambda keep: (found[keep], proposals[depth].index(keep)))
        steps.append(Step.of(best, found[best].primary))
    return tuple(steps)
