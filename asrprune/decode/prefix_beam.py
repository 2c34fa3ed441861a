"""CTC prefix beam search with a word language model and expected phrases.

The log score of a label sequence is the sum of: ln of the probability of all its CTC paths, ``lm_weight`` * ln P(words, end),
``word_bonus`` per word, ``-unknown_penalty`` per word that is neither in the language model nor in a phrase, and the gain of
phrases.
After Graves and Jaitly, "Towards end-to-end speech recognition with recurrent neural networks", ICML 2014, algorithm 1.
"""

import hashlib
import heapq
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from asrprune.config.schema import BeamConfig
from asrprune.data.units import BLANK, WORD_START
from asrprune.decode.alignment import align
from asrprune.decode.decoder import Array, BestPath, on_cpu
from asrprune.decode.phrases import Phrases
from asrprune.lm.language_model import END, LanguageModel

_MOST_GAIN = 600.0  # largest gain or loss of one label, in nats; its exp must fit into a float
_LN_10 = math.log(10.0)
Candidates = list[tuple[int, float]]  # labels of a frame, and their probabilities


class Prefix:
    """A node of the prefix tree: the label sequence from the root to this node, and the probability of its CTC paths.

    Attributes:
        factor: factor on the probability of the label, from the language model and the phrases.
        in_blank, in_label: probability of the paths so far that end in a blank, or in the label, up to a factor common to all
            prefixes.
        next_blank, next_label: the same, including the current frame.
        word: the letters of the last word so far.
        lm_state: the state of the language model before that word.
        phrase: the node of ``Phrases``.
    """

    __slots__ = ("children", "factor", "in_blank", "in_label", "label", "lm_state", "next_blank", "next_label", "parent",
                 "phrase", "word", "word_end")  # fmt: skip

    def __init__(self, parent: "Prefix | None", label: int, factor: float, word: str, lm_state: int, phrase: int) -> None:
        self.parent, self.label, self.factor = parent, label, factor
        self.word, self.lm_state, self.phrase = word, lm_state, phrase
        self.children: dict[int, Prefix] = {}
        self.word_end: tuple[float, int] | None = None  # gain and state at the end of the word; None: not computed yet
        self.in_blank = self.in_label = self.next_blank = self.next_label = 0.0


@dataclass
class Beam:
    """The state of a search within an utterance."""

    root: Prefix
    prefixes: list[Prefix]  # best first
    seen: list[np.ndarray] = field(default_factory=list)  # log-probabilities of the frames so far, for the alignment


class PrefixBeam:
    """The decoder that keeps the ``width`` best prefixes after each frame."""

    def __init__(
        self, pieces: Sequence[str], options: BeamConfig, lm: LanguageModel | None = None, lm_sha256: str = ""
    ) -> None:
        """Prepare a search.

        Args:
            pieces: the text of each label; the first one is the blank.
            options: all numbers; a missing ``lm_weight`` or ``word_bonus`` counts as 0.
            lm: a word language model.
            lm_sha256: SHA-256 of its file.
        """
        self.options, self._lm = options, lm
        self.identity = _identity(options, lm_sha256)
        self._pieces = [(piece.replace(WORD_START, ""), piece.startswith(WORD_START), piece) for piece in pieces]
        self._lm_scale, self._word_bonus = _LN_10 * (options.lm_weight or 0.0), options.word_bonus or 0.0
        self._phrases = Phrases(options.context, options.context_bonus) if options.context else None
        self._most_factors = [self._bound(piece) for piece in pieces]
        self._most_factor = max(self._most_factors)
        self._expected = {word for phrase in options.context for word in phrase.split()}
        self._least = math.log(options.min_prob) if options.min_prob else -math.inf

    def decode(self, log_probs: Array, lens: Array) -> list[BestPath]:
        """Decode a batch; see ``Decoder.decode``."""
        pairs = zip(on_cpu(log_probs), lens.tolist(), strict=True)
        return [self.finish(self.advance(self.start(), row[:length])) for row, length in pairs]

    def start(self) -> Beam:
        """Return a search before the first frame."""
        root = Prefix(None, BLANK, 1.0, "", self._lm.start if self._lm else 0, self._phrases.start if self._phrases else 0)
        root.in_blank = 1.0
        return Beam(root, [root])

    def advance(self, beam: Beam, log_probs: np.ndarray) -> Beam:
        """Process the next frames (T', V) of an utterance; return the same, changed beam."""
        for candidates in _candidates(log_probs, self._least):
            if len(candidates) == 1 and candidates[0][0] == BLANK:
                for prefix in beam.prefixes:
                    prefix.in_blank, prefix.in_label = prefix.in_blank + prefix.in_label, 0.0
            else:
                beam.prefixes = self._step(beam.prefixes, candidates)
        beam.seen.append(log_probs)
        _forget(beam)
        return beam

    def finish(self, beam: Beam) -> BestPath:
        """Return the best labels of an utterance that ends here, aligned to frames. The beam can still be advanced."""
        best = max(beam.prefixes, key=self._final_score)
        labels = []
        while best.parent is not None:
            labels.append(best.label)
            best = best.parent
        return align(np.concatenate(beam.seen), labels[::-1]) if labels else BestPath([], [], [])

    def _final_score(self, prefix: Prefix) -> float:
        """Return the log score of a prefix, including its last word and the end of the sentence."""
        probability = prefix.in_blank + prefix.in_label
        gain, state = self._word_end(prefix)
        if self._lm:
            gain += self._lm_scale * self._lm.score(state, END)[0]
        if self._phrases:
            gain += self._phrases.end(prefix.phrase)
        return gain + math.log(probability) if probability else -math.inf

    def _step(self, prefixes: Sequence[Prefix], candidates: Candidates) -> list[Prefix]:
        """Return the best prefixes after one more frame."""
        reached: dict[Prefix, None] = {}
        new: list[tuple[float, Prefix, int]] = []  # prefixes to create: probability, parent, label
        for prefix in prefixes:
            in_blank, in_label, last = prefix.in_blank, prefix.in_label, prefix.label
            both, children = in_blank + in_label, prefix.children
            for label, probability in candidates:
                if label == BLANK:
                    prefix.next_blank += both * probability
                    reached[prefix] = None
                    continue
                before = both
                if label == last:
                    prefix.next_label += in_label * probability
                    reached[prefix] = None
                    before = in_blank  # a label follows itself only after a blank
                if child := children.get(label):
                    child.next_label += before * probability * child.factor
                    reached[child] = None
                else:
                    new.append((before * probability, prefix, label))
        self._make(new, reached)
        return _best(reached, self.options.width)

    def _make(self, new: list[tuple[float, Prefix, int]], reached: dict[Prefix, None]) -> None:
        """Create the new prefixes that can be among the best. The others are skipped, because the language model is slow."""
        width = self.options.width
        best = sorted(prefix.next_blank + prefix.next_label for prefix in reached)[-width:]  # ascending, so it is a heap
        for probability, parent, label in sorted(new, key=itemgetter(0), reverse=True):
            least = best[0] if len(best) == width else 0.0
            if probability * self._most_factor <= least:
                return
            if probability * self._most_factors[label] > least:
                child = self._extended(parent, label)
                child.next_label = probability * child.factor
                reached[child] = None
                (heapq.heappush if len(best) < width else heapq.heappushpop)(best, child.next_label)

    def _extended(self, prefix: Prefix, label: int) -> Prefix:
        text, starts_word, piece = self._pieces[label]
        gain, state = self._word_end(prefix) if starts_word else (0.0, prefix.lm_state)
        phrase = prefix.phrase
        if self._phrases:
            more, phrase = self._phrases.step(phrase, piece)
            gain += more
        child = Prefix(prefix, label, _factor(gain), text if starts_word else prefix.word + text, state, phrase)
        prefix.children[label] = child
        return child

    def _bound(self, piece: str) -> float:
        """Return an upper bound of the factor of a label with this text."""
        return _factor(max(0.0, self._word_bonus) + (self._phrases.most(piece) if self._phrases else 0.0))

    def _word_end(self, prefix: Prefix) -> tuple[float, int]:
        """Return the gain at the end of the last word, and the state of the language model after it."""
        if prefix.word_end is None:
            prefix.word_end = self._scored(prefix.word, prefix.lm_state) if prefix.word else (0.0, prefix.lm_state)
        return prefix.word_end

    def _scored(self, word: str, state: int) -> tuple[float, int]:
        if self._lm is None:
            return self._word_bonus, state
        log_prob, state = self._lm.score(state, word)
        known = word in self._lm or word in self._expected
        return self._lm_scale * log_prob + self._word_bonus - (0.0 if known else self.options.unknown_penalty), state


