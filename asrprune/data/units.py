"""The text units of a model: label 0 is the CTC blank, label 1 the unknown unit.

Transcription without torch needs nothing else of a tokenizer.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from asrprune.runtime.files import write_text

BLANK = 0
UNKNOWN_LABEL = 1  # sentencepiece gives this piece the number 0, which is here the blank's
WORD_START = "▁"
BLANK_PIECE = "<blk>"


class Units:
    """The pieces of a model. ``pieces[label]`` is the text of a label; one that begins a word begins with ``WORD_START``."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """Take the pieces, of which the first one is the blank."""
        self.pieces = list(pieces)

    def __len__(self) -> int:
        """Return the vocabulary size, including the blank."""
        return len(self.pieces)

    def decode(self, labels: Sequence[int]) -> str:
        """Return the text of labels (without blanks); an unknown piece becomes `<unk>`."""
        joined = "".join(self.pieces[label] for label in labels)
        return " ".join(joined.replace(WORD_START, " ").split())

    def can_write(self, text: str) -> bool:
        """Return whether every word of a text is a sequence of known pieces.

        >>> units = Units(["<blk>", "<unk>", "▁one", "▁t", "w", "o"])
        >>> units.can_write("one two"), units.can_write("wo"), units.can_write("")
        (True, False, True)
        """
        return all(_divisible(WORD_START + word, *self._known) for word in text.split())

    @cached_property
    def _known(self) -> tuple[set[str], int]:
        """The known pieces, and the length of the longest."""
        known = set(self.pieces[UNKNOWN_LABEL + 1 :])
        return known, max(map(len, known), default=0)


def _divisible(word: str, known: set[str], longest: int) -> bool:
    """Return whether a word is a sequence of known pieces, none of which is longer than ``longest``."""
    ends = {0}  # places in the word where a sequence of known pieces can end
    for end in range(1, len(word) + 1):
        if any(start in ends and word[start:end] in known for start in range(max(0, end - longest), end)):
            ends.add(end)
    return len(word) in ends


def is_unit(piece: str) -> bool:
    """Return whether a piece can be a text unit: the lines of tokens.txt have no other blank than that before the label."""
    return piece.split() == [piece]


def token_list(units: Units) -> str:
    """Return the list of text units, one line ``token label`` for each, as sherpa-onnx reads it."""
    return "".join(f"{piece} {label}\n" for label, piece in enumerate(units.pieces))


def write_tokens(path: Path, units: Units) -> None:
    """Write ``token_list``."""
    write_text(path, token_list(units))
