"""The mark of a stage, and how needs differ from it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from asrprune.recipe.record import Needs, Record
from asrprune.runtime.files import write_json

DONE = Needs("a", {"seed": 1, "train/text": "0" * 64, "taps": [1, 2]}, {"beam": 3})


def _with(**changes: Any) -> Needs:
    """Changed ``after`` and ``also``, or numbers; None takes one away."""
    after, also = changes.pop("after", DONE.after), changes.pop("also", DONE.also)
    return Needs(after, {key: value for key, value in {**DONE.needs, **changes}.items() if value is not None}, also)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (_with(), []),
        (_with(seed=2), ["seed: 1, now 2"]),
        (_with(taps=[1, 3]), ["taps: [1, 2], now [1, 3]"]),
        (_with(**{"train/text": "1" * 64}), ["train/text"]),
        (_with(after="b"), ["the previous stage"]),
        (_with(seed=None), ["seed"]),
        (_with(new=1), ["new"]),
        (_with(also={}), []),  # it was done with more than it needs now
        (_with(also={"beam": 4}), ["beam: 3, now 4"]),
        (_with(also={"beam": 3, "more": 1}), ["more"]),
    ],
)
def test_differences_are_named(now: Needs, said: list[str]) -> None:
    assert now.differences(DONE) == said


def test_a_mark_holds_what_was_written(tmp_path: Path) -> None:
    record = Record.of(DONE, {"a": "1 bytes"}, repeatable=False)
    record.write(tmp_path / "mark")
    assert Record.read(tmp_path / "mark") == record
    assert Record.read(tmp_path / "none") is None


@pytest.mark.parametrize("repeatable", [True, False])
def test_equal_needs_give_equal_results_if_the_output_is_equal_or_that_is_known(repeatable: bool) -> None:
    result = Record.of(DONE, {"a": "1"}, repeatable).result
    assert Record.of(_with(also={}), {"a": "1"}, repeatable).result == result
    assert Record.of(_with(seed=2), {"a": "1"}, repeatable).result != result
    assert Record.of(_with(after="b"), {"a": "1"}, repeatable).result != result
    assert (Record.of(DONE, {"a": "2"}, repeatable).result == result) is repeatable


@pytest.mark.parametrize(
    "damage",
    [
        {"needs": 5},
        {"needs": [1]},
        {"also": None},
        {"recordings": [1]},
        {"made": 7},
        {"made": {"a": 7}},
        {"result": 1},
        {"x": 1},
    ],
    ids=str,
)
def test_a_mark_of_another_shape_is_none(damage: dict[str, Any], tmp_path: Path) -> None:
    whole = dataclasses.asdict(Record.of(DONE, {"a": "1 bytes"}, repeatable=False))
    write_json(tmp_path / "mark", {**whole, **damage})
    assert Record.read(tmp_path / "mark") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100000])
def test_a_mark_that_is_no_record_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mark").write_bytes(content)
    assert Record.read(tmp_path / "mark") is None


def test_recordings_count_if_they_were_recorded() -> None:
    now, replaced = (dataclasses.replace(DONE, recordings={"train": digest}) for digest in ("1", "2"))
    assert now.differences(DONE) == now.differences(now) == DONE.differences(now) == []
    assert replaced.differences(now) == ["recordings of train"]
