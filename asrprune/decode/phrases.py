"""Words and phrases that are expected: whoever spells one out is rewarded letter by letter, and loses that if it breaks off."""

from collections.abc import Sequence

from asrprune.data.tokenizer import WORD_START

_ROOT = 0


class Phrases:
    """An automaton over the letters of a text that finds all phrases at once (Aho and Corasick, CACM 18(6), 1975).

    A phrase is ``_new_york_``, with the mark of a word's start for ``_``: it counts as whole words only. A text earns ``bonus``
    for each letter of each phrase in it. The start of a phrase is lent the bonus of its letters so far.
    """

    def __init__(self, phrases: Sequence[str], bonus: float) -> None:
        self.start = _ROOT
        self._next: list[dict[str, int]] = [{}]
        self._marks: set[int] = set()  # the nodes whose last letter is the mark
        self._fail, self._lent, self._earned = [_ROOT], [0.0], [0.0]  # of each node; what is earned on arriving there
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
        self._most = max(gains, default=0.0)  # that one letter can gain: after a failure it is less
        self.start = self._follow(_ROOT, WORD_START)  # a text begins with a word

    def step(self, node: int, text: str) -> tuple[float, int]:
        """Score going on with some letters (less than nothing if a phrase breaks off), and the node after them."""
        gain = -self._lent[node]
        for letter in text:
            if letter == WORD_START and node in self._marks:  # several marks are one
                continue
            node = self._follow(node, letter)
            gain += self._earned[node]
        return gain + self._lent[node], node

    def end(self, node: int) -> float:
        """Score the end of the text."""
        gain, node = self.step(node, WORD_START)
        return gain - self._lent[node]

    def most(self, text: str) -> float:
        """No node gains more by going on with these letters."""
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
        """Find for each node the longest other node that its letters end with, nodes of fewer letters first."""
        level = list(self._next[_ROOT].values())
        while level:
            for node in level:
                for letter, child in self._next[node].items():
                    self._fail[child] = self._follow(self._fail[node], letter)
                    self._earned[child] += self._earned[self._fail[child]]
                if not self._next[node]:  # nothing more can be earned from here on but by a shorter start
                    self._lent[node] = self._lent[self._fail[node]]
            level = [child for node in level for child in self._next[node].values()]

    def _follow(self, node: int, letter: str) -> int:
        while letter not in self._next[node]:
            if node == _ROOT:
                return _ROOT
            node = self._fail[node]
        return self._next[node][letter]
