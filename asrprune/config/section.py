"""The base of all sections of the config: they are frozen and strict, and each number says what it is and what it affects."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

Kind = Literal["features", "learning", "search", "decoding", "pace", "bench", "report"]
KINDS: dict[Kind, str] = {  # what a number can affect
    "features": "the features on disk; all methods of a comparison (`asrprune compare`) share it",
    "learning": "what a training run learns; one that was stopped cannot go on with another value",
    "search": "which layers are removed",
    "decoding": "the text that a trained model puts out",
    "pace": "how fast, or in what portions, something is done, but not what comes out",
    "bench": "what `asrprune bench` measures",
    "report": "what results and messages call the units that are counted",
}
TOLERANT = {"tolerant": True}  # the context in which numbers without effect are taken, as earlier versions took them


def setting(default: Any, what: str, *, unit: str = "", affects: tuple[Kind, ...] = (), **bounds: Any) -> Any:
    """A number of the config, said once.

    Args:
        default: where a recipe does not give it.
        what: a line for docs/config.md.
        unit: of the value.
        affects: what changes with it; if empty, what the section says of all its numbers.
        bounds: as pydantic's ``Field`` has them: ``ge=1``.
    """
    return Field(default, description=what, json_schema_extra={"unit": unit, "affects": list(affects)}, **bounds)


def _no_switch(value: Any) -> Any:
    if isinstance(value, bool):  # which Python takes for 1 or 0
        raise ValueError(f"must be no true or false, got {str(value).lower()}")
    return value


Item = TypeVar("Item")


def _some(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if not values:
        raise ValueError("is empty; give a value, or leave the key out")
    return values


def _no_repeats(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"has a value twice: {', '.join(map(str, values))}")
    return values


NoSwitch = BeforeValidator(_no_switch)
Real = Annotated[float, NoSwitch]
Whole = Annotated[int, NoSwitch]
Probability = Annotated[float, Field(ge=0.0, lt=1.0), NoSwitch]
Share = Annotated[float, Field(ge=0.0, lt=1.0), NoSwitch]
Positive = Annotated[int, Field(ge=1), NoSwitch]
Several = Annotated[tuple[Item, ...], AfterValidator(_some)]
Different = Annotated[Several[Item], AfterValidator(_no_repeats)]


class Section(BaseModel):
    """Base of all sections: immutable; an unknown key is an error, and so is a number that changes nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    affects: ClassVar[tuple[Kind, ...]] = ()  # what all its numbers affect that do not say so themselves

    def mistakes(self) -> list[str]:
        """Say what does not fit together, a sentence each."""
        return []

    def idle(self) -> dict[str, str]:
        """Name the numbers that change nothing beside the others, whatever their value, each with the reason."""
        return {}

    def idle_mistakes(self) -> dict[str, str]:
        """Say of the idle numbers that have a value of their own why they must not, a sentence each."""
        return {
            key: f"{key} has no effect {reason}; leave it out"
            for key, reason in self.idle().items()
            if getattr(self, key) != self.default(key)
        }

    def settled(self: "AnySection") -> "AnySection":
        """Put the idle numbers of this section at their defaults."""
        return self.model_copy(update={key: self.default(key) for key in self.idle()})

    @classmethod
    def default(cls, key: str) -> Any:
        """Value of a number that is not given."""
        return cls.model_fields[key].get_default(call_default_factory=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, values: Any) -> Any:
        return {} if values is None else values  # YAML's value of `train:` with all its keys commented out

    @model_validator(mode="after")
    def _check(self: "AnySection", info: ValidationInfo) -> "AnySection":
        found = self.mistakes()
        if info.context != TOLERANT:
            found += self.idle_mistakes().values()
        if found:
            raise ValueError("; ".join(found))
        return self


AnySection = TypeVar("AnySection", bound=Section)


def spelt_out(tag: str, default: str) -> Callable[[Any], Any]:
    """Read a section with alternatives: its tag alone, ``conformer``, is short for ``{type: conformer}``.

    Args:
        tag: the key that names the alternative.
        default: the alternative where it is left out.
    """

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return {tag: value}
        if value is None or isinstance(value, dict):
            return {tag: default, **(value or {})}
        return value

    return read
