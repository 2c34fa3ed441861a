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
from asrprune.runtime.failures import exit_status
from asrprune.runtime.files import write_text

PATH = Path(__file__).resolve().parents[1] / "docs/config.md"
HEADER = ("key", "default", "unit", "values", "what it is", "affects")
INTRODUCTION = """# Config

Written by `python tools/config_reference.py` from `asrprune/config/schema.py`; do not edit.

All numbers of a recipe are in one YAML file, such as `egs/mini/conf/train.yaml`. Numbers that the file does not set have their
defaults. `--set train.epochs=20` on the command line overrides the file. Each experiment keeps its numbers in `config.yaml`.
An unknown key is an error. A number without effect, such as `prune.beam` without the strategy `iterative`, is an error, too,
unless it has its default.

Some sections have alternatives with different numbers: `model.layer: {type: conformer, kernel: 15}`. The type alone,
`model.layer: conformer`, stands for the type with its defaults. `--set model.layer=conformer` selects another type. Files of
earlier versions, with `conv_kernel`, `conv_norm`, `position_scale` or `conv_channels` directly in `model`, are still read.

What a number affects:

| | |
| --- | --- |
{kinds}

Results that are computed from an affected result change, too.
"""


def reference() -> str:
    """Return the whole document."""
    kinds = "\n".join(f"| {kind} | {meaning} |" for kind, meaning in KINDS.items())
    return "\n".join([INTRODUCTION.replace("{kinds}", kinds), *_section("", (Config,))])


def _section(name: str, kinds: tuple[type[Section], ...]) -> Iterator[str]:
    """Yield the heading, description and table of a section, then its inner sections; each alternative has a table."""
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
    """Describe the values that a JSON schema allows.

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
