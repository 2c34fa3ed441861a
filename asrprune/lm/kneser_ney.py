"""Estimation of an n-gram model with interpolated modified Kneser-Ney smoothing.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling", TR-10-98, Harvard, 1998, section 4. As in
KenLM, n-grams that begin a sentence keep their own counts, and unigrams are interpolated with equal probabilities.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrprune.data.tables import not_utf8, stream_table, unseen
from asrprune.lm.language_model import END, START, UNKNOWN, Grams, LanguageModel
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import open_unzipped
from asrprune.runtime.planted import lines_of

logger = logging.getLogger(__name__)
_FALLBACK = (0.5, 1.0, 1.5)  # KenLM's discounts for texts too small to estimate them
_FEWEST_IDS = 10  # lines whose first words hardly ascend by chance
_NEVER = -99.0  # log10 probability of <s>, which follows no word


@dataclass(frozen=True)
class _Counted:
    """The n-grams of one order in the text, sorted by (context, word)."""

    context: np.ndarray  # (N,) node of the words before the last
    word: np.ndarray  # (N,)
    suffix: np.ndarray  # (N,) index, in the order below, of the n-gram without its first word
    count: np.ndarray  # (N,) number of occurrences
    begins: np.ndarray  # (N,) whether it begins a sentence


def estimate(sentences: Iterable[Sequence[str]], order: int) -> LanguageModel:
    """Estimate a model.

    Args:
        sentences: the words of each sentence; ``<unk>`` is left out, as in the training of text units.
        order: the largest number of words in an n-gram.

    Raises:
        UserError: there are no words, or ``<s>`` or ``</s>`` is a word.
    """
    words, tokens, places = _numbered(sentences)
    counted = _count(tokens, places, len(words), order)
    below = np.full(len(words), 1.0 / (len(words) - 1))  # a uniform probability for all words but <s>
    probs, backoffs = list[np.ndarray](), list[np.ndarray]()
    for number, grams in enumerate(counted):
        count = grams.count if number == order - 1 else _continuations(grams, counted[number + 1])
        if number == 0:
            count = np.where(grams.begins, 0, count)
        below, weights = _smoothed(grams, count, below)
        backoffs.append(weights)
        probs.append(below)
    probs[0][words.index(START)] = 10.0**_NEVER
    return LanguageModel(words, _as_grams(counted, probs, backoffs))


def read_sentences(paths: Sequence[Path], plain: bool) -> Iterator[list[str]]:
    """Yield the words of each line of text files, which may be gzipped if they are plain.

    Args:
        paths: files like Kaldi's ``text``, whose lines begin with an utterance id.
        plain: the lines have no ids.

    Raises:
        UserError: a file is missing, is not UTF-8, holds invisible marks, is not a valid table, or is a gzipped one.
    """
    for path in paths:
        if path.suffix == ".gz" and not plain:
            raise UserError(f"{path}: a text with ids is not read gzipped; unpack it, or add --plain if its lines have no ids")
        yield from _lines(path) if plain else (text.split() for _, text in stream_table(path))


def _lines(path: Path) -> Iterator[list[str]]:
    if not path.is_file():
        raise UserError(f"{path}: no such text")
    previous, count, ascending = "", 0, True
    with open_unzipped(path) as handle:
        for number, line in enumerate(lines_of(handle, path), 1):
            if place := not_utf8(line):
                raise UserError(f"{path}:{number}: byte {place} of the line is not UTF-8; convert the file")
            words = line.decode("utf-8").split()
            if wrong := unseen(" ".join(words)):
                raise UserError(f"{path}:{number}: {wrong}")
            if words:
                ascending = ascending and len(words) > 1 and words[0] > previous
                previous, count = words[0], count + 1
            yield words
    if ascending and count >= _FEWEST_IDS:
        logger.warning(
            "%s: the first words of all lines ascend, as the ids of Kaldi's `text` do; if they are ids, they are counted as"
            " words: remove them, or leave out --plain", path,
        )  # fmt: skip


def _numbered(sentences: Iterable[Sequence[str]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the vocabulary, the word numbers (T,) of all sentences with ``<s>`` and ``</s>``, and their positions (T,)."""
    index = {UNKNOWN: 0, START: 1, END: 2}
    tokens, places = list[int](), list[int]()
    for sentence in sentences:
        own = [word for word in sentence if word != UNKNOWN]
        if odd := {START, END} & set(own):
            raise UserError(
                f"the text has the word {odd.pop()}, which is reserved for the start or end of a sentence; remove it"
            )
        if own:
            tokens += [1, *(index.setdefault(word, len(index)) for word in own), 2]
            places += range(len(own) + 2)
    if not tokens:
        raise UserError("there are no words to train a language model on")
    return list(index), np.array(tokens, dtype=np.int64), np.array(places, dtype=np.int64)


