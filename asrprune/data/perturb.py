"""A copy of a data directory at each of several speeds, written line by line: memory does not grow with the directory."""

import heapq
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from asrprune.data.check import structure_faults
from asrprune.data.tables import FILES, READ, Table, Tables, joined, number, open_tables, raise_faults, write_ascending
from asrprune.runtime.errors import UserError

# The files that are copied, and what a prefix of the ids does to a value. wav.scp is last: without it a directory is invalid.
_COPIED: dict[str, Callable[[str, str], str]] = {
    "utt2spk": lambda prefix, speaker: prefix + speaker,
    "spk2utt": lambda prefix, utterances: " ".join(prefix + utterance for utterance in utterances.split()),
    "text": lambda _, text: text,
    "segments": lambda prefix, segment: prefix + segment,  # it begins with the recording
    "utt2speed": lambda _, speed: speed,
    "wav.scp": lambda _, entry: entry,
}


def write_speed_copies(source: Path, target: Path, speeds: Sequence[float]) -> int:
    """Write a copy of each utterance for each speed; return the number of copies.

    Ids, speakers and recordings get the prefix ``sp<speed>-``, except at speed 1. Files of ``target`` that were made from
    others are deleted.

    Raises:
        UserError: the source has faults (the error lists all), or is the target, or two copies would have the same id.
    """
    if source.resolve() == target.resolve():
        raise UserError(f"{target}: is the directory to copy; write the copies to another directory")
    tables = open_tables(source, READ)
    raise_faults(structure_faults(source, tables, need_text=True))
    names = [name for name in _COPIED if name in tables or (name == "utt2speed" and set(speeds) != {1.0})]
    for name in {"wav.scp", *FILES} - set(names[:-1]):
        (target / name).unlink(missing_ok=True)
    for name in names:
        write_ascending(target / name, heapq.merge(*(_copy(name, tables, speed) for speed in speeds)))
    return len(speeds) * len(tables["utt2spk"])


def original_name(name: str) -> str:
    """Return a name without the prefix of a copy.

    >>> [original_name(name) for name in ("sp0.9-ann", "sp2-ann", "ann", "asp1-nn")]
    ['ann', 'ann', 'ann', 'asp1-nn']
    """
    return re.sub(r"^sp\d+(\.\d+)?-", "", name)


def _copy(name: str, tables: Tables, speed: float) -> Iterator[tuple[str, str]]:
    """Yield the rows of a file for one speed, in the order of the file."""
    prefix = "" if speed == 1.0 else f"sp{speed:g}-"
    rows = _speeds(tables, speed) if name == "utt2speed" else iter(tables[name])
    return ((prefix + key, _COPIED[name](prefix, value)) for key, value in rows)


def _speeds(tables: Tables, factor: float) -> Iterator[tuple[str, str]]:
    """Yield each utterance with its speed in the source, times ``factor``."""
    given: Table | list[tuple[str, str]] = tables.get("utt2speed", [])
    for utterance, row in joined(tables["utt2spk"], given):
        if utterance:
            speed = factor * (float(row[1]) if row else 1.0)
            yield utterance[0], number(speed)
