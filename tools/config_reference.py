#!/usr/bin/env python3
"""Write docs/config.md, the table of all numbers, from the config's schema.

python tools/config_reference.py      after a change of asrprune/config/schema.py, else `make test` complains
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asrprune.config.names import Number, alternatives, numbers, tag_of
from asrprune.config.schema import Config
from asrprune.config.section import KINDS, Section
from asrprune.runtime.errors import exit_status
from asrprune.runtime.files import write_text

PATH = Path(__file__).resolve().parents[1] / "docs/config.md"
HEADER = ("key", "default", "unit", "values", "what it is", "affects")
INTRODUCTION = """# Config

Written by `python tools/config_reference.py` from `asrprune/config/schema.py`; do not edit.

All numbers of a recipe are in one YAML file, such as `egs/mini/conf/train.yaml`; what it leaves out has the default.
`--set train.epochs=20` on the command line wins over the file. Each experiment keeps the numbers it was made with in its
`config.yaml`. An unknown key is an error, and so is a number that changes nothing beside the others, such as `prune.beam`
without the strategy `iterative`, unless it has its default.

Some sections have alternatives, which have numbers of their own: `model.layer: {type: conformer, kernel: 15}`. The type alone,
`model.layer: conformer`, is short for all its defaults, and `--set model.layer=conformer` changes to another type. Files of
earlier versions, with `conv_kernel`, `conv_norm`, `position_scale` or `conv_channels` directly in `model`, are still read.

What a number affects:

| | |
| --- | --- |
{kinds}

What is made later of something that is affected is affected, too.
"""


def reference() -> str:
    """The whole document."""
    kinds = "\n".join(f"| {kind} | {meaning} |" for kind, meaning in KINDS.items())
    return "\n".join([INTRODUCTION.replace("{kinds}", kinds), *_section("", (Config,))])


def _section(name: str, kinds: tuple[type[Section], ...]) -> Iterator[str]:
    """A section's heading, what it is, its table, and the sections within; a table for each alternative."""
    tag = tag_of(name) if name else None
    for position, kind in enumerate(kinds):
        if name and position == 0:
            yield f"## {name}\n"
        if tag:
            yield f"### {tag}: {kind.default(tag)}{' (default)' if position == 0 else ''}\n"
        yield f"{kind.__doc__}\n"
        own = [number for number in numbers() if number.section is kind and number.name.rpartition(".")[0] == name]
        if own:
            yield _table(own)
    for kind in kinds:
        for key, field in kind.model_fields.items():
            if inner := alternatives(field):
                yield from _section(f"{name}.{key}".lstrip("."), inner)


def _table(own: list[Number]) -> str:
    rows = [HEADER, ("---",) * len(HEADER), *(_row(number) for number in own)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"


def _row(number: Number) -> tuple[str, ...]:
    key = number.name.rpartition(".")[2]
    schema = number.section.model_json_schema()["properties"][key]
    what, unit = number.field.description or "", number.extra.get("unit", "")
    return (f"`{key}`", f"`{json.dumps(schema['default'])}`", unit, values(schema), what, ", ".join(number.affects))


def values(schema: dict[str, Any]) -> str:
    """What a JSON schema allows, in words.

    >>> values({"type": "integer", "minimum": 1}), values({"enum": ["a", "b"]})
    ('1 and above', '`a`, `b`')
    """
    if "anyOf" in schema:
        return " or ".join(values(choice) for choice in schema["anyOf"])
    if "oneOf" in schema:
        return " or ".join(values(choice) for choice in schema["oneOf"])
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        return f"{len(schema['prefixItems'])} of {values(items)}" if "prefixItems" in schema else f"list of {values(items)}"
    if schema["type"] == "object":
        return f"layer: {values(schema['additionalProperties'])}"
    return {"null": "`null`", "string": "text", "boolean": "`true`, `false`"}.get(schema["type"]) or _range(schema)


def _range(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        return "any"
    above = f"above {low:g}" if "exclusiveMinimum" in schema else f"{low:g}"
    if high is None:
        return above if above.startswith("above") else f"{above} and above"
    return f"{above} to {'below ' if 'exclusiveMaximum' in schema else ''}{high:g}"


if __name__ == "__main__":
    sys.exit(exit_status(lambda: write_text(PATH, reference())))
