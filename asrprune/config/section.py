"""The base class of all sections of the config. Sections are immutable; each number states its meaning and what it affects."""

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

Kind = Literal["features", "learning", "search", "decoding", "pace", "bench", "report"]
KINDS: dict[Kind, str] = {  # what a number can affect
    "features": "the features on disk; all methods of a comparison (`asrprune compare`) share this number",
    "learning": "the result of training; a stopped training run cannot continue with another value",
    "search": "which layers are removed",
    "decoding": "the text that a trained model puts out",
    "pace": "speed, memory, or how work is divided, but no result",
    "bench": "the measurements of `asrprune bench`",
    "report": "how decoded sets are scored, and how results and messages call the scored units",
}
TOLERANT = {"tolerant": True}  # the validation context that accepts numbers without effect, as earlier versions did


def setting(default: Any, what: str, *, unit: str = "", affects: tuple[Kind, ...] = (), **bounds: Any) -> Any:
    """Define a number of the config.

    Args:
        default: the value if a recipe does not set the number.
        what: the description in docs/config.md.
        unit: the unit of the value.
        affects: what the number affects; if empty, the ``affects`` of its section.
        bounds: bounds for pydantic's ``Field``, such as ``ge=1``.
    """
    return Field(default, description=what, json_schema_extra={"unit": unit, "affects": list(affects)}, **bounds)


_LIMIT = 1e9


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # Python treats it as 1 or 0
        raise ValueError(f"must be a number, got {str(value).lower()}")
    if isinstance(value, int | float) and _LIMIT < abs(value) < math.inf:  # larger sizes overflow in torch
        raise ValueError(f"must lie between -1e9 and 1e9, got {value}")
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


Bounded = BeforeValidator(_number)
Real = Annotated[float, Bounded]
Whole = Annotated[int, Bounded]
Probability = Annotated[float, Field(ge=0.0, lt=1.0), Bounded]
Share = Annotated[float, Field(ge=0.0, lt=1.0), Bounded]
Positive = Annotated[int, Field(ge=1), Bounded]
Several = Annotated[tuple[Item, ...], AfterValidator(_some)]
Different = Annotated[Several[Item], AfterValidator(_no_repeats)]


class Section(BaseModel):
    """The base of all sections. An unknown key is an error; a number without effect is one, too, unless it has its default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    affects: ClassVar[tuple[Kind, ...]] = ()  # what a number affects that does not say so itself

    def mistakes(self) -> list[str]:
        """Return a sentence for each mistake: for values that do not fit together."""
        return []

    def idle(self) -> dict[str, str]:
        """Return the idle numbers, name -> reason: because of other numbers they have no effect, whatever their value."""
        return {}

    def idle_mistakes(self) -> dict[str, str]:
        """Return an error sentence for each idle number that does not have its default: name -> sentence."""
        return {
            key: f"{key} has no effect {reason}; leave it out"
            for key, reason in self.idle().items()
            if getattr(self, key) != self.default(key)
        }

    def settled(self: "AnySection") -> "AnySection":
        """Return a copy in which the idle numbers of this section have their defaults."""
        return self.model_copy(update={key: self.default(key) for key in self.idle()})

    @classmethod
    def default(cls, key: str) -> Any:
        """Return the default of a number."""
        return cls.model_fields[key].get_default(call_default_factory=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, values: Any) -> Any:
        return {} if values is None else values  # the YAML value of `train:` if all its keys are commented out

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
    """Return a validator that expands a short form: the tag alone, ``conformer``, becomes ``{type: conformer}``.

    Args:
        tag: the key that names the alternative.
        default: the alternative if the tag is not given.
    """

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return {tag: value}
        if value is None or isinstance(value, dict):
            return {tag: default, **(value or {})}
        return value

    return read
