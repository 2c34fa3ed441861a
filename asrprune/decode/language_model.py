"""An n-gram language model with back-off, as a few arrays."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
ROOT = 0  # the node of no words
NO_NODE = -1
_UNKNOWN_LOG10 = -100.0  # of an unknown word in a model without <unk>, as KenLM has it


@dataclass(frozen=True)
class Grams:
    """All n-grams of one order, sorted by (context, word)."""

    context: np.ndarray  # (N,) int64: the node of all words but the last
    word: np.ndarray  # (N,) int64: the number of the last word
    log_prob: np.ndarray  # (N,) log10 of the last word's probability after the others
    backoff: np.ndarray  # (N,) log10 of what a word that never follows is multiplied by; 0 for the highest order


class LanguageModel:
    """Word probabilities after a history, and the history as one number.

    Node 0 is the empty n-gram; the n-grams follow, order by order, as ``Grams`` has them. A state is a node: the longest n-gram
    of the model, of at most ``order - 1`` words, that the words so far end with. An n-gram takes 20 bytes.
    """

    def __init__(self, words: Sequence[str], orders: Sequence[Grams]) -> None:
        """Index the n-grams.

        Args:
            words: the vocabulary, with ``<s>`` and ``</s>``; a word's number is its place.
            orders: unigrams (of every word, in the order of ``words``), bigrams, ...
        """
        self.words, self.orders = list(words), list(orders)
        self._index = {word: number for number, word in enumerate(words)}
        self._unknown = self._index.get(UNKNOWN)
        keys = keys_of(orders, len(words))
        suffix = _suffixes(keys, orders, len(words))
        self._highest = len(keys) - len(orders[-1].word)  # the first node of the highest order, none of which is a state
        # Elements of memoryviews are Python's own numbers, several times as fast to get as numpy's.
        self._keys, self._suffix = keys.data, suffix.data
        self._log_prob, self._backoff = (
            np.concatenate([[0.0], *(getattr(grams, name) for grams in orders)]).astype(np.float32).data
            for name in ("log_prob", "backoff")
        )
        self.start = self.score(ROOT, START)[1]  # the state in which a sentence begins

    @property
    def order(self) -> int:
        """The most words in an n-gram."""
        return len(self.orders)

    def __contains__(self, word: str) -> bool:
        """Tell whether the model knows a word."""
        return word in self._index and word != UNKNOWN

    def score(self, state: int, word: str) -> tuple[float, int]:
        """log10 of a word's probability in a state, and the state after it."""
        number = self._index.get(word, self._unknown)
        if number is None:
            return _UNKNOWN_LOG10, ROOT
        backoff = 0.0
        while (node := self._find(state, number)) == NO_NODE:  # every word is found at ROOT
            backoff += self._backoff[state]
            state = self._suffix[state]
        return backoff + self._log_prob[node], node if node < self._highest else self._suffix[node]

    def sentence(self, words: Sequence[str]) -> float:
        """log10 of a sentence's probability, its end included."""
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
    """``context * num_words + word`` of every node, ascending, as contexts of higher orders come later; ROOT has -1."""
    return np.concatenate([[-1], *(grams.context * num_words + grams.word for grams in orders)]).astype(np.int64)


def find_nodes(keys: np.ndarray, context: np.ndarray, word: np.ndarray, num_words: int) -> np.ndarray:
    """The nodes of contexts (N,) followed by words (N,); NO_NODE where there is none."""
    wanted = context * num_words + word
    nodes = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((context != NO_NODE) & (keys[nodes] == wanted), nodes, NO_NODE)


def _suffixes(keys: np.ndarray, orders: Sequence[Grams], num_words: int) -> np.ndarray:
    """The node of the longest proper suffix that each node has in the model.

    Pruned models lack some suffixes. Without its first word an n-gram is its context's suffix, then its last word.
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
