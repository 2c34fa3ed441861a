"""The mark of a stage: a small file with the needs with which the stage was done."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import write_json
from asrprune.runtime.records import read_values


@dataclass(frozen=True)
class Needs:
    """The needs of a stage: all that it depends on. Later stages do not depend on ``also``."""

    after: str  # the result of the previous stage
    needs: dict[str, Any]
    also: dict[str, Any]
    recordings: dict[str, str] = field(default_factory=dict)  # data directory -> digest of its audio files

    def differences(self, done: "Needs") -> list[str]:
        """Return how these needs differ from those with which the stage was done; if they do not, it is not run again.

        Additional entries of ``done.also``, such as more test sets, do not count. Nor do recordings that ``done`` does not
        mention, as in marks of earlier versions.
        """
        removed = dict.fromkeys(set(done.needs) - {*self.needs, *self.also})
        old, new = {**done.also, **done.needs}, {**removed, **self.also, **self.needs}
        changed = [_change(name, old.get(name), value) for name, value in new.items() if old.get(name) != value]
        changed += [
            f"recordings of {name}" for name, digest in done.recordings.items() if self.recordings.get(name, digest) != digest
        ]
        return (["the previous stage"] if self.after != done.after else []) + changed


@dataclass(frozen=True)
class Record(Needs):
    """The needs with which a stage was done, digests of its output, and an id of its result, for the next stage."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    result: str = ""
    made: dict[str, str] = field(default_factory=dict)  # earlier versions did not record it

    @classmethod
    def of(cls, needs: Needs, made: dict[str, str], repeatable: bool) -> "Record":
        """Make the record of a stage that has just ended; a repeatable stage has the same result for the same needs."""
        content = json.dumps([needs.after, needs.needs, {} if repeatable else made], sort_keys=True)
        return cls(**asdict(needs), result=hashlib.sha256(content.encode()).hexdigest(), made=made)

    @classmethod
    def read(cls, mark: Path) -> "Record | None":
        """Read the record of a mark; return None if it is missing or not valid; some of earlier versions are not."""
        try:
            return read_values(cls, mark, "the stage")
        except UserError:
            return None

    def write(self, mark: Path) -> None:
        """Write the mark, atomically."""
        write_json(mark, asdict(self))


def _change(name: str, old: Any, new: Any) -> str:
    """Format ``train.epochs: 2, now 3``, or only the name if a value is long or missing."""
    values = [json.dumps(value) for value in (old, new)]
    short = all(value is not None and len(text) <= 20 for value, text in zip((old, new), values, strict=True))
    return f"{name}: {values[0]}, now {values[1]}" if short else name
