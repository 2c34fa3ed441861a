"""Config files: read YAML into a checked ``Config``, and write it. Each mistake of the user becomes one sentence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, PlainSerializer, ValidationError

from asrprune.config.names import numbers, sections, tag_of
from asrprune.config.old import RENAMED, is_written, modernised
from asrprune.config.schema import Config
from asrprune.config.section import TOLERANT, AnySection, Section
from asrprune.runtime.errors import UserError, did_you_mean
from asrprune.runtime.files import LARGEST, write_text

_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # of a tag's own reader, for a wrong value
_MOST_CHARACTERS, _MOST_VALUES, _DEEPEST = 100_000, 10_000, 50


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads 1e-3 as a number (plain YAML 1.1 requires 1.0e-3) and refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
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
    """Read the value of a YAML text, which may not be larger, also with its aliases written out, than one by a person."""
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
    """Count the values in a node, those of an alias each time; one that holds itself has too many."""
    if id(node) not in known and isinstance(node, yaml.CollectionNode):
        known[id(node)] = _MOST_VALUES
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        known[id(node)] = 1 + sum(_size(inner, known) for pair in pairs for inner in pair)
    return known.get(id(node), 1)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raise a ``UserError`` with file and line if the file is not valid."""
    try:
        values = _parsed(path.read_text(encoding="utf-8"))
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
    except (yaml.YAMLError, *_UNREADABLE):
        raise UserError(f"--set {override}: {text!r} is not a YAML value") from None


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
