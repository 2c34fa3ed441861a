"""Mistakes in the numbers of a section, one sentence each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from asrprune.config.names import numbers
from asrprune.config.old import RENAMED
from asrprune.config.section import TOLERANT, AnySection
from asrprune.runtime.errors import UserError, did_you_mean


def check(section: type[AnySection], values: dict[str, Any], source: str, tolerant: bool = False) -> AnySection:
    """Make a section of plain data; raise a ``UserError`` that lists all mistakes.

    ``tolerant``: accept numbers that have no effect.
    """
    try:
        return section.model_validate(values, context=TOLERANT if tolerant else None)
    except ValidationError as error:
        mistakes = [_explain(item, section) for item in error.errors()]
        raise UserError("\n".join(f"{source}: {mistake}" for mistake in mistakes)) from None


def changed(section: AnySection, values: dict[str, Any], source: str) -> AnySection:
    """Return the section with new ``values``. These must have an effect; other numbers may lose their effect."""
    made = check(type(section), {**section.model_dump(), **values}, source, tolerant=True)
    if mistakes := [mistake for key, mistake in made.idle_mistakes().items() if key in values]:
        raise UserError("\n".join(f"{source}: {mistake}" for mistake in mistakes))
    return made


def _explain(error: Any, section: type[BaseModel]) -> str:
    place = _locate(error["loc"], section)
    where = ".".join(place.names)
    if error["type"] == "extra_forbidden":
        return _unknown(where, place)
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{where}: must be a section of `key: value` lines, got {error['input']!r}"
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        tag, close = context["discriminator"].strip("'"), _similar(context["tag"], context["expected_tags"])
        return f"{where}.{tag}: input should be one of {context['expected_tags']}, got '{context['tag']}'{close}"
    if error["type"] == "missing":
        return f"{where}: is missing"
    message = error["msg"].removeprefix("Value error, ")
    if not where or error["type"] == "value_error":
        return f"{where}: {message}".removeprefix(": ")
    close = _similar(error["input"], error.get("ctx", {}).get("expected", ""))
    return f"{where}: {message[0].lower()}{message[1:]}, got {error['input']!r}{close}"


def _similar(given: Any, quoted: Any) -> str:
    """Propose one of the names that a message of pydantic lists in quotes."""
    return did_you_mean(str(given), re.findall(r"'(\w+)'", str(quoted)))


@dataclass(frozen=True)
class _Place:
    """The place of a wrong value."""

    names: list[str]  # the keys that lead to the value
    holder: type[BaseModel]  # the section that contains the value
    tag: str  # the selected alternative, such as "type: conformer"; or ""
    others: list[type[BaseModel]]  # all alternatives of the section


def _unknown(where: str, place: _Place) -> str:
    if where in RENAMED:
        return f"{where}: is the old name of {RENAMED[where]}; both are given, remove the old one"
    key = place.names[-1]
    owner = any(key in other.model_fields for other in place.others)
    why = f"has no effect with {place.tag}" if owner else "unknown key"
    close = "" if owner else did_you_mean(key, place.holder.model_fields) or _elsewhere(key)
    return f"{where}: {why}; known keys here: {', '.join(place.holder.model_fields)}{close}"


def _elsewhere(key: str) -> str:
    """Propose the number that has this key in another section."""
    return next((f"; did you mean {number.name}?" for number in numbers() if number.name.endswith(f".{key}")), "")


def _locate(loc: Sequence[str | int], section: type[BaseModel]) -> _Place:
    names, kinds, tag = list[str](), [section], ""
    chosen, others = "", list[type[BaseModel]]()
    for part in loc:
        if len(kinds) > 1:  # ``part`` is the tag of the alternative, which pydantic adds to the path
            chosen, others = f"{tag}: {part}", kinds
            kinds = [kind for kind in kinds if kind.model_fields[tag].default == part]
            continue
        names.append(str(part))
        if part in kinds[0].model_fields:
            field = kinds[0].model_fields[str(part)]
            annotation: Any = field.annotation
            kinds = [kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields")] or kinds
            tag, chosen, others = str(field.discriminator), "", []
    return _Place(names, kinds[0], chosen, others)
