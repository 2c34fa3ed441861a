"""A record is read as it was written; a file of another shape is told by its first wrong field."""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field

from asrprune.runtime.errors import UserError
from asrprune.runtime.records import Record


class Part(Record):
    keep: tuple[int, ...]
    del_: int = Field(alias="del")
    without: dict[int, float] = Field({})


class Whole(Record):
    made_by: ClassVar[str] = "stage 3 (`asrprune all`)"
    format: Literal[1]
    parts: tuple[Part, ...]
    rate: float | None
    note: str | None = None


WHOLE = Whole(format=1, parts=(Part(keep=(1, 2), del_=3, without={2: 0.5}), Part(keep=(), del_=0)), rate=None)


def test_it_is_read_as_it_was_written_and_defaults_are_left_out(tmp_path: Path) -> None:
    WHOLE.write(tmp_path / "whole.json")
    assert Whole.read(tmp_path / "whole.json") == WHOLE
    first, second = {"keep": [1, 2], "del": 3, "without": {"2": 0.5}}, {"keep": [], "del": 0}
    assert json.loads((tmp_path / "whole.json").read_text()) == {"format": 1, "parts": [first, second], "rate": None}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"format": 2}, "format: input should be 1, got 2"),
        ({"parts": [{"keep": [1]}]}, "parts.0.del: field required"),
        ({"parts": [{"keep": ["x"], "del": 1}]}, "parts.0.keep.0: input should be a valid integer, .*, got 'x'"),
        ({"rate": "9" * 12 + " 8" * 500}, "rate: input should be a valid number, .*, got '999999999999.{3,20} 8'"),
        ({"parts": None}, "parts: input should be a valid tuple, got None"),
        ({"rate": float("nan")}, "rate: input should be a finite number, got nan"),
        ({"parts": [{"keep": [], "del": 1, "without": {"2": float("-inf")}}]}, "parts.0.without.2: .* finite number, got -inf"),
        ({"more": 3}, "more: extra inputs are not permitted, got 3"),
        ([], r"input should be a valid dictionary or instance of Whole"),
    ],
)
def test_the_first_wrong_field_is_named_and_what_to_do(tmp_path: Path, values: Any, says: str) -> None:
    path = tmp_path / "whole.json"
    path.write_text(json.dumps({**WHOLE.plain(), **values} if values else values))
    with pytest.raises(UserError, match=rf"whole\.json: {says}; remove it, stage 3 \(`asrprune all`\) makes it again$"):
        Whole.read(path)


def test_a_file_that_is_not_there_names_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"whole\.json: no such file; stage 3 \(`asrprune all`\) makes it$"):
        Whole.read(tmp_path / "whole.json")
