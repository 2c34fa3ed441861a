"""Config files: read YAML into a checked ``Config``, and write it."""

import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, PlainSerializer

from asrprune.config.mistakes import check
from asrprune.config.names import sections, tag_of
from asrprune.config.old import RENAMED, is_written, modernised
from asrprune.config.schema import Config
from asrprune.config.section import Section
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import LARGEST, write_text
from asrprune.runtime.planted import read_plain

_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # of PyYAML, for a value unlike its tag
_GLUED, _BLANK = re.compile(r"^\w+:\S"), "write a blank after the colon"
_MOST_CHARACTERS, _MOST_VALUES, _DEEPEST = 100_000, 10_000, 50


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads 1e-3 as a number (plain YAML 1.1 requires 1.0e-3) and refuses repeated keys, and {3:0.2}."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.style is None and isinstance(key.value, str) and _GLUED.search(key.value):  # 3:0.2 is 180.2 in YAML 1.1
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r}: {_BLANK}", key.start_mark)
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.value[position][0].start_mark
                )
        return super().construct_mapping(node, deep)


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    value = int(loader.construct_yaml_int(node))
    if abs(value) > LARGEST:
        raise yaml.constructor.ConstructorError(None, None, "a whole number of more than 64 bits", node.start_mark)
    return value


_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _parsed(text: str) -> Any:
    """Read the value of a YAML text. Refuse a text that is larger than any that a person writes, also by its aliases."""
    if len(text) > _MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has more than {_MOST_CHARACTERS} characters, so it is no config")
    brackets = ((character in "[{") - (character in "]}") for character in text)
    if max(accumulate(brackets), default=0) > _DEEPEST:  # at which PyYAML takes hours
        raise yaml.YAMLError("it is nested too deeply")
    loader = _Loader(text)
    node = loader.get_single_node()
    if _size(node, {}) > _MOST_VALUES:
        raise yaml.YAMLError(f"its aliases (*name) stand for more than {_MOST_VALUES} values")
    return None if node is None else loader.construct_document(node)


def _size(node: Any, known: dict[int, int]) -> int:
    """Count the values in a node. An alias counts every time that it is used; a node that contains itself has too many."""
    if id(node) not in known and isinstance(node, yaml.CollectionNode):
        known[id(node)] = _MOST_VALUES
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        known[id(node)] = 1 + sum(_size(inner, known) for pair in pairs for inner in pair)
    return known.get(id(node), 1)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raise a ``UserError`` with file and line if the file is not valid."""
    try:
        values = _parsed(read_plain(path).decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: a config file must be UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not valid YAML: {problem}") from None
    except _UNREADABLE as error:
        raise UserError(f"{path}: not valid YAML: a value that cannot be read ({error})") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path}: a config file must hold `key: value` lines, this one holds a {type(values).__name__}")
    return values or {}


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file; ``overrides`` are ``section.key=value`` strings that replace values of the file.

    Raises:
        UserError: the config has mistakes; the error lists all of them, one per line.
    """
    values = read_yaml(path)
    values = resolved(parse_config(values, str(path))) if is_written(values) else modernised(values)
    for name, value in sorted(map(_split, overrides), key=lambda override: not _chooses(override[0])):
        _apply(values, name, value)
    return check(Config, values, str(path))


def parse_config(values: dict[str, Any], source: str) -> Config:
    """Make a config of a nested dict, also of an earlier version; raise a ``UserError`` that lists all mistakes."""
    return check(Config, modernised(values), source, tolerant=is_written(values))


def write_config(config: Config, path: Path) -> None:
    """Write the resolved config as YAML."""
    write_text(path, yaml.safe_dump(resolved(config), sort_keys=False))


def resolved(config: Config) -> dict[str, Any]:
    """Return the config as plain data, with derived values (taps, channels, depths); idle numbers have their defaults."""
    front_end = config.model.subsampling
    front_end = front_end.model_copy(update={"channels": front_end.channels or config.model.dim})
    model = config.model.model_copy(update={"taps": config.model.tap_layers, "subsampling": front_end})
    prune = config.prune.model_copy(update={"depths": config.depths()})
    return _plain(config.model_copy(update={"model": model, "prune": prune}))


def _plain(section: Section) -> dict[str, Any]:
    values = section.settled().model_dump(mode="json")
    inner = {key: getattr(section, key) for key in values}
    return values | {key: _plain(value) for key, value in inner.items() if isinstance(value, Section)}


def _recorded(values: Any) -> Any:
    return parse_config(values, "config") if isinstance(values, dict) else values


RecordedConfig = Annotated[
    Config, BeforeValidator(_recorded), PlainSerializer(resolved)
]  # a config within a record, of any version


def _split(override: str) -> tuple[str, Any]:
    """Split ``train.epochs=3`` into the current name and the value."""
    name, found, text = override.partition("=")
    if not found or not name:
        raise UserError(f"--set {override}: write section.key=value, for example train.epochs=20")
    try:
        return RENAMED.get(name, name), _parsed(text)
    except (yaml.YAMLError, *_UNREADABLE) as error:
        problem = getattr(error, "problem", None) or ""
        fix = f"; {_BLANK}" if problem.endswith(_BLANK) else ""
        raise UserError(f"--set {override}: {text!r} is not a YAML value{fix}") from None


def _chooses(name: str) -> bool:
    """Return whether the override selects an alternative. Such overrides come first: they decide which numbers exist."""
    section, _, key = name.rpartition(".")
    return tag_of(name) is not None or (section != "" and tag_of(section) == key)


def _apply(values: dict[str, Any], name: str, value: Any) -> None:
    """Set one number. If it selects another alternative, drop the numbers that this alternative lacks."""
    if isinstance(value, str) and (tag := tag_of(name)):
        name = f"{name}.{tag}"
    section, _, key = name.rpartition(".")
    holder = _holder(values, section.split(".") if section else [], f"--set {name}={value}")
    holder[key] = value
    if section and tag_of(section) == key:
        kinds = sections(section)
        own = {known for kind in kinds if kind.default(key) == value for known in kind.model_fields}
        others = {known for kind in kinds for known in kind.model_fields} - own
        for unknown in others & holder.keys() if own else ():
            del holder[unknown]


def _holder(values: dict[str, Any], path: Sequence[str], override: str) -> dict[str, Any]:
    """Return the section at a path. Create it if it is missing; expand it if it is written as its tag alone."""
    for position, section in enumerate(path, start=1):
        inner, tag = values.get(section), tag_of(".".join(path[:position]))
        if inner is None or (tag and isinstance(inner, str)):
            inner = {tag: inner} if inner and tag else {}
        if not isinstance(inner, dict):
            raise UserError(f"{override}: {section} is a value, not a section")
        values[section] = inner
        values = inner
    return values
