"""An n-gram language model with back-off, stored in arrays."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
ROOT = 0  # the node of the empty n-gram
NO_NODE = -1
_UNKNOWN_LOG10 = -100.0  # log10 probability of an unknown word in a model without <unk>, as in KenLM


@dataclass(frozen=True)
class Grams:
    """All n-grams of one order, sorted by (context, word)."""

    context: np.ndarray  # (N,) int64: the node of the words before the last
    word: np.ndarray  # (N,) int64: the number of the last word
    log_prob: np.ndarray  # (N,) log10 of the probability of the last word after the others
    backoff: np.ndarray  # (N,) log10 of the back-off weight; 0 for the highest order


class LanguageModel:
    """An n-gram model. A state, which is one number, stands for the history.

    Node 0 is the empty n-gram; the n-grams of each order follow in the order of ``Grams``. A state is the node of the longest
    n-gram of at most ``order - 1`` words with which the history ends. ``score`` reads 20 bytes for each n-gram of the model.
    """

    def __init__(self, words: Sequence[str], orders: Sequence[Grams]) -> None:
        """Index the n-grams.

        Args:
            words: the vocabulary, with ``<s>`` and ``</s>``; the number of a word is its index.
            orders: unigrams (one per word, in the order of ``words``), bigrams, ...
        """
        self.words, self.orders = list(words), list(orders)
        self._index = {word: number for number, word in enumerate(words)}
        self._unknown = self._index.get(UNKNOWN)
        keys = keys_of(orders, len(words))
        suffix = _suffixes(keys, orders, len(words))
        self._highest = len(keys) - len(orders[-1].word)  # the first node of the highest order; these nodes are not states
        # Reading an element of a memoryview is several times as fast as of a numpy array.
        self._keys, self._suffix = keys.data, suffix.data
        self._log_prob, self._backoff = (
            np.concatenate([[0.0], *(getattr(grams, name) for grams in orders)]).astype(np.float32).data
            for name in ("log_prob", "backoff")
        )
        self.start = self.score(ROOT, START)[1]  # the state at the start of a sentence

    @property
    def order(self) -> int:
        """The largest number of words in an n-gram."""
        return len(self.orders)

    def __contains__(self, word: str) -> bool:
        """Return whether the vocabulary has a word, which is not ``<unk>``."""
        return word in self._index and word != UNKNOWN

    def score(self, state: int, word: str) -> tuple[float, int]:
        """Return the log10 probability of a word in a state, and the state after the word."""
        number = self._index.get(word, self._unknown)
        if number is None:
            return _UNKNOWN_LOG10, ROOT
        backoff = 0.0
        while (node := self._find(state, number)) == NO_NODE:  # every word is found at ROOT
            backoff += self._backoff[state]
            state = self._suffix[state]
        return backoff + self._log_prob[node], node if node < self._highest else self._suffix[node]

    def sentence(self, words: Sequence[str]) -> float:
        """Return the log10 probability of a sentence, including its end."""
        total, state = 0.0, self.start
        for word in (*words, END):
            log_prob, state = self.score(state, word)
            total += log_prob
        return total

    def _find(self, context: int, word: int) -> int:
        key = context * len(self.words) + word
        node = bisect_left(self._keys, key)
        return node if node < len(self._keys) and self._keys[node] == key else NO_NODE


def keys_of(orders: Sequence[Grams], num_words: int) -> np.ndarray:
    """Return ``context * num_words + word`` of every node, ascending; -1 for ROOT."""
    return np.concatenate([[-1], *(grams.context * num_words + grams.word for grams in orders)]).astype(np.int64)


def find_nodes(keys: np.ndarray, context: np.ndarray, word: np.ndarray, num_words: int) -> np.ndarray:
    """Return the nodes of contexts (N,) followed by words (N,); NO_NODE if the model lacks the n-gram."""
    wanted = context * num_words + word
    nodes = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((context != NO_NODE) & (keys[nodes] == wanted), nodes, NO_NODE)


def _suffixes(keys: np.ndarray, orders: Sequence[Grams], num_words: int) -> np.ndarray:
    """Return for each node its longest proper suffix in the model, as a node.

    The suffix of an n-gram is the suffix of its context plus its last word. Pruned models lack some suffixes.
    """
    suffix = np.zeros(len(keys), dtype=np.int32)
    first = 1 + len(orders[0].word)  # the suffix of a unigram is ROOT
    for grams in orders[1:]:
        shorter = suffix[grams.context].astype(np.int64)
        found = find_nodes(keys, shorter, grams.word, num_words)
        while (missing := found == NO_NODE).any():
            shorter[missing] = suffix[shorter[missing]]
            found[missing] = find_nodes(keys, shorter[missing], grams.word[missing], num_words)
        suffix[first : first + len(found)] = found
        first += len(found)
    return suffix
