"""The plan that a name or a path stands for."""

import pytest

from asrprune.experiment.store import Experiment
from asrprune.prune.find import find_plan
from asrprune.runtime.errors import UserError


@pytest.mark.parametrize(
    ("asked", "proposed"),
    [("lowest", ""), ("top", ""), ("lowst", "; did you mean lowest?"), ("greddy", "; did you mean iterative?")],
)
def test_another_plan_is_proposed_if_one_is_missing(own: Experiment, asked: str, proposed: str) -> None:
    with pytest.raises(UserError) as caught:
        find_plan(own, asked)
    assert str(caught.value).partition(" makes it")[2] == proposed