def _count(tokens: np.ndarray, places: np.ndarray, num_words: int, order: int) -> list[_Counted]:
    every = np.arange(num_words)
    counts = np.bincount(tokens, minlength=num_words)
    counted = [_Counted(np.zeros_like(every), every, np.arange(num_words), counts, every == 1)]
    ends, first = tokens, 1  # index of the n-gram that ends at each token; node of the first n-gram of its order
    for length in range(2, order + 1):
        at = np.flatnonzero(places >= length - 1)
        keys, where, which, counts = np.unique(
            (first + ends[at - 1]) * num_words + tokens[at], return_index=True, return_inverse=True, return_counts=True
        )
        below = counted[-1]
        context = keys // num_words
        counted.append(_Counted(context, keys % num_words, ends[at[where]], counts, below.begins[context - first]))
        first += len(below.word)
        ends = np.full(len(tokens), -1)
        ends[at] = which
    return counted


def _continuations(grams: _Counted, above: _Counted) -> np.ndarray:
    """Return the number of different words before each n-gram; n-grams at the start of a sentence keep their count."""
    return np.where(grams.begins, grams.count, np.bincount(above.suffix, minlength=len(grams.word)))


def _smoothed(grams: _Counted, count: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of the n-grams (N,), and the back-off weights of their contexts, indexed by node.

    Args:
        grams: the n-grams of one order.
        count: (N,), their adjusted counts.
        below: the probabilities of the order below.
    """
    taken = np.array([0.0, *_discounts(count)])[np.minimum(count, 3)]
    total, left = np.bincount(grams.context, count), np.bincount(grams.context, taken)
    weight = np.divide(left, total, out=np.ones_like(left), where=total > 0)
    return (count - taken) / total[grams.context] + weight[grams.context] * below[grams.suffix], weight


def _discounts(count: np.ndarray) -> tuple[float, ...]:
    """Estimate the discounts of n-grams with count 1, 2, and 3 or more (Chen and Goodman, equation 26)."""
    once, twice, thrice, more = (float((count == times).sum()) for times in (1, 2, 3, 4))
    if not (once and twice and thrice):
        return _FALLBACK
    share = once / (once + 2 * twice)
    found = (1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * more / thrice)
    return found if all(0 < discount <= times for times, discount in enumerate(found, 1)) else _FALLBACK


def _as_grams(counted: Sequence[_Counted], probs: Sequence[np.ndarray], backoffs: Sequence[np.ndarray]) -> list[Grams]:
    weights = np.ones(1 + sum(len(grams.word) for grams in counted))
    for found, grams in zip(backoffs, counted, strict=True):
        contexts = np.unique(grams.context)
        weights[contexts] = found[contexts]
    made, first = list[Grams](), 1
    for grams, prob in zip(counted, probs, strict=True):
        backoff = np.log10(weights[first : first + len(prob)])
        made.append(Grams(grams.context, grams.word, np.log10(prob), backoff))
        first += len(prob)
    return made
