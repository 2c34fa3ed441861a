"""ARPA files: n-gram models as text, the format of SRILM and KenLM; plain or gzipped."""

import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from asrprune.lm.language_model import END, NO_NODE, START, UNKNOWN, Grams, LanguageModel, find_nodes, keys_of
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path, check_unchanged, open_unzipped, sha256_of

_AT_ONCE = 20_000  # lines that are held
_LONGEST = 1 << 14  # bytes of a line
_MOST = 1000.0  # of log10 values; -inf, the probability 0 of some programs, would give NaN with a weight of 0
_COUNT = re.compile(rb"ngram\s+(\d{1,2})\s*=\s*(\d{1,12})\s*$")


class ArpaModel(LanguageModel):
    """The language model of an ARPA file. Only its path and hash are pickled."""

    def __init__(self, path: Path) -> None:
        """Read the file: a million n-grams take about four seconds, and 90 MB of memory with their words.

        Raises:
            UserError: the file is missing or broken.
        """
        super().__init__(*_read_file(path))
        self.path, self.sha256 = path.resolve(), sha256_of(path)

    def __reduce__(self) -> tuple[Callable[[Path, str], "ArpaModel"], tuple[Path, str]]:
        return _again, (self.path, self.sha256)


def _again(path: Path, sha256: str) -> ArpaModel:
    """Read a pickled model."""
    model = ArpaModel(path)
    check_unchanged(path, sha256, model.sha256)
    return model


def _read_file(path: Path) -> tuple[list[str], list[Grams]]:
    if not path.is_file():
        raise UserError(f"{path}: no such language model; `asrprune lm` makes one")
    with open_unzipped(path) as handle:
        return _read(_Lines(path, handle))


class _Lines:
    """The stripped lines of a file, and the number of the last line read."""

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self.path, self.number, self._handle = path, 0, iter(partial(handle.readline, _LONGEST), b"")

    def __iter__(self) -> Iterator[bytes]:
        for line in self._handle:
            self.number += 1
            yield line.strip()

    def next_of_text(self) -> bytes:
        """Return the next line that is not empty, or an empty one at the end of the file."""
        return next((line for line in self if line), b"")

    def fail(self, what: str, number: int | None = None) -> NoReturn:
        """Raise a ``UserError`` about a line, by default the last one read."""
        raise UserError(f"{self.path}:{number or self.number}: {what}")


def _read(lines: _Lines) -> tuple[list[str], list[Grams]]:
    counts, words, orders = _counts(lines), list[str](), list[Grams]()
    index: dict[bytes, int] = {}
    for order, count in enumerate(counts, 1):
        if (line := lines.next_of_text()) != b"\\%d-grams:" % order:
            lines.fail(f"`\\{order}-grams:` must stand here, got {_shown(line)}; the file is cut short or no ARPA file")
        first = lines.number + 1
        numbers, log_prob, backoff = _entries(lines, order, count, index)
        if order == 1:
            words = [_decoded(lines, word, first + number) for word, number in index.items()]
        orders.append(_sorted(lines, first, orders, numbers, log_prob, backoff, len(words)))
    if (line := lines.next_of_text()) != b"\\end\\":
        lines.fail(f"`\\end\\` must stand here, got {_shown(line)}; the counts at the top are wrong or the file is cut short")
    if missing := {START, END} - set(words):
        raise UserError(f"{lines.path}: has no unigram {' and no '.join(sorted(missing))}; train it with sentence boundaries")
    return words, orders


def _counts(lines: _Lines) -> list[int]:
    """Read the numbers of n-grams of each order at the top of the file."""
    if not any(line == b"\\data\\" for line in lines):
        raise UserError(f"{lines.path}: has no line `\\data\\`, so it is no ARPA file; `asrprune lm` writes one")
    counts: list[int] = []
    for line in lines:
        if not line and counts:
            break
        match = _COUNT.match(line)
        if match and int(match[1]) == len(counts) + 1:
            counts.append(int(match[2]))
        elif line:
            lines.fail(f"`ngram {len(counts) + 1}=` and a number must stand here, got {_shown(line)}")
    return counts


