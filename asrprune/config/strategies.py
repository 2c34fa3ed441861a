"""The names of the strategies that choose layers, today's and older ones; asrprune/prune/strategies has what each does."""

from typing import Literal, get_args

Strategy = Literal["iterative", "svcca", "influence", "every", "lowest"]
STRATEGY_NAMES: tuple[Strategy, ...] = get_args(Strategy)  # in the order of tables and figures
PREFERRED: Strategy = "iterative"  # taken where no strategy is named
_OLD = {"greedy": "iterative", "top": "lowest"}


def strategy_name(name: str) -> str:
    """Today's name of a strategy; configs, plans and records may have an older one.

    >>> [strategy_name(name) for name in ("top", "lowest", "layers_1_2")]
    ['lowest', 'lowest', 'layers_1_2']
    """
    return _OLD.get(name, name)


def spellings(name: str) -> list[str]:
    """Today's name of a strategy, then the older ones.

    >>> spellings("greedy"), spellings("every")
    (['iterative', 'greedy'], ['every'])
    """
    today = strategy_name(name)
    return [today, *(old for old, new in _OLD.items() if new == today)]
