"""The names of all numbers of the config, such as ``train.epochs``, and what each number affects."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast, get_args

from pydantic.fields import FieldInfo

from asrprune.config.schema import Config
from asrprune.config.section import Kind, Section


@dataclass(frozen=True)
class Number:
    """A number of the config."""

    name: str  # train.schedule.peak
    section: type[Section]  # the section, or one alternative of it, that defines the number
    field: FieldInfo

    @property
    def extra(self) -> dict[str, Any]:
        """The unit, and what the number affects if this differs from its section."""
        return cast(dict[str, Any], self.field.json_schema_extra or {})

    @property
    def affects(self) -> tuple[Kind, ...]:
        """The kinds of results that change with the number."""
        return tuple(self.extra.get("affects") or self.section.affects)


@lru_cache
def numbers() -> tuple[Number, ...]:
    """Return all numbers in the order of the sections. A number of several alternatives occurs once per alternative."""
    return tuple(_numbers(Config, ""))


def names_affecting(*kinds: Kind) -> list[str]:
    """Return the names of the numbers that affect any of these kinds.

    >>> names_affecting("pace")[-1]
    'decode.max_frames'
    """
    return list(dict.fromkeys(number.name for number in numbers() if set(number.affects) & set(kinds)))


def only(values: dict[str, Any], *kinds: Kind) -> dict[str, Any]:
    """Return the part of a resolved config that affects any of these kinds."""
    return _only(values, set(names_affecting(*kinds)), "")


def sections(name: str) -> tuple[type[Section], ...]:
    """Return the section of that name, or its alternatives; an empty tuple for a number.

    >>> [section.__name__ for section in sections("model.subsampling")], sections("model.dim")
    (['Conv2dConfig', 'Conv1dConfig'], ())
    """
    kinds: tuple[type[Section], ...] = (Config,)
    for part in name.split("."):
        fields = [kind.model_fields[part] for kind in kinds if part in kind.model_fields]
        kinds = tuple(kind for field in fields for kind in alternatives(field))
    return kinds


def alternatives(field: FieldInfo) -> tuple[type[Section], ...]:
    """Return the sections that a field can hold; an empty tuple for a number."""
    kinds = (field.annotation, *get_args(field.annotation))
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section))


def tag_of(name: str) -> str | None:
    """Return the key that selects the alternative of a section; None if the section has no alternatives.

    >>> tag_of("model.layer"), tag_of("train.schedule"), tag_of("train")
    ('type', 'name', None)
    """
    section, _, key = name.rpartition(".")
    holders = sections(section) if section else (Config,)
    return next((cast(str | None, kind.model_fields[key].discriminator) for kind in holders if key in kind.model_fields), None)


def _numbers(section: type[Section], prefix: str) -> Iterator[Number]:
    for key, field in section.model_fields.items():
        if kinds := alternatives(field):
            for kind in kinds:
                yield from _numbers(kind, f"{prefix}{key}.")
        else:
            yield Number(f"{prefix}{key}", section, field)


def _only(values: dict[str, Any], names: set[str], prefix: str) -> dict[str, Any]:
    kept = {}
    for key, value in values.items():
        if f"{prefix}{key}" in names:
            kept[key] = value
        elif isinstance(value, dict) and (part := _only(value, names, f"{prefix}{key}.")):
            kept[key] = part
    return kept
