"""Config files: YAML to a checked ``Config`` and back; every mistake of the user becomes one sentence."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from asrprune.config.schema import AnySection, Config
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import write_text


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number (plain YAML 1.1 wants 1.0e-3) and a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.value[position][0].start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; every way in which it can be broken is a ``UserError`` that names file and line."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: a config file must be UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not valid YAML: {problem}") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path}: a config file must hold `key: value` lines, this one holds a {type(values).__name__}")
    return values or {}


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file; ``overrides`` are ``section.key=value`` strings that win over it.

    Raises:
        UserError: all mistakes at once, a line each.
    """
    values = read_yaml(path)
    for override in overrides:
        _apply(values, override)
    return parse_config(values, str(path))


def parse_config(values: dict[str, Any], source: str) -> Config:
    """Check a nested dict; raises a ``UserError`` that lists every mistake in it."""
    return check(Config, values, source)


def check(section: type[AnySection], values: dict[str, Any], source: str) -> AnySection:
    """Make a section of plain data; raises a ``UserError`` that lists every mistake in it."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        mistakes = [_explain(item, section) for item in error.errors()]
        raise UserError("\n".join(f"{source}: {mistake}" for mistake in mistakes)) from None


def write_config(config: Config, path: Path) -> None:
    """Write the resolved config (derived taps and depths filled in) as YAML."""
    write_text(path, yaml.safe_dump(resolved(config), sort_keys=False))


def resolved(config: Config) -> dict[str, Any]:
    """The config as plain data with its derived values filled in."""
    values = config.model_dump(mode="json")
    values["model"]["taps"] = list(config.model.tap_layers)
    values["model"]["subsampling"]["channels"] = config.model.subsampling.channels or config.model.dim
    values["prune"]["depths"] = list(config.depths())
    return values


# These numbers change how fast a training goes, not what is learnt.
PACE = ("train.log_every_steps", "train.checkpoint_every_s", "train.num_workers", "train.strategy")


def without(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A resolved config without these sections (``bench``) and numbers (``train.eps``): what two runs need not share."""
    return {
        section: {key: value for key, value in numbers.items() if f"{section}.{key}" not in names}
        if isinstance(numbers, dict)
        else numbers
        for section, numbers in values.items()
        if section not in names
    }


def _apply(values: dict[str, Any], override: str) -> None:
    name, found, text = override.partition("=")
    if not found or not name:
        raise UserError(f"--set {override}: write section.key=value, for example train.epochs=20")
    *sections, key = name.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {section} is a value, not a section")
    try:
        values[key] = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: {text!r} is not a YAML value") from None


def _explain(error: Any, section: type[BaseModel]) -> str:
    names, holder = _locate(error["loc"], section)
    where = ".".join(names)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; known keys here: {', '.join(holder.model_fields)}"
    if error["type"] == "model_type":
        return f"{where}: must be a section of `key: value` lines, got {error['input']!r}"
    if error["type"] == "union_tag_invalid":
        return f"{where}.type: input should be one of {error['ctx']['expected_tags']}, got '{error['ctx']['tag']}'"
    message = error["msg"].removeprefix("Value error, ")
    if not where or error["type"] == "value_error":
        return f"{where}: {message}".removeprefix(": ")
    return f"{where}: {message[0].lower()}{message[1:]}, got {error['input']!r}"


def _locate(loc: Sequence[str | int], section: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """The names on the way to a mistake, and the section in which the last one lies."""
    names, kinds = [], [section]
    for part in loc:
        if len(kinds) > 1:  # of several alternatives; pydantic names the chosen one, which the config does not
            kinds = [kind for kind in kinds if kind.model_fields["type"].default == part]
            continue
        names.append(str(part))
        if part in kinds[0].model_fields:
            annotation: Any = kinds[0].model_fields[str(part)].annotation
            kinds = [kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields")] or kinds
    return names, kinds[0]


def is_section(name: str) -> bool:
    """Whether a name as in ``--set`` is a section's (``model.stochastic_depth``), not a number's (``model.truncated``)."""
    kinds: tuple[Any, ...] = (Config,)
    for part in name.split("."):
        fields = [kind.model_fields[part] for kind in kinds if _is_model(kind) and part in kind.model_fields]
        kinds = tuple(kind for field in fields for kind in (field.annotation, *get_args(field.annotation)))
    return any(map(_is_model, kinds))


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
