"""The plan file: what is written is read, and what does not fit the model is refused."""

import json
from pathlib import Path

import pytest
from records import changed, plan_of

from asrprune.experiment.plan import Plan, Step, parse_layers, plan_path, read_plan
from asrprune.runtime.errors import UserError

SHA = "ab" * 32


@pytest.fixture
def plan() -> Plan:
    steps = (Step.of((1, 2, 3, 4), 5.25), Step.of((1, 2, 4), 5.5), Step.of((2,), 40.0))
    scored = {"metric": "wer", "dev_set": "dev", "layer_forwards": 14, "seconds": 0.5, "asrprune": "0.1.0"}
    return plan_of("iterative", 4, steps, SHA, **scored)


def test_what_is_written_is_read(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plans/iterative.json"
    plan.write(path)
    assert read_plan(path, 4, SHA) == plan


def test_the_file_holds_the_contract(plan: Plan, tmp_path: Path) -> None:
    plan.write(tmp_path / "iterative.json")
    written = json.loads((tmp_path / "iterative.json").read_text())
    assert written == {
        "format": 1,
        "num_layers": 4,
        "strategy": "iterative",
        "metric": "wer",
        "dev_set": "dev",
        "model_sha256": SHA,
        "asrprune": "0.1.0",
        "layer_forwards": 14,
        "seconds": 0.5,
        "steps": [
            {"depth": 4, "keep": [1, 2, 3, 4], "score": 5.25},
            {"depth": 3, "keep": [1, 2, 4], "score": 5.5},
            {"depth": 1, "keep": [2], "score": 40.0},
        ],
    }


def test_the_scores_of_the_removals_that_were_tried_are_kept(tmp_path: Path) -> None:
    steps = (Step.of((1, 2), 5.0, {1: 50.0, 2: 6.5}), Step.of((1,), 6.5))
    plan_of("iterative", 2, steps, SHA).write(tmp_path / "iterative.json")
    assert [step.without for step in read_plan(tmp_path / "iterative.json", 2, SHA).steps] == [{1: 50.0, 2: 6.5}, {}]


def test_a_depth_gives_its_layers_and_a_missing_one_lists_those_there_are(plan: Plan) -> None:
    assert plan.keep(3) == (1, 2, 4)
    with pytest.raises(UserError, match=r"^plan iterative has no depth 2; it has 4, 3, 1$"):
        plan.keep(2)


@pytest.mark.parametrize(("num_layers", "sha"), [(4, "cd" * 32), (5, SHA)])
def test_a_plan_of_another_model_is_refused(plan: Plan, tmp_path: Path, num_layers: int, sha: str) -> None:
    plan.write(tmp_path / "iterative.json")
    with pytest.raises(UserError, match=r"iterative\.json: this plan was made for another model; run stage 7"):
        read_plan(tmp_path / "iterative.json", num_layers, sha)


def test_a_missing_plan_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"iterative\.json: no such file; .*stage 7"):
        read_plan(tmp_path / "iterative.json", 4, SHA)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("keep", [[2, 1], [1, 1], [0, 1], [4, 5], []])
def test_layers_that_the_model_lacks_are_refused(plan: Plan, tmp_path: Path, keep: list[int]) -> None:
    path = tmp_path / "iterative.json"
    plan.write(path)
    change(path, steps=[{"depth": len(keep), "keep": keep, "score": None}])
    with pytest.raises(UserError, match=r"iterative\.json: layers must ascend and lie in 1\.\.4"):
        read_plan(path, 4, SHA)


STEP = {"depth": 1, "keep": [1], "score": None}


@pytest.mark.parametrize(
    "steps",
    [
        [{"depth": 1}], [{"keep": ["x"], "score": 1}], [{"keep": None, "score": 1}], None, [3],
        [{**STEP, "keep": [1, 2]}], [STEP, {**STEP, "keep": [2]}],
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused(plan: Plan, tmp_path: Path, steps: object) -> None:
    path = tmp_path / "iterative.json"
    plan.write(path)
    change(path, steps=steps)
    with pytest.raises(UserError, match=r"iterative\.json: steps.*; remove it, stage 7"):
        read_plan(path, 4, SHA)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"iterative\.json: num_layers|format: field required; remove it, stage 7"):
        read_plan(path, 4, SHA)


@pytest.mark.parametrize(
    ("text", "layers"),
    [("1,2,5", (1, 2, 5)), ("1-4", (1, 2, 3, 4)), ("1,3-5,9", (1, 3, 4, 5, 9)), ("7", (7,)), (" 2 , 3", (2, 3))],
)
def test_layers_are_numbers_and_ranges(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text, 9) == layers


@pytest.mark.parametrize("text", ["", "1,,2", "a", "1;2", "1.5", "-3", "3-", "5-3", "1,5-3", "1_2", "1-1_0"])
def test_what_is_no_list_of_layers_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--layers .*: write layer numbers, e\.g\. 1,2,5-7$"):
        parse_layers(text, 9)


@pytest.mark.parametrize("text", ["0", "10", "1-10", "1-1000000000000", "99-1000000000000", "2,1", "1,1", "1-3,2"])
def test_layers_out_of_order_or_range_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--layers .*: layers must ascend and lie in 1\.\.9, got "):
        parse_layers(text, 9)


def test_a_plan_under_the_older_name_of_its_strategy_is_found_read_and_replaced(plan: Plan, tmp_path: Path) -> None:
    old = tmp_path / "plans/greedy.json"
    changed(plan, strategy="greedy").write(old)
    assert plan_path(tmp_path, "iterative") == plan_path(tmp_path, "greedy") == old
    assert read_plan(old, 4, SHA).strategy == "iterative"
    plan.write(tmp_path / "plans/iterative.json")
    assert plan_path(tmp_path, "greedy") == tmp_path / "plans/iterative.json"
    assert plan_path(tmp_path, "top") == tmp_path / "plans/lowest.json"
