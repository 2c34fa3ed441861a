"""The words of the labels that a decoder finds, with times and confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from asrprune.data.units import WORD_START, Units
from asrprune.decode.windows import Found

WORD_TAIL_S = 0.25  # the longest time that a word lasts after its last label; docs/decoding.md has the measurement


@dataclass(frozen=True)
class Word:
    """A recognised word.

    A CTC model marks the beginning of a word or of a piece, most often by a single frame. So a word begins at the first frame
    of its first label. It ends where the next word begins, but at most ``WORD_TAIL_S`` after the last frame of its last label.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float  # 0..1: mean probability of the labels on their frames


@dataclass(frozen=True)
class Hypothesis:
    """The recognised text, its words, and the layers that ran."""

    text: str
    words: tuple[Word, ...]
    layers: tuple[int, ...]


def words_of(found: Found, units: Units, frame_s: float, seconds: float, tail_s: float) -> tuple[Word, ...]:
    """Return the words of a recording.

    Args:
        found: its labels.
        units: the text of each label.
        frame_s: the time between two encoder frames.
        seconds: the length of the recording.
        tail_s: the longest time that a word lasts after its last label.
    """
    groups = _group_by_word([units.pieces[label] for label in found.labels])
    begins = [found.first[group[0]] * frame_s for group in groups]
    words: list[Word] = []
    for group, begin, following in zip(groups, begins, [*begins[1:], seconds], strict=False):
        text = units.decode([found.labels[i] for i in group])
        spoken = (found.last[group[-1]] + 1) * frame_s
        end = max(min(spoken + tail_s, following), min(spoken, seconds))
        if text:
            words.append(Word(text, round(begin, 3), round(end, 3), fmean(found.confidences[i] for i in group)))
    return tuple(words)


def _group_by_word(pieces: Sequence[str]) -> list[list[int]]:
    """Return the indices of the pieces of each word; a piece with sentencepiece's word mark begins a word."""
    groups: list[list[int]] = []
    for position, piece in enumerate(pieces):
        if piece.startswith(WORD_START) or not groups:
            groups.append([])
        groups[-1].append(position)
    return groups
