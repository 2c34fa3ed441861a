"""Records: JSON files whose fields are known, so that one of another shape ends in a sentence and not in a KeyError."""

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import read_json, write_json


class Record(BaseModel):
    """Base of all records, and of their parts: immutable; an unknown field is an error.

    A field that has a default is not written where it has that value: files of earlier versions may lack it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())
    made_by: ClassVar[str]  # of a file: the command that writes it, in words

    @classmethod
    def read(cls: "type[AnyRecord]", path: Path) -> "AnyRecord":
        """Read a file.

        Raises:
            UserError: it is missing, or its first wrong field; ``made_by`` is named.
        """
        values = read_json(path, cls.made_by)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{path}: {_explain(error.errors()[0])}; remove it, {cls.made_by} makes it again") from None

    def write(self, path: Path) -> None:
        """Write a file, whole or not at all."""
        write_json(path, self.plain())

    def plain(self) -> dict[str, Any]:
        """The record as JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def _explain(error: Any) -> str:
    """``rows.0.depth: input should be a valid integer, got 'x'``."""
    place, message, value = ".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, "), error["input"]
    got = "" if isinstance(value, dict | list) else f", got {value!r}"
    return f"{place}: {message[0].lower()}{message[1:]}{got}".removeprefix(": ")
