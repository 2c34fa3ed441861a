"""The sentences say what the tests of the summary say, and no more."""

from typing import Any

import pytest
from records import changed, grid_of

from asrprune.compare.grid import Role
from asrprune.compare.summary import ALL, Comparison, Margin, Summary, System
from asrprune.compare.verdict import listed, verdict

GRID = grid_of(6, 4, 2)


def case(depth: int, role: Role, outcome: str, **other: Any) -> Comparison:
    found = {"difference": 0.34, "ci90": (0.11, 0.62), "power": depth / 10, "alone_wer": 20.0, "seeds": 3, "alone_seeds": 3}
    return Comparison.model_construct(set="test", depth=depth, role=role, outcome=outcome, **{**found, **other})


def summary(*tests: Comparison, speakers: int | None = 40, seeds: tuple[int, ...] = (1, 2, 3)) -> Summary:
    return Summary.model_construct(
        tests=tests, rows=[System.model_construct(set="test", seed=ALL, seeds=seeds)], speakers={"test": speakers},
        margin=Margin(points=0.5, share=0.1), search_sets=["dev"],
    )  # fmt: skip


def both(depth: int, plain: str, baseline: str) -> list[Comparison]:
    return [case(depth, "plain", plain), case(depth, "baseline", baseline)]


def test_where_every_depth_passes_against_both_the_claim_holds() -> None:
    said = verdict(summary(*both(8, "passes", "passes"), *both(2, "passes", "passes")), GRID, "test")
    assert said == [
        "On test one model (both), trained once and pruned by its iterative plan, is not worse than models trained for each"
        " depth, plain or interctc, at any depth compared: 8 and 2 layers.",
        "Not worse: the upper end of the 90 % interval in brackets, which is the one-sided 95 % bound of the difference, lies"
        " below the margin. The margin is 0.5 points or 10 % of the error rate of the model trained alone, whichever is less."
        " Worse: the interval lies above 0. Undecided: neither.",
        "3 seeds: the intervals include the choice of seeds and of the 40 speakers.",
        'Power, the probability of "not worse" at a depth with a true difference of 0: 20 to 80 %.',
    ]


def test_a_comparison_with_a_model_that_recognises_nothing_shows_nothing() -> None:
    deaf = case(8, "plain", "passes", alone_wer=100.0)
    said = verdict(summary(deaf, case(8, "baseline", "passes"), *both(2, "passes", "passes")), GRID, "test")
    assert said[1] == (
        "With 8 layers a model trained for the depth recognises nothing (100 % errors or more),"
        " so a comparison with it shows nothing; train for more epochs."
    )


def test_depths_that_fail_are_named_with_their_numbers() -> None:
    tests = [
        *both(8, "passes", "passes"),
        *both(6, "passes", "worse"),
        *both(4, "undecided", "passes"),
        *both(2, "worse", "worse"),
    ]
    said = verdict(summary(*tests), GRID, "test")
    number = "+0.3 [+0.1, +0.6] points"
    assert said[0].endswith("is not worse than models trained for each depth, plain or interctc, with 8 layers."
                            " With 6 and 2 layers it is worse than some of them.")  # fmt: skip
    assert said[1:4] == [
        f"With 6 layers it is not worse than plain ({number}), but worse than interctc ({number}).",
        f"With 4 layers it is not worse than interctc ({number}), but undecided against plain ({number}).",
        f"With 2 layers it is worse than plain ({number}) and interctc ({number}).",
    ]


@pytest.mark.parametrize("outcomes", [("undecided", "passes"), ("passes", "worse"), ("undecided", "undecided")])
def test_passing_against_one_kind_is_not_enough(outcomes: tuple[str, str]) -> None:
    said = verdict(summary(*both(4, *outcomes), *both(2, *outcomes)), GRID, "test")
    worse = " With 4 and 2 layers it is worse than some of them." if "worse" in outcomes else ""
    assert said[0].endswith("was compared with models trained for each depth, plain or interctc, with 4 and 2 layers:"
                            " at no depth is it shown to be not worse." + worse)  # fmt: skip


def test_a_depth_without_both_kinds_is_not_claimed() -> None:
    said = verdict(summary(case(4, "plain", "passes"), *both(2, "passes", "passes")), GRID, "test")
    assert said[0].endswith("at any depth compared: 2 layers.")
    assert verdict(summary(case(4, "plain", "passes")), GRID, "test") == [
        "On test no depth has both a pruned model and those that were trained for it yet."
    ]


def test_one_seed_and_unknown_speakers_are_said() -> None:
    tests = [case(4, role, "passes", seeds=1, alone_seeds=1) for role in ("plain", "baseline")]
    said = verdict(summary(*tests, speakers=None, seeds=(1,)), GRID, "test")
    assert said[2] == (
        "One seed: the intervals include the choice of utterances (the records do not name the speakers), but not of the seed."
    )
    assert said[3].endswith("of 0: 40 %; the true power is lower, because the spread between seeds is not known.")


def test_a_set_on_which_layers_were_chosen_is_said_to_be_optimistic() -> None:
    chosen = changed(summary(*both(2, "passes", "passes")), search_sets=["test_sp"])
    assert "Layers were chosen on this set, so this is optimistic." in verdict(chosen, GRID, "test")[0]


def test_lists() -> None:
    assert [listed(items) for items in ([12], [12, 9], [12, 9, 6])] == ["12", "12 and 9", "12, 9 and 6"]
