"""The table of strategies: whole, and of one mind with the config."""

import pytest

from asrprune.config.schema import Config
from asrprune.config.strategies import PREFERRED, STRATEGY_NAMES
from asrprune.prune.evidence import Evidence
from asrprune.prune.strategies.table import STRATEGIES, rank


def test_the_config_knows_the_strategies_of_the_table_in_their_order() -> None:
    assert tuple(STRATEGIES) == STRATEGY_NAMES
    assert set(Config().prune.strategies) <= set(STRATEGIES)
    assert PREFERRED in STRATEGIES


@pytest.mark.parametrize("of", ["label", "colour", "marker", "choose"])
def test_no_two_look_or_are_alike(of: str) -> None:
    assert len({getattr(strategy, of) for strategy in STRATEGIES.values()}) == len(STRATEGIES)


def test_evidence_has_what_they_need() -> None:
    for strategy in STRATEGIES.values():
        assert strategy.needs is None or hasattr(Evidence, strategy.needs)


def test_other_names_come_last_by_the_alphabet() -> None:
    assert sorted(["yours", "lowest", "mine", "iterative"], key=rank) == ["iterative", "lowest", "mine", "yours"]