def _identity(options: BeamConfig, lm_sha256: str) -> str:
    numbers: dict[str, float | str] = {
        "width": options.width,
        "min_prob": options.min_prob,
        "word_bonus": options.word_bonus or 0.0,
        **({"lm": lm_sha256[:16], "lm_weight": options.lm_weight or 0.0} if lm_sha256 else {}),
        **({"unknown_penalty": options.unknown_penalty} if lm_sha256 else {}),
    }
    if options.context:
        digest = hashlib.sha256(json.dumps(options.context).encode()).hexdigest()[:16]
        numbers |= {"context": digest, "context_bonus": options.context_bonus}
    return "beam " + " ".join(f"{name}={value}" for name, value in numbers.items())


def _factor(gain: float) -> float:
    return math.exp(min(max(gain, -_MOST_GAIN), _MOST_GAIN))


def _candidates(log_probs: np.ndarray, least: float) -> Iterator[Candidates]:
    """Yield the labels to try in each frame: those with a log-probability of at least ``least``, and the best one."""
    tried = log_probs >= np.minimum(log_probs.max(axis=1, initial=-np.inf, keepdims=True), least)
    frames, labels = tried.nonzero()
    pairs = list(zip(labels.tolist(), np.exp(log_probs[tried].astype(np.float64)).tolist(), strict=True))
    start = 0
    for count in np.bincount(frames, minlength=len(log_probs)).tolist():
        yield pairs[start : start + count]
        start += count


def _best(reached: dict[Prefix, None], width: int) -> list[Prefix]:
    """Return the best prefixes after the current frame; probabilities are scaled so that the best one has 1."""
    ordered = sorted(reached, key=lambda prefix: prefix.next_blank + prefix.next_label, reverse=True)
    total = ordered[0].next_blank + ordered[0].next_label
    for prefix in ordered:
        prefix.in_blank, prefix.in_label = prefix.next_blank / total, prefix.next_label / total
        prefix.next_blank = prefix.next_label = 0.0
    return ordered[:width]


def _forget(beam: Beam) -> None:
    """Remove the branches of the tree that lead to no prefix of the beam, so that memory does not grow."""
    living: set[Prefix] = {beam.root}
    for prefix in beam.prefixes:
        while prefix not in living:
            living.add(prefix)
            assert prefix.parent is not None
            prefix = prefix.parent
    for prefix in living:
        prefix.children = {label: child for label, child in prefix.children.items() if child in living}
    while len(beam.root.children) == 1 and beam.root not in beam.prefixes:
        (beam.root,) = beam.root.children.values()
