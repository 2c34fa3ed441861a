"""The names of the strategies that choose layers, current and old. asrprune/prune/strategies implements them."""

from typing import Literal, get_args

Strategy = Literal["iterative", "svcca", "influence", "every", "lowest"]
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
