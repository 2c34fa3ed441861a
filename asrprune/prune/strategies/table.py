"""The table of strategies. To add one, write its file, a line here, and its name and needs in asrprune/config/strategies.py."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from asrprune.experiment.plan import Keep, Step
from asrprune.prune.evidence import Evidence
from asrprune.prune.rerank import rerank
from asrprune.prune.strategies.every import every
from asrprune.prune.strategies.influence import influence
from asrprune.prune.strategies.iterative import iterative
from asrprune.prune.strategies.lowest import lowest
from asrprune.prune.strategies.svcca import svcca


@dataclass(frozen=True)
class Strategy:
    """An entry of the table: a strategy, and how reports show it."""

    choose: Callable[[Evidence], tuple[Step, ...]]
    label: str  # the rest of a sentence that begins with the name
    colour: str  # a colour of Okabe and Ito, which colour-blind readers can distinguish
    marker: str  # for black and white


def _best(proposals: Mapping[int, Sequence[Keep]], given: Evidence) -> tuple[Step, ...]:
    """Return the first proposal for each depth, or with ``prune.rerank`` above 1 the one with the best dev score."""
    if given.options.rerank > 1:
        return rerank(proposals, given.score)
    return tuple(Step.of(first) for first, *_ in proposals.values())


STRATEGIES: dict[str, Strategy] = {  # the order in tables and legends
    "iterative": Strategy(
        lambda given: iterative(given.num_layers, given.score, min(given.depths), given.options.beam),
        "removes one layer after another, each time the layer whose removal adds the fewest errors", "#0072B2", "o",
    ),
    "svcca": Strategy(
        lambda given: _best(svcca(given.similarity, given.depths, given.options.rerank), given),
        "removes the layers that change their input least, by SVCCA similarity", "#D55E00", "s",
    ),
    "influence": Strategy(
        lambda given: influence(given.influence, given.depths),
        "removes the layers whose output has the highest cosine with their input", "#E69F00", "v",
    ),
    "every": Strategy(
        lambda given: every(given.num_layers, given.depths), "keeps layers spread evenly", "#009E73", "^",
    ),
    "lowest": Strategy(lambda given: lowest(given.depths), "keeps the lowest layers", "#CC79A7", "D"),
}  # fmt: skip


def rank(name: str) -> tuple[int, str]:
    """Return a sort key: strategies in the order of the table, then other names in alphabetical order."""
    return (list(STRATEGIES).index(name) if name in STRATEGIES else len(STRATEGIES), name)
