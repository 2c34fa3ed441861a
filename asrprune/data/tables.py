"""Tables are the files of a Kaldi data directory: lines ``key value``, UTF-8, sorted bytewise, with unique keys.

The format of a fault is ``file:line: id: what is wrong; how to fix it``.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from unicodedata import normalize

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_file, write_text
from asrprune.runtime.planted import lines_of

MADE_LATER = ("utt2dur", "feats.scp", "utt2num_frames", "utt2crc")  # by stage 2
READ = ("utt2spk", "spk2utt", "wav.scp", "text", "segments", "utt2speed")
# Kaldi has more tables, which are checked and fixed, but not read:
BY_UTTERANCE = ("text", "segments", "utt2speed", *MADE_LATER, "utt2lang", "utt2uniq", "utt2warp", "vad.scp")
BY_RECORDING = ("wav.scp", "reco2dur", "reco2file_and_channel")  # without segments, an utterance is a recording
BY_SPEAKER = ("spk2gender", "spk2warp", "cmvn.scp")
FILES = ("utt2spk", "spk2utt", *BY_RECORDING, *BY_UTTERANCE, *BY_SPEAKER)
BY_STAGE_1 = "stage 1 (data preparation) makes it"
FIX = "`asrprune fix-data` does it"
# Blanks other than a space (also of Braille and Hangul), control characters, byte order marks, sentencepiece's mark of the
# start of a word:
ODD_BLANK = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u200b\u2800\u3164\uffa0\ufeff\u2581]")
# Letters and symbols that have several shapes, of which a variation selector after them chooses one: Burmese, Mongolian,
# Chinese, emojis.
_VARIED = r"\u1000-\u109f\u1800-\u18af\u2000-\u9fff\ua840-\ua87f\uf900-\ufaff\U0001f000-\U0003ffff"
# A word looks the same with and without these: soft hyphens, word joiners, marks of the direction of writing, fillers, tags,
# and variation selectors after a letter of one shape. The joiners U+200C and U+200D are not among them: Persian and Hindi
# spelling needs them.
INVISIBLE = re.compile(
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200e\u200f\u202a-\u202e\u2060-\u206f\ufff9-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
    rf"|(?<![{_VARIED}])[\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_MOST_SHOWN, _MOST_FOUND = 20, 10_000  # faults; a fault takes a hundred times the memory of a short line
_NAMED = 5  # the largest number of ids in a sentence

Row = tuple[str, str, int]  # key, value, line number
Rows = dict[str, dict[str, str]]  # file name -> its rows
Left = TypeVar("Left", bound=tuple[Any, ...])
Right = TypeVar("Right", bound=tuple[Any, ...])


class Table:
    """The rows of a file, sorted bytewise by key (only the first row of each key), and the faults of its lines.

    Each iteration reads the file again and keeps one line in memory. Only the rows of an unsorted file are kept in memory.
    """

    def __init__(self, path: Path, allow_empty: bool = False, data: bytes | None = None) -> None:
        """Find the faults of the file, or of ``data``, if the file is not written yet."""
        self.path, self._data = path, data
        self._held: list[Row] | None = None
        self._len = 0
        self.faults = self._find_faults(allow_empty, hold=False)

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((key, value) for key, value, _ in self.numbered())

    def numbered(self) -> Iterator[Row]:
        """Yield the rows with their line numbers."""
        return iter(self._held) if self._held is not None else self._read()

    def fault(self, row: Row, what: str) -> str:
        """Return a fault: file, line (if the file is on disk) and id of a row, and what is wrong."""
        line = f":{row[2]}" if self._data is None else ""
        return f"{self.path}{line}: {row[0]}: {what}"

    def _open(self) -> BinaryIO:
        return open(self.path, "rb") if self._data is None else BytesIO(self._data)

    def _read(self) -> Iterator[Row]:
        """Yield the rows of a sorted file."""
        previous = ""
        with self._open() as handle:
            for number, raw in enumerate(lines_of(handle, self.path), 1):
                key, value = split_line(raw.decode("utf-8", "replace"))
                if key > previous:
                    yield key, value, number
                    previous = key

    def _find_faults(self, allow_empty: bool, hold: bool) -> list[str]:
        """Read the file and return its faults. ``hold`` keeps the rows in memory, which an unsorted file needs."""
        faults: list[str] = []
        rows: dict[str, Row] = {}  # the last row, or all rows with ``hold``
        previous, number, raw, count, ascending = "", 0, b"", 0, True
        with self._open() as handle:
            for number, raw in enumerate(lines_of(handle, self.path), 1):
                line = raw.decode("utf-8", "replace").removesuffix("\n")
                key, value = split_line(line)
                if not hold and "" < key < previous:
                    return self._find_faults(allow_empty, hold=True)
                before = previous if ascending else ""
                found = [*_line_faults(raw, line, key, value, allow_empty), *_order_faults(key, before, rows.get(key))]
                faults += [self.fault((key, value, number), what) for what in found]
                if len(faults) > _MOST_FOUND:
                    raise_faults(faults)
                if key and key not in rows:
                    if not hold:
                        rows.clear()
                    rows[key] = key, value, number
                    count += 1
                ascending = ascending and not "" < key < previous  # one line tells that a file is not sorted
                previous = key or previous
        self._len, self._held = count, sorted(rows.values()) if hold else None
        return [*self._end_faults(number, raw), *faults]

    def _end_faults(self, number: int, raw: bytes) -> list[str]:
        """Return a fault if the file is empty or its last line incomplete."""
        if not raw:
            return [f"{self.path}: is empty; {BY_STAGE_1}"]
        if not raw.endswith(b"\n"):
            return [f"{self.path}:{number}: the last line has no newline, the file may be truncated; {BY_STAGE_1}"]
        return []


Tables = dict[str, Table]  # file name -> its rows


def open_table(path: Path, allow_empty: bool = False) -> Table:
    """Open a table; raise a ``UserError`` with all faults of the file."""
    if not path.is_file():
        raise UserError(missing(path))
    table = Table(path, allow_empty)
    raise_faults(table.faults)
    return table


def read_table(path: Path) -> dict[str, str]:
    """Read a table, ``{key: rest of the line}``; raise a ``UserError`` like ``open_table``."""
    return dict(open_table(path))


def stream_table(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the rows of a table in one pass; at the first faulty line, raise a ``UserError`` like ``open_table``."""
    previous, valid = "", False
    if path.is_file():
        with open(path, "rb") as handle:
            for raw in lines_of(handle, path):
                line = raw[:-1].decode("utf-8", "replace")
                key, value = split_line(line)
                valid = raw.endswith(b"\n") and key > previous and not _line_faults(raw[:-1], line, key, value)
                if not valid:
                    break
                yield key, value
                previous = key
    if not valid:
        open_table(path)
        raise AssertionError(f"{path} was refused line by line, but not as a whole")


