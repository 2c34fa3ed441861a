"""Records: JSON files with declared fields. A file with other fields gives a ``UserError``, not a KeyError."""

import reprlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import read_json, write_json

Finite = Annotated[float, Field(allow_inf_nan=False)]
Values = TypeVar("Values")


class Record(BaseModel):
    """The base of all records and of their parts: immutable; an unknown field is an error.

    A field with its default value is not written, because files of earlier versions may lack it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, protected_namespaces=())
    made_by: ClassVar[str]  # the stage or command that writes the file

    @classmethod
    def read(cls: "type[AnyRecord]", path: Path) -> "AnyRecord":
        """Read a file.

        Raises:
            UserError: the file is missing or not valid.
        """
        return read_values(cls, path, cls.made_by)

    def write(self, path: Path) -> None:
        """Write a file, atomically."""
        write_json(path, self.plain())

    def plain(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_values(kind: type[Values], path: Path, made_by: str) -> Values:
    """Read a JSON file whose content has the type ``kind``, such as ``dict[str, int]``, or a ``Record``.

    Raises:
        UserError: the file is missing or not valid; the error names ``made_by``, the stage or command that writes it.
    """
    values = read_json(path, made_by)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise UserError(f"{path}: {first_fault(error)}; remove it, {made_by} makes it again") from None


def first_fault(found: ValidationError) -> str:
    """Return the first fault as ``rows.0.depth: input should be a valid integer, got 'x'``."""
    error: Any = found.errors()[0]
    place, message, value = ".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, "), error["input"]
    got = "" if isinstance(value, dict | list) else f", got {reprlib.repr(value)}"
    return f"{place}: {message[0].lower()}{message[1:]}{got}".removeprefix(": ")
