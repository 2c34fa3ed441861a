"""Decoding long recordings in windows, which end in pauses or overlap."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from asrprune.data.units import BLANK
from asrprune.data.windows import WINDOWS, Windows
from asrprune.decode.decoder import Decoder
from asrprune.experiment.plan import Keep

if TYPE_CHECKING:
    from asrprune.experiment.store import Experiment

_NEAR = 6  # encoder frames on each side of a cut, which should have no label; 0.24 s with a factor of 4
_PAUSE_MS = 200.0  # shorter breaks are often within a word, such as that of a stop consonant

Emit = Callable[[int, int], Iterable[tuple[Keep, np.ndarray]]]
Energy = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Timing:
    """The frames of a model, and its windows."""

    shift_ms: float  # between two feature frames
    factor: int  # feature frames for each encoder frame
    windows: Windows

    @classmethod
    def of(cls, experiment: "Experiment") -> "Timing":
        """Return the timing of a model; an older one does not say which windows it needs."""
        config = experiment.config
        return cls(config.frontend.shift_ms, config.model.subsampling.factor, experiment.record.windows or WINDOWS)

    @property
    def frame_s(self) -> float:
        """The time between two encoder frames."""
        return self.factor * self.shift_ms / 1000

    @property
    def window_frames(self) -> tuple[int, int]:
        """The feature frames of a window, and those that it shares with the next one: multiples of the factor."""
        length, overlap = (
            int(seconds * 1000 / self.shift_ms) // self.factor * self.factor
            for seconds in (self.windows.window_s, self.windows.overlap_s)
        )
        return length, overlap


@dataclass
class Found:
    """The labels of a recording."""

    labels: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)  # first encoder frame of each label, counted over all windows
    last: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)  # 0..1: mean probability of each label on its frames


def decode_in_windows(
    frames: int, timing: Timing, decoder: Decoder, emit: Emit, energy: Energy | None = None
) -> dict[Keep, Found]:
    """Decode one recording with several sub-models. Memory does not grow with its length.

    The emissions of two windows that overlap are joined in the middle half of their overlap, at the frame around which both
    windows are surest of the blank. So each label lies on the same side of the cut in both, and none is lost or doubled.

    Args:
        frames: the number of feature frames of the recording.
        timing: the frames of the model.
        decoder: the decoder; it decodes each joined piece by itself.
        emit: a function; ``emit(start, stop)`` yields the log-probabilities (T', V) of each sub-model for feature frames
            ``start`` to ``stop`` - 1.
        energy: a function; ``energy(start, stop)`` returns the energy of each of these feature frames, in any unit; None: all
            windows overlap.
    """
    joiners: dict[Keep, _Joiner] = {}
    for start, stop in windows(frames, timing, energy):
        for keep, log_probs in emit(start, stop):
            joiners.setdefault(keep, _Joiner(decoder)).add(start // timing.factor, log_probs)
    return {keep: joiner.finish() for keep, joiner in joiners.items()}


def windows(frames: int, timing: Timing, energy: Energy | None = None) -> Iterator[tuple[int, int]]:
    """Yield the windows of a recording of ``frames`` feature frames: (first frame, the one after the last).

    A window ends in the quietest pause of its last two thirds, and the next one begins there. Without a pause the two overlap.
    All of them begin at a multiple of the subsampling factor, so that their encoder frames coincide.
    """
    if not is_long(frames, timing):
        yield 0, frames
        return
    length, overlap = timing.window_frames
    start = 0
    while frames - start > length:
        pause = energy and _pause(energy(start, start + length), frames - start - overlap, timing)
        yield start, start + (pause or length)
        start += pause or length - overlap
    yield start, frames


def _pause(energy: np.ndarray, last: int, timing: Timing) -> int | None:
    """Return the middle of the quietest pause in the last two thirds of a window, a multiple of the factor; None without one.

    Args:
        energy: (W,), of each feature frame of the window.
        last: the last frame that may be returned, so that the next window is long enough for the model.
        timing: the frames of the model; what a pause is.
    """
    width = max(1, int(_PAUSE_MS / timing.shift_ms))
    if timing.windows.pause_db is None or len(energy) < width:
        return None
    sums = np.cumsum(np.insert(energy.astype(np.float64), 0, 0.0))
    means = (sums[width:] - sums[:-width]) / width  # of all stretches as long as a pause
    middles = np.arange(len(means)) + width // 2
    candidates = (middles % timing.factor == 0) & (middles >= len(energy) // 3) & (middles <= last)
    quietest = np.where(candidates, means, np.inf)
    best = len(quietest) - 1 - int(quietest[::-1].argmin())  # the last one of equals
    return int(middles[best]) if quietest[best] <= means.max() * 10 ** (-timing.windows.pause_db / 10) else None


def is_long(frames: int, timing: Timing) -> bool:
    """Return whether a recording of ``frames`` feature frames is decoded in windows."""
    return frames * timing.shift_ms > timing.windows.one_piece_s * 1000


class _Joiner:
    """The joined emissions of a sub-model; pieces are decoded as soon as they are complete."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._found = decoder, Found()
        self._begin, self._held = 0, np.empty((0, 0), dtype=np.float32)  # first frame after the last cut; emissions from there

    def add(self, begin: int, log_probs: np.ndarray) -> None:
        """Add the emissions (T', V) of the next window, which starts at encoder frame ``begin``."""
        if len(self._held):
            cut = _quietest(self._held[begin - self._begin :], log_probs)
            self._decode(self._held[: begin - self._begin + cut])
            begin, log_probs = begin + cut, log_probs[cut:]
        self._begin, self._held = begin, log_probs

    def finish(self) -> Found:
        """Decode the last piece and return the labels."""
        self._decode(self._held)
        return self._found

    def _decode(self, log_probs: np.ndarray) -> None:
        """Append the labels of a piece (T', V), which starts at the frame ``_begin``."""
        (path,) = self._decoder.decode(log_probs[None], np.array([len(log_probs)]))
        found = self._found
        for label, first, last in zip(path.labels, path.first, path.last, strict=True):
            found.confidences.append(float(np.exp(log_probs[first : last + 1, label]).mean()))
        found.labels += path.labels
        found.first += [self._begin + frame for frame in path.first]
        found.last += [self._begin + frame for frame in path.last]


def _quietest(before: np.ndarray, after: np.ndarray) -> int:
    """Return the frame at which to cut the overlap of two windows.

    Args:
        before: (O, V), the overlap in the first window.
        after: (T', V), the whole second window.
    """
    frames = min(len(before), len(after))
    if frames == 0:  # the first window ended in a pause
        return 0
    blank = before[:frames, BLANK] + after[:frames, BLANK]  # (O,) log-probability that both windows have no label
    padded, width = np.pad(blank, _NEAR, mode="edge"), 2 * _NEAR + 1
    near = sum(padded[place : place + frames] for place in range(width)) / np.float32(width)
    distance = np.abs(np.arange(frames, dtype=np.float32) - frames // 2)
    near = np.where(distance <= frames // 4, near - 1e-4 * distance, -np.inf)  # of equal frames, the one in the middle
    return int(near.argmax())
