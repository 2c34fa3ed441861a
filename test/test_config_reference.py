"""docs/config.md says what the schema says, of every number."""

import re
from pathlib import Path

import yaml
from scripts import load_script

from asrprune.config.load import parse_config, resolved
from asrprune.config.names import numbers
from asrprune.config.schema import Config
from asrprune.config.section import KINDS

tool = load_script("tools/config_reference.py")


def test_it_is_up_to_date() -> None:
    assert tool.PATH.read_text() == tool.reference(), "docs/config.md is behind: python tools/config_reference.py"


def rows() -> list[tuple[str, list[str]]]:
    """(section, cells) of every row of every table of numbers."""
    found, section = [], ""
    for line in tool.PATH.read_text().splitlines():
        if line.startswith("## "):
            section = f"{line[3:]}."
        elif line.startswith("| `"):
            found.append((section, [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]))
    return found


def test_it_has_every_number_with_a_sentence_and_what_it_affects() -> None:
    assert sorted(section + cells[0].strip("`") for section, cells in rows()) == sorted(number.name for number in numbers())
    for _, cells in rows():
        assert len(cells) == 6
        _, default, _, values, what, affects = cells
        assert default
        assert values
        assert what
        assert set(affects.split(", ")) <= KINDS.keys()


def test_its_defaults_are_those_that_a_config_without_any_key_has() -> None:
    config = resolved(parse_config({}, "test"))
    derived = {"model.taps", "prune.depths", "model.subsampling.channels"}  # null is what a recipe would write
    for section, cells in rows():
        name = section + cells[0].strip("`")
        value = config
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        written = yaml.safe_load(cells[1].strip("`"))
        if name in derived:
            assert written is None
        elif value is not None and name.rpartition(".")[2] not in ("type", "name"):  # of the default alternative
            assert float(written) == value if isinstance(value, float) else written == value, name
    assert Config() == parse_config({}, "test")


def test_ranges_in_words() -> None:
    assert tool.values({"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.0}) == "0 to below 1"
    assert tool.values({"type": "number", "exclusiveMinimum": 0.0}) == "above 0"
    assert tool.values({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}) == "1 and above or `null`"
    assert Path(tool.PATH).name == "config.md"
