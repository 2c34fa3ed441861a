"""Tables, the files of a Kaldi data directory: ``key value`` a line, UTF-8, bytewise sorted, keys unique.

A fault reads ``file:line: id: what is wrong; how to fix it``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from asrprune.errors import UserError
from asrprune.files import write_text

MADE_LATER = ("utt2dur", "feats.scp", "utt2num_frames")
BY_UTTERANCE = ("text", "segments", "utt2speed", *MADE_LATER)
FILES = ("utt2spk", "spk2utt", "wav.scp", *BY_UTTERANCE)
BY_STAGE_1 = "stage 1 (data preparation) makes it"
FIX = "`asrprune fix-data` does it"
ODD_BLANK = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u200b\ufeff]")  # other blanks, control characters, byte order marks
_MOST_SHOWN = 20


class Table(NamedTuple):
    """A file's rows in the order of the file, and the line that each key stands on."""

    path: Path
    rows: dict[str, str]
    lines: dict[str, int]

    def fault(self, key: str, what: str) -> str:
        return f"{self.path}:{self.lines[key]}: {key}: {what}"


Rows = dict[str, dict[str, str]]  # file name -> its rows
Tables = dict[str, Table]  # file name -> its rows and where they stand


def read_table(path: Path, allow_empty: bool = False) -> dict[str, str]:
    """Rows of a table, ``{key: rest of the line}``; all faults of the file are raised in one ``UserError``."""
    if not path.is_file():
        raise UserError(missing(path))
    table, faults = _parse(path, path.read_bytes(), allow_empty)
    raise_faults(faults)
    return table.rows


def stream_table(path: Path, allow_empty: bool = False) -> Iterator[tuple[str, str]]:
    """Rows of a table one by one, in the memory of one; at the first sign of a fault all are raised, as by ``read_table``."""
    previous, whole = "", False
    if path.is_file():
        with open(path, "rb") as handle:
            for raw in handle:
                line = raw[:-1].decode("utf-8", "replace")
                key, value = split_line(line)
                whole = raw.endswith(b"\n") and key > previous and not _line_faults(raw[:-1], line, key, value, allow_empty)
                if not whole:
                    break
                yield key, value
                previous = key
    if not whole:
        read_table(path, allow_empty)
        raise AssertionError(f"{path} was refused line by line, but not as a whole")


def write_table(path: Path, rows: Mapping[str, str]) -> None:
    """Write ``rows`` sorted bytewise, whole or not at all."""
    write_text(path, render(rows))


def read_files(path: Path) -> tuple[Tables, list[str]]:
    """Tables of the files that are there, and the faults within each."""
    return parse_all({path / name: (path / name).read_bytes() for name in FILES if (path / name).is_file()})


def parse_all(contents: Mapping[Path, bytes]) -> tuple[Tables, list[str]]:
    tables: Tables = {}
    faults: list[str] = []
    for path, data in contents.items():
        tables[path.name], found = _parse(path, data)
        faults += found
    return tables, faults


def _parse(path: Path, data: bytes, allow_empty: bool = False) -> tuple[Table, list[str]]:
    """Rows and faults of a table; a faulty line still counts as its key's, so that one mistake is reported once."""
    table = Table(path, {}, {})
    *lines, rest = data.split(b"\n")
    faults = [] if data else [f"{path}: is empty; {BY_STAGE_1}"]
    if rest:
        lines.append(rest)
        faults.append(f"{path}:{len(lines)}: the last line has no end, the file may be cut short; {BY_STAGE_1}")
    previous = ""
    for number, raw in enumerate(lines, 1):
        line = raw.decode("utf-8", "replace")
        key, value = split_line(line)
        whats = _line_faults(raw, line, key, value, allow_empty)
        if key in table.rows:
            whats.append(f"has a line above, {table.lines[key]}; keep one of the two")
        elif key:
            table.rows[key], table.lines[key] = value, number
        # Comparing str by code points orders them as their UTF-8 bytes would be, whatever the locale.
        if key and key < previous:
            whats.append(f"stands after {previous}, but ids are sorted bytewise; sort with LC_ALL=C, {FIX}")
        previous = key or previous
        faults += [f"{path}:{number}: {key}: {what}" for what in whats]
    return table, faults


def split_line(line: str) -> tuple[str, str]:
    """Key and value of a line, without blanks around them."""
    key, *value = line.strip().split(maxsplit=1) or [""]
    return key, "".join(value)


def _line_faults(raw: bytes, line: str, key: str, value: str, allow_empty: bool) -> list[str]:
    """What is wrong with one line on its own: the first fault found."""
    if not key:
        return [f"the line is empty; delete it, {FIX}"]
    if "\ufffd" in line and (place := not_utf8(raw)):
        return [f"byte {place} of the line is not UTF-8; convert the file, for example: iconv -f ISO-8859-1 -t UTF-8"]
    if not value and not allow_empty:
        return ["nothing follows the id; complete the line or remove the utterance"]
    if not line.isprintable() and (odd := ODD_BLANK.search(line)):  # the first is quick, but would refuse joiners too
        return [f"holds {odd[0]!a}, but only plain spaces separate words; replace it, {FIX}"]
    if line != f"{key} {value}".rstrip(" "):
        return [f"has a space too many, at an end or after the id; remove it, {FIX}"]
    return []


def not_utf8(raw: bytes) -> int:
    """Number of the first byte that is not UTF-8, from 1; 0 if all are."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start + 1
    return 0


def render(rows: Mapping[str, str]) -> str:
    return "".join(f"{key} {rows[key]}".rstrip(" ") + "\n" for key in sorted(rows))


def raise_faults(faults: Sequence[str]) -> None:
    """Raise the faults, if there are any, a line each: the first 20 and the number of the others."""
    if faults:
        more = [f"... and {len(faults) - _MOST_SHOWN} more"] if len(faults) > _MOST_SHOWN else []
        raise UserError("\n".join([*faults[:_MOST_SHOWN], *more]))


def missing(path: Path) -> str:
    return f"{path}: does not exist; {FIX if path.name == 'spk2utt' else BY_STAGE_1}"