def _entries(lines: _Lines, order: int, count: int, index: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read word numbers (N, order), log10 probabilities (N,) and back-offs (N,); unigrams fill ``index``."""
    numbers: list[int] = []
    values: tuple[list[float], list[float]] = [], []
    for start in range(0, count, _AT_ONCE):
        first = lines.number + 1
        rows = [line.split(None, order + 2) for line in islice(lines, min(_AT_ONCE, count - start))]
        try:
            if order == 1:
                index.update((row[1], start + place) for place, row in enumerate(rows))
            if not all(1 <= len(row) - order <= 2 for row in rows):
                raise ValueError("a line has too few or too many fields")
            numbers += [index[word] for row in rows for word in row[1 : order + 1]]
            values[0].extend(float(row[0]) for row in rows)
            values[1].extend(float(row[-1]) if len(row) > order + 1 else 0.0 for row in rows)
        except (IndexError, KeyError, ValueError):
            for place, row in enumerate(rows):
                _check(lines, first + place, row, order, index)
            raise
        if start + len(rows) < min(count, start + _AT_ONCE):
            lines.fail(f"the file ends after {start + len(rows)} of {count} {order}-grams; copy or download it again")
    return np.array(numbers, dtype=np.int64).reshape(-1, order), np.array(values[0]), np.array(values[1])


def _check(lines: _Lines, number: int, row: Sequence[bytes], order: int, index: dict[bytes, int]) -> None:
    """Raise a ``UserError`` if a line is not an n-gram of this order."""
    shown = _shown(b" ".join(row))
    if not 1 <= len(row) - order <= 2 or not all(map(_is_number, [row[0], *row[order + 1 :]])):
        words = "a word" if order == 1 else f"{order} words"
        lines.fail(f"a number, {words} and perhaps a number must stand here, got {shown}", number)
    if unknown := [word for word in row[1 : order + 1] if word not in index]:
        lines.fail(f"{_shown(unknown[0])} is no unigram of the model; every word must be one", number)


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _sorted(
    lines: _Lines,
    first: int,
    lower: Sequence[Grams],
    numbers: np.ndarray,
    log_prob: np.ndarray,
    backoff: np.ndarray,
    num_words: int,
) -> Grams:
    """Check and sort the n-grams of an order; ``first`` is the line of the first n-gram."""
    for fault in np.flatnonzero(~(np.abs(backoff) <= _MOST) | ~(log_prob <= 0.0))[:1]:
        lines.fail(
            f"log10 of a probability must be 0 or less, and that of a back-off weight within {_MOST:g}", first + int(fault)
        )
    log_prob = np.maximum(log_prob, -_MOST)
    context, keys = np.zeros(len(numbers), dtype=np.int64), keys_of(lower, num_words)
    for column in numbers.T[:-1]:
        context = find_nodes(keys, context, column, num_words)
    for fault in np.flatnonzero(context == NO_NODE)[:1]:
        lines.fail("all words but the last must be an n-gram of the model, too", first + int(fault))
    key = context * num_words + numbers[:, -1]
    order = np.argsort(key, kind="stable")
    for fault in np.flatnonzero(np.diff(key[order]) == 0)[:1]:
        lines.fail("has a line above; keep one of the two", first + int(order[fault + 1]))
    return Grams(context[order], numbers[order, -1], log_prob[order], backoff[order])


def _decoded(lines: _Lines, word: bytes, number: int) -> str:
    try:
        text = word.decode("utf-8")
        return UNKNOWN if text == "<UNK>" else text  # as in KenLM: models of upper-case words have <UNK>
    except UnicodeDecodeError:
        lines.fail(f"{_shown(word)} is not UTF-8; convert the file, for example: iconv -f ISO-8859-1 -t UTF-8", number)


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:60] + "...") if text else "nothing"


def write_arpa(path: Path, model: LanguageModel) -> None:
    """Write a model, atomically; gzipped if the name ends in ``.gz``."""
    with atomic_path(path) as temporary, open(temporary, "wb") as handle, ExitStack() as stack:
        zipped = path.suffix == ".gz"
        target = stack.enter_context(gzip.GzipFile("", "wb", fileobj=handle, mtime=0)) if zipped else handle
        for line in _rendered(model):
            target.write(line.encode())


def _rendered(model: LanguageModel) -> Iterator[str]:
    yield "\\data\\\n"
    yield from (f"ngram {order}={len(grams.word)}\n" for order, grams in enumerate(model.orders, 1))
    texts, first = [""], 0  # texts of the nodes of the order below, and the first of these nodes
    for order, grams in enumerate(model.orders, 1):
        yield f"\n\\{order}-grams:\n"
        texts = [
            f"{texts[context - first]} {model.words[word]}".lstrip(" ")
            for context, word in zip(grams.context.tolist(), grams.word.tolist(), strict=True)
        ]
        first += 1 if order == 1 else len(model.orders[order - 2].word)
        values = zip(grams.log_prob.tolist(), texts, grams.backoff.tolist(), strict=True)
        for log_prob, text, backoff in values:
            yield f"{log_prob:.7g}\t{text}" + (f"\t{backoff:.7g}\n" if order < model.order else "\n")
    yield "\n\\end\\\n"
