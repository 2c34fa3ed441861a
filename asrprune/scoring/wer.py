"""Scoring of hypotheses against references, with the counts of sclite: WER, CER, sentence errors."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isqrt
from typing import ClassVar

import numpy as np
from pydantic import Field

from asrprune.data.packed import Packed
from asrprune.data.tables import joined, looks_like, some
from asrprune.data.tokenizer import Tokenizer
from asrprune.runtime.errors import UserError
from asrprune.runtime.records import Record
from asrprune.scoring.bootstrap import bootstrap_interval
from asrprune.scoring.edit_distance import edit_distance

_SUB_COST = 4  # the costs of sclite; an insertion and a deletion (6) cost more than a substitution
_GAP_COST = 3
_MAX_CELLS = 1 << 20  # cells of the cost tables in memory, 4 bytes each
_LONG = 1 << 26  # cells of a table that is not kept in memory; it takes twice the time
_ALIGNED_AT_ONCE = 10_000  # utterances; one by one the alignment is 7 times slower

Pair = tuple[Sequence[str], Sequence[str]]
Texts = Iterable[tuple[str, str]]  # (utterance id, text), sorted by id; it must allow several iterations


@dataclass(frozen=True)
class Counts:
    """The numbers of correct, substituted, deleted and inserted words."""

    cor: int
    sub: int
    del_: int
    ins: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.cor + other.cor, self.sub + other.sub, self.del_ + other.del_, self.ins + other.ins)

    @property
    def ref_words(self) -> int:
        return self.cor + self.sub + self.del_

    @property
    def errors(self) -> int:
        return self.sub + self.del_ + self.ins


@dataclass(frozen=True)
class Alignment:
    """The words of reference and hypothesis, and one letter per step: C correct, S substituted, D deleted, I inserted."""

    ref: Sequence[str]
    hyp: Sequence[str]
    edits: str

    @property
    def pairs(self) -> tuple[tuple[str | None, str | None], ...]:
        """The pairs (reference word, hypothesis word) in order; None stands for a missing word."""
        refs, hyps = iter(self.ref), iter(self.hyp)
        return tuple((None if edit == "I" else next(refs), None if edit == "D" else next(hyps)) for edit in self.edits)

    @property
    def counts(self) -> Counts:
        return Counts(*(self.edits.count(letter) for letter in "CSDI"))

    @property
    def case_errors(self) -> int:
        """The number of substitutions of words that differ in letter case alone."""
        pairs = zip(self.pairs, self.edits, strict=True) if "S" in self.edits else ()
        return sum(edit == "S" and ref.lower() == hyp.lower() for (ref, hyp), edit in pairs if ref and hyp)

    @property
    def form_errors(self) -> int:
        """The number of substitutions of words that look the same: one is written with combining characters."""
        pairs = zip(self.pairs, self.edits, strict=True) if "S" in self.edits else ()
        return sum(edit == "S" and looks_like(ref, hyp) for (ref, hyp), edit in pairs if ref and hyp)


class Score(Record):
    """score.json: the counts of a set, and the rates in percent, rounded to 4 digits."""

    made_by: ClassVar[str] = "stage 9 (`asrprune score`)"
    wer: float
    wer_ci95: tuple[float, float]
    cer: float
    sub: int
    del_: int = Field(alias="del")
    ins: int
    cor: int
    ref_words: int
    utterances: int
    sentence_error: float
    ignore_case: bool = False  # whether letter case was ignored
    case_errors: int = 0  # substitutions of words that differ in letter case alone
    form_errors: int = 0  # substitutions of words that look the same
    text_sha256: str | None = None  # hash of the references; earlier versions did not record it
    output_sha256: str | None = None  # of the file of the hypotheses, as in decode.json


def score(refs: Mapping[str, str], hyps: Mapping[str, str]) -> Score:
    """Score texts by utterance id. Blanks separate words; case, accents and punctuation are compared, too.

    CER counts characters as ESPnet does: words are joined by single blanks, and a blank is a character.
    An empty hypothesis counts as deletions only.

    Raises:
        UserError: see ``check_texts``.
    """
    ordered = sorted(refs.items()), sorted(hyps.items())
    check_texts(*ordered)
    tally = Tally()
    for words, characters in aligned(*ordered):
        tally.add(words, characters)
    return tally.score()


class Tally:
    """A sum of the counts of utterances, which are added one by one: 16 bytes per utterance."""

    def __init__(self) -> None:
        self._utterances = array("i")
        self._characters = Counts(0, 0, 0, 0)
        self._case_errors = self._form_errors = 0

    def add(self, words: Alignment, characters: Alignment) -> None:
        """Add an utterance."""
        counts = words.counts
        self._case_errors += words.case_errors
        self._form_errors += words.form_errors
        self._utterances.extend((counts.cor, counts.sub, counts.del_, counts.ins))
        self._characters += characters.counts

    @property
    def utterances(self) -> np.ndarray:
        """The correct, substituted, deleted and inserted words of each utterance so far: (U, 4)."""
        return np.array(self._utterances, dtype=np.int32).reshape(-1, 4)

    def score(self, ignore_case: bool = False) -> Score:
        """Return the score of the utterances so far; ``ignore_case`` tells how they were counted."""
        counts = self.utterances
        total, errors = Counts(*counts.sum(axis=0).tolist()), counts[:, 1:].sum(axis=1)
        low, high = bootstrap_interval(errors, counts[:, :3].sum(axis=1))
        return Score(
            wer=round(100 * total.errors / total.ref_words, 4), wer_ci95=(round(low, 4), round(high, 4)),
            cer=round(100 * self._characters.errors / self._characters.ref_words, 4), sub=total.sub, del_=total.del_,
            ins=total.ins, cor=total.cor, ref_words=total.ref_words, utterances=len(counts),
            sentence_error=round(100 * float(np.mean(errors > 0)), 4), ignore_case=ignore_case,
            case_errors=self._case_errors, form_errors=self._form_errors,
        )  # fmt: skip


def aligned(refs: Texts, hyps: Texts) -> Iterator[tuple[Alignment, Alignment]]:
    """Yield the alignments of each utterance, in words and in characters, computed for thousands of utterances at a time.

    The alignments are those of sclite, with the smallest 4 * substitutions + 3 * insertions + 3 * deletions. Three
    substitutions cost as much as two insertions and two deletions, so the choice between equal costs changes the counts.
    sclite goes from the last word backwards; it pairs two words if this has the smallest cost, else inserts, else deletes.
    A long one needs 8 bytes * (length of the hypothesis + 1) * the square root of the length of the reference.
    """
    texts = ((ref.split(), hyp.split()) for (_, ref), (_, hyp) in zip(refs, hyps, strict=True))
    while words := list(islice(texts, _ALIGNED_AT_ONCE)):
        characters = [(" ".join(ref), " ".join(hyp)) for ref, hyp in words]
        yield from zip(_align_all(words), _align_all(characters), strict=True)


# Alignment


def _align_all(pairs: Sequence[Pair]) -> list[Alignment]:
    return [Alignment(ref, hyp, edits) for (ref, hyp), edits in zip(pairs, _edits_of_all(pairs), strict=True)]


def _edits_of_all(pairs: Sequence[Pair]) -> list[str]:
    """Return the edit letters of each pair. Cost tables are computed for many pairs at once.

    Equal words at the end are always paired at the smallest cost, so only the words before them need a table.
    """
    ends = [_same_at_the_end(*pair) for pair in pairs]
    different = [(ref[: len(ref) - end], hyp[: len(hyp) - end]) for (ref, hyp), end in zip(pairs, ends, strict=True)]
    edits = [""] * len(pairs)
    for batch in _batches(different, (index for index, pair in enumerate(different) if any(pair))):
        codes: dict[str, int] = {}
        refs, hyps = (_padded([different[index][side] for index in batch], codes) for side in (0, 1))
        if refs.shape[1] * hyps.shape[1] > _LONG:
            edits[batch[0]] = _edits(*different[batch[0]], _LongTable(refs, hyps).cost)
            continue
        for index, table in zip(batch, _cost_tables(refs, hyps), strict=True):
            edits[index] = _edits(*different[index], table.item)
    return [start + "C" * end for start, end in zip(edits, ends, strict=True)]


def _same_at_the_end(ref: Sequence[str], hyp: Sequence[str]) -> int:
    """Return the number of equal tokens at the end of both."""
    if ref == hyp:
        return len(ref)
    backwards = zip(reversed(ref), reversed(hyp), strict=False)
    return next((i for i, (a, b) in enumerate(backwards) if a != b), min(len(ref), len(hyp)))


def _batches(pairs: Sequence[Pair], indices: Iterable[int]) -> Iterator[list[int]]:
    """Yield groups of pairs of similar lengths, whose cost tables have at most _MAX_CELLS cells (or one pair)."""
    batch: list[int] = []
    rows = columns = 0
    for index in sorted(indices, key=lambda i: (len(pairs[i][0]), len(pairs[i][1]))):
        rows, columns = max(rows, len(pairs[index][0]) + 1), max(columns, len(pairs[index][1]) + 1)
        if batch and (len(batch) + 1) * rows * columns > _MAX_CELLS:
            yield batch
            batch, rows, columns = [], len(pairs[index][0]) + 1, len(pairs[index][1]) + 1
        batch.append(index)
    if batch:
        yield batch


def _padded(sequences: Sequence[Sequence[str]], codes: dict[str, int]) -> np.ndarray:
    """Return sequences as numbers (B, longest), padded with -1; new tokens are added to ``codes``."""
    padded = np.full((len(sequences), max(map(len, sequences))), -1, dtype=np.int32)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = [codes.setdefault(token, len(codes)) for token in sequence]
    return padded


class _LongTable:
    """The cost table of one long pair (1, N) and (1, M). Of N rows sqrt(N) are kept, and those between are computed again."""

    def __init__(self, refs: np.ndarray, hyps: np.ndarray) -> None:
        self._refs, self._hyps, self._step = refs, hyps, isqrt(refs.shape[1]) + 1
        self._kept: list[np.ndarray | None] = [None]  # the rows 0, step, 2 * step, ...
        for start in range(0, refs.shape[1], self._step):
            self._first, self._block = start, self._rows(start)
            self._kept.append(self._block[:, -1].copy())

    def cost(self, i: int, j: int) -> int:
        """Return the smallest cost for the first ``i`` and ``j`` tokens; rows are asked for from the last to the first."""
        if not self._first <= i <= self._first + self._step:
            self._first = (i - 1) // self._step * self._step
            self._block = self._rows(self._first)
        return int(self._block[0, i - self._first, j])

    def _rows(self, start: int) -> np.ndarray:
        return _cost_tables(self._refs[:, start : start + self._step], self._hyps, self._kept[start // self._step])


def _cost_tables(refs: np.ndarray, hyps: np.ndarray, first: np.ndarray | None = None) -> np.ndarray:
    """Return the smallest cost for every two prefixes: refs (B, N), hyps (B, M) -> (B, N + 1, M + 1).

    ``first`` (B, M + 1) is the first row, if it is not that of the empty prefix. Insertions go along a row, so a running
    minimum of cost - 3 * column gives the whole row at once.
    """
    gaps = _GAP_COST * np.arange(hyps.shape[1] + 1, dtype=np.int32)
    tables = np.empty((len(refs), refs.shape[1] + 1, len(gaps)), dtype=np.int32)
    tables[:, 0] = gaps if first is None else first
    for i in range(1, tables.shape[1]):
        row = tables[:, i - 1] + np.int32(_GAP_COST)
        paired = tables[:, i - 1, :-1] + np.int32(_SUB_COST) * (refs[:, i - 1, None] != hyps)
        np.minimum(row[:, 1:], paired, out=row[:, 1:])
        tables[:, i] = np.minimum.accumulate(row - gaps, axis=1) + gaps
    return tables


def _edits(ref: Sequence[str], hyp: Sequence[str], cost: Callable[[int, int], int]) -> str:
    """Return the edit letters of the cheapest path that sclite prefers (see ``aligned``)."""
    i, j = len(ref), len(hyp)
    letters: list[str] = []
    while i and j:
        same = ref[i - 1] == hyp[j - 1]
        if cost(i, j) == cost(i - 1, j - 1) + (0 if same else _SUB_COST):
            letters.append("C" if same else "S")
            i, j = i - 1, j - 1
        elif cost(i, j) == cost(i, j - 1) + _GAP_COST:
            letters.append("I")
            j -= 1
        else:
            letters.append("D")
            i -= 1
    return "D" * i + "I" * j + "".join(reversed(letters))


# Checks of the input


def check_texts(refs: Texts, hyps: Texts) -> None:
    """Check texts before scoring.

    Raises:
        UserError: there are no reference words, a reference is empty, or hypotheses and references have different ids.
    """
    empty, missing, extra = Packed(), Packed(), Packed()
    has_words = False
    for ref, hyp in joined(refs, hyps):
        if ref and ref[1].split():
            has_words = True
        elif ref:
            empty.append(ref[0])
        if hyp and not ref:
            extra.append(hyp[0])
        elif ref and not hyp:
            missing.append(ref[0])
    if not has_words:
        raise UserError("the references have no words, so there is no error rate; use the text of the decoded set")
    if empty:
        raise UserError(f"empty references: {some(empty)}; every reference needs words; remove these utterances from the set")
    if missing or extra:
        faults = [f"references without a hypothesis: {some(missing)}"] if missing else []
        faults += [f"hypotheses without a reference: {some(extra)}"] if extra else []
        raise UserError(f"{'; '.join(faults)}; both must have the same ids; decode and score the same set")


def word_errors(hypotheses: list[list[int]], references: list[list[str]], tokenizer: Tokenizer) -> list[int]:
    """Return the number of word errors of each label sequence (unit-cost edit distance)."""
    pairs = zip(hypotheses, references, strict=True)
    return [edit_distance(tokenizer.decode(labels).split(), words) for labels, words in pairs]