def joined(left: Iterable[Left], right: Iterable[Right]) -> Iterator[tuple[Left | None, Right | None]]:
    """Yield pairs of rows with the same key from two ascending tables; None stands for a missing row."""
    lefts, rights = iter(left), iter(right)
    a, b = next(lefts, None), next(rights, None)
    while a or b:
        if a and b and a[0] == b[0]:
            yield a, b
            a, b = next(lefts, None), next(rights, None)
        elif a and not (b and b[0] < a[0]):
            yield a, None
            a = next(lefts, None)
        else:
            yield None, b
            b = next(rights, None)


def sha256_of_rows(rows: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 of rows, in hexadecimal; records identify the transcripts of a set by it."""
    digest = hashlib.sha256()
    for key, value in rows:
        digest.update(f"{key} {value}\n".encode())
    return digest.hexdigest()


def write_table(path: Path, rows: Mapping[str, str]) -> None:
    """Write ``rows`` sorted bytewise, atomically."""
    write_text(path, render(rows))


def write_ascending(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write rows that ascend already, one at a time, atomically.

    Raises:
        UserError: a key has two rows.
    """
    previous = ""
    with atomic_file(path) as handle:
        for key, value in rows:
            if key == previous:
                raise UserError(f"{path}: {key}: two lines would have this id; give each its own id")
            assert key > previous
            handle.write(f"{key} {value}".rstrip(" ") + "\n")
            previous = key


def open_tables(directory: Path, names: Sequence[str] = FILES) -> Tables:
    """Return those of the tables that a directory has."""
    return {name: Table(directory / name) for name in names if (directory / name).is_file()}


def split_line(line: str) -> tuple[str, str]:
    """Split a line into key and value, without surrounding blanks."""
    key, *value = line.strip().split(maxsplit=1) or [""]
    return key, "".join(value)


def is_count(value: str) -> bool:
    """Return whether a value is a whole number of at most nine digits."""
    return value.isascii() and value.isdecimal() and len(value) < 10


def _line_faults(raw: bytes, line: str, key: str, value: str, allow_empty: bool = False) -> list[str]:
    """Return the first fault of a line, checked by itself."""
    if not key:
        return [f"the line is empty; delete it, {FIX}"]
    if "\ufffd" in line and (place := not_utf8(raw)):
        return [f"byte {place} of the line is not UTF-8; convert the file, for example: iconv -f ISO-8859-1 -t UTF-8"]
    if not value and not allow_empty:
        return ["nothing follows the id; complete the line or remove the utterance"]
    if wrong := unseen(line):
        return [f"{wrong}, {FIX}"]
    if line != f"{key} {value}".rstrip(" "):
        return [f"has extra spaces at an end or after the id; remove them, {FIX}"]
    return []


def unseen(line: str) -> str:
    """Return what is wrong with the blanks and the invisible marks of a line; an empty string if nothing is."""
    if line.isascii() and line.isprintable():  # fast, for most lines
        return ""
    if odd := ODD_BLANK.search(line):
        return f"holds {odd[0]!a}, but only plain spaces separate words; replace it"
    if mark := INVISIBLE.search(line):
        return f"holds {mark[0]!a}, which is not visible, but makes another word; remove it"
    return ""


def looks_like(one: str, other: str) -> bool:
    r"""Return whether two words look the same: one may be written with combining characters.

    >>> looks_like("caf\u00e9", "cafe\u0301"), looks_like("cafe", "caf\u00e9")
    (True, False)
    """
    return not (one.isascii() and other.isascii()) and normalize("NFC", one) == normalize("NFC", other)


def _order_faults(key: str, previous: str, above: Row | None) -> Iterator[str]:
    """Yield the faults of a line that depend on the lines above it."""
    if above:
        yield f"has another line above, {above[2]}; keep one of the two"
    # The order of str by code points is the order of their UTF-8 bytes, in any locale.
    if "" < key < previous:
        yield f"stands after {previous}, but ids are sorted bytewise; sort with LC_ALL=C, {FIX}"


def not_utf8(raw: bytes) -> int:
    """Return the number of the first byte that is not UTF-8, from 1; 0 if all bytes are valid."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start + 1
    return 0


def render(rows: Mapping[str, str]) -> str:
    return "".join(f"{key} {rows[key]}".rstrip(" ") + "\n" for key in sorted(rows))


def raise_faults(faults: Sequence[str]) -> None:
    """Raise a ``UserError`` if there are faults: the first 20, one per line, and the number of the others."""
    if faults:
        more = [f"... and {len(faults) - _MOST_SHOWN} more"] if len(faults) > _MOST_SHOWN else []
        raise UserError("\n".join([*faults[:_MOST_SHOWN], *more]))


def some(items: Sequence[str], most: int = _NAMED, between: str = ", ") -> str:
    """Format the first items of a list, and the number of the others.

    >>> some(["a", "b", "c", "d"], most=3)
    'a, b, c and 1 more'
    """
    return between.join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def number(value: float) -> str:
    """Format seconds or a speed with at most six decimals; a sample at 48 kHz lasts 21 microseconds."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def missing(path: Path) -> str:
    made_by = "`asrprune fix-data` makes it" if path.name == "spk2utt" else BY_STAGE_1
    if path.exists():
        return f"{path}: is {'a directory, not a table' if path.is_dir() else 'a file, not a data directory'}; correct the path"
    return f"{path}: does not exist; {made_by}"
