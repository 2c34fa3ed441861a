"""tools/choice.py: how sure a gain on dev must be, judged by speakers that did not choose."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from asrprune.experiment.store import Experiment
from asrprune.prune.search import make_plan
from asrprune.runtime.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import choice


def test_scores_are_those_that_a_search_left(own: Experiment, tiny_data: Path) -> None:
    plan = make_plan(own, "iterative", tiny_data / "dev")
    found, words = choice.scores_of(own.path)
    for step in plan.steps:
        assert 100 * found[step.keep].sum() / words == pytest.approx(step.score)
    assert {(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)} <= found.keys()
    shutil.rmtree(own.path / "plans/scores")
    with pytest.raises(UserError, match="run stage 7"):
        choice.scores_of(own.path)


def test_a_gain_of_all_speakers_counts_and_that_of_one_does_not() -> None:
    lowest = np.full(8, 10.0)
    sure, lucky = lowest - [1, 2, 1, 2, 1, 2, 1, 2], lowest - [9, -1, -1, -1, -1, -1, -1, -1]
    assert choice.gains({(1,): lowest, (2,): sure}, 100.0, 1) == pytest.approx(12.0, abs=0.2)
    by_any_gain, *others = choice.gains({(1,): lowest, (2,): lucky}, 100.0, 1)
    assert by_any_gain == pytest.approx(-4.0, abs=0.5), "chosen in half of the cases, and then 8 words worse"
    assert others == [0.0, 0.0, 0.0]
