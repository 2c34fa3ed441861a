"""The table of strategies: whole, and of one mind with the config."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from asrprune.config.schema import Config, PruneConfig
from asrprune.config.strategies import NEEDS, PREFERRED, STRATEGY_NAMES
from asrprune.experiment.plan import Keep
from asrprune.prune.dev_score import DevScore
from asrprune.prune.evidence import Evidence
from asrprune.prune.strategies.table import STRATEGIES, rank


def test_the_config_knows_the_strategies_of_the_table_in_their_order() -> None:
    assert tuple(STRATEGIES) == tuple(NEEDS) == STRATEGY_NAMES
    assert set(Config().prune.strategies) <= set(STRATEGIES)
    assert PREFERRED in STRATEGIES


@pytest.mark.parametrize("of", ["label", "colour", "marker", "choose"])
def test_no_two_look_or_are_alike(of: str) -> None:
    assert len({getattr(strategy, of) for strategy in STRATEGIES.values()}) == len(STRATEGIES)


class Given:
    """Evidence that remembers which parts of it were used."""

    num_layers, depths = 4, (4, 2)

    def __init__(self, **options: Any) -> None:
        self.options, self.used = PruneConfig(**options), set[str]()

    @property
    def similarity(self) -> np.ndarray:
        self.used.add("similarity")
        return np.eye(5)

    @property
    def influence(self) -> np.ndarray:
        self.used.add("influence")
        return np.ones(4)

    def score(self, keeps: Sequence[Keep], best: int | None = None) -> dict[Keep, DevScore]:
        self.used.add("score")
        return {keep: DevScore(1.0, 1.0) for keep in keeps}


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_a_strategy_uses_what_it_says_it_needs(name: str) -> None:
    """Stage 6, the check before a search, and the numbers without effect go by what it says."""
    needs = NEEDS[name]
    given = Given(strategies=[name])
    STRATEGIES[name].choose(cast(Evidence, given))
    assert given.used == {needs.measure, "score" if needs.scores else None} - {None}
    if needs.effort and not needs.scores:
        given = Given(strategies=[name], **{needs.effort: 2})
        STRATEGIES[name].choose(cast(Evidence, given))
        assert given.used == {needs.measure, "score"}


def test_other_names_come_last_by_the_alphabet() -> None:
    assert sorted(["yours", "lowest", "mine", "iterative"], key=rank) == ["iterative", "lowest", "mine", "yours"]
