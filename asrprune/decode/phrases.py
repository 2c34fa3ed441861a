"""Expected words and phrases: a text gets a bonus for each letter of a phrase, and loses it if the phrase is not completed."""

from collections.abc import Sequence

from asrprune.data.units import WORD_START

_ROOT = 0


class Phrases:
    """An automaton over the letters of a text that finds all phrases at once (Aho and Corasick, CACM 18(6), 1975).

    A phrase is stored as ``_new_york_``, where ``_`` is the mark of a word start, so it matches whole words only. A text earns
    ``bonus`` for each letter of each phrase in it. The letters of an incomplete phrase get the bonus as a loan.
    """

    def __init__(self, phrases: Sequence[str], bonus: float) -> None:
        self.start = _ROOT
        self._next: list[dict[str, int]] = [{}]
        self._marks: set[int] = set()  # nodes whose last letter is the mark
        self._fail = [_ROOT]  # of each node, the failure link
        self._lent = [0.0]  # the bonus on loan
        self._earned = [0.0]  # the bonus paid when the node is reached
        for phrase in phrases:
            node = self._add(_ROOT, WORD_START, 0.0)
            for letter in f"{WORD_START.join(phrase.split())}{WORD_START}":
                node = self._add(node, letter, 0.0 if letter == WORD_START else bonus)
            self._earned[node] = self._lent[node]
        self._link()
        gains = [
            self._earned[child] + self._lent[child] - self._lent[node]
            for node, children in enumerate(self._next)
            for child in children.values()
        ]
        self._most = max(gains, default=0.0)  # the largest gain of one letter
        self.start = self._follow(_ROOT, WORD_START)  # a text begins with a word start

    def step(self, node: int, text: str) -> tuple[float, int]:
        """Return the gain of the letters of ``text``, negative if a phrase is not completed, and the node after them."""
        gain = -self._lent[node]
        for letter in text:
            if letter == WORD_START and node in self._marks:  # several marks count as one
                continue
            node = self._follow(node, letter)
            gain += self._earned[node]
        return gain + self._lent[node], node

    def end(self, node: int) -> float:
        """Return the gain of the end of the text."""
        gain, node = self.step(node, WORD_START)
        return gain - self._lent[node]

    def most(self, text: str) -> float:
        """Return an upper bound of the gain of ``text`` from any node."""
        return self._most * len(text)

    def _add(self, node: int, letter: str, bonus: float) -> int:
        if letter not in self._next[node]:
            self._next[node][letter] = len(self._next)
            if letter == WORD_START:
                self._marks.add(len(self._next))
            self._next.append({})
            self._fail.append(_ROOT)
            self._lent.append(self._lent[node] + bonus)
            self._earned.append(0.0)
        return self._next[node][letter]

    def _link(self) -> None:
        """Set the failure link of each node: the longest other node that is a suffix of it."""
        level = list(self._next[_ROOT].values())
        while level:
            for node in level:
                for letter, child in self._next[node].items():
                    self._fail[child] = self._follow(self._fail[node], letter)
                    self._earned[child] += self._earned[self._fail[child]]
                if not self._next[node]:  # complete: what stays on loan belongs to a phrase that its end begins
                    self._lent[node] = self._lent[self._fail[node]]
            level = [child for node in level for child in self._next[node].values()]

    def _follow(self, node: int, letter: str) -> int:
        while letter not in self._next[node]:
            if node == _ROOT:
                return _ROOT
            node = self._fail[node]
        return self._next[node][letter]
