"""The mark of a stage: what it was done with, as a small file."""

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asrprune.runtime.files import parse_json, write_json


@dataclass(frozen=True)
class Needs:
    """All that a stage depends on. ``also`` does not count for the stages after it."""

    after: str  # result of the stage before
    needs: dict[str, Any]
    also: dict[str, Any]

    def differences(self, done: "Needs") -> list[str]:
        """Say how these needs differ from those that a stage was done with, a phrase each; empty: it need not run again.

        Of ``also`` it may have been done with more, such as further test sets.
        """
        removed = dict.fromkeys(set(done.needs) - set(self.needs))
        old, new = {**done.also, **done.needs}, {**removed, **self.also, **self.needs}
        changed = [_change(name, old.get(name), new[name]) for name in new if name not in old or old[name] != new[name]]
        return (["the stage before it"] if self.after != done.after else []) + changed


@dataclass(frozen=True)
class Record(Needs):
    """Needs with which a stage was done. ``result`` stands for what it made, and is what the stage after it is bound to."""

    result: str

    @classmethod
    def of(cls, needs: Needs, repeatable: bool) -> "Record":
        """The record of a stage that has just ended; only of a repeatable one equal needs give equal results."""
        content = json.dumps([needs.after, needs.needs], sort_keys=True)
        result = hashlib.sha256(content.encode()).hexdigest() if repeatable else uuid.uuid4().hex
        return cls(needs.after, needs.needs, needs.also, result)

    @classmethod
    def read(cls, mark: Path) -> "Record | None":
        """The record in a mark; None: there is none, or one that cannot be read, as those of earlier versions."""
        try:
            return cls(**parse_json(mark.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, mark: Path) -> None:
        """Write the mark, whole or not at all."""
        write_json(mark, asdict(self))


def _change(name: str, old: Any, new: Any) -> str:
    """``train.epochs: 2, now 3``; of what has no short value the name alone."""
    values = [json.dumps(value) for value in (old, new)]
    short = all(value is not None and len(text) <= 20 for value, text in zip((old, new), values, strict=True))
    return f"{name}: {values[0]}, now {values[1]}" if short else name


def listed(phrases: list[str], most: int = 3) -> str:
    """The first few of several phrases.

    >>> listed(["a", "b", "c", "d"])
    'a; b; c and 1 more'
    """
    return "; ".join(phrases[:most]) + (f" and {len(phrases) - most} more" if len(phrases) > most else "")
