"""The strategies that choose layers: what they need, and their names, current and old. asrprune/prune has the code."""

from dataclasses import dataclass
from typing import Literal, get_args

Strategy = Literal["iterative", "svcca", "influence", "every", "lowest"]
Measure = Literal["similarity", "influence"]
Effort = Literal["beam", "rerank"]


@dataclass(frozen=True)
class Needs:
    """What a strategy needs to choose layers. The config, the stages of a recipe and the search ask here."""

    measure: Measure | None = None  # of the layers, made by `asrprune svcca` (stage 6)
    scores: bool = False  # dev scores of sub-models; without it only if ``effort`` is above 1
    effort: Effort | None = None  # the number of `prune` that sets how many sub-models are scored


NEEDS: dict[str, Needs] = {
    "iterative": Needs(scores=True, effort="beam"),
    "svcca": Needs("similarity", effort="rerank"),
    "influence": Needs("influence"),
    "every": Needs(),
    "lowest": Needs(),
}
STRATEGY_NAMES: tuple[Strategy, ...] = get_args(Strategy)  # the order in tables and figures
PREFERRED: Strategy = "iterative"  # the default of commands
_OLD = {"greedy": "iterative", "top": "lowest"}
ALL_NAMES = (*STRATEGY_NAMES, *_OLD)


def strategy_name(name: str) -> str:
    """Return the current name of a strategy; configs, plans and records may have an old one.

    >>> [strategy_name(name) for name in ("top", "lowest", "layers_1_2")]
    ['lowest', 'lowest', 'layers_1_2']
    """
    return _OLD.get(name, name)


def spellings(name: str) -> list[str]:
    """Return the current name of a strategy, then the old ones.

    >>> spellings("greedy"), spellings("every")
    (['iterative', 'greedy'], ['every'])
    """
    today = strategy_name(name)
    return [today, *(old for old, new in _OLD.items() if new == today)]
