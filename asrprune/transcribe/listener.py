"""From recordings to hypotheses: reading, features, batches of short recordings, windows of long ones, words."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrprune.config.lengths import output_length
from asrprune.data.batching import sorted_batches
from asrprune.data.units import BLANK
from asrprune.decode.decoder import Decoder
from asrprune.decode.windows import Energy, decode_in_windows, is_long
from asrprune.decode.words import Hypothesis, words_of
from asrprune.experiment.plan import Keep
from asrprune.features.audio import check_samples, open_audio
from asrprune.features.fbank import Read, num_frames
from asrprune.features.resample import at_rate
from asrprune.runtime.errors import UserError
from asrprune.runtime.progress import teller
from asrprune.transcribe.model import Model

logger = logging.getLogger(__name__)
READ_AHEAD_S = 300.0  # of recordings that are read before those of similar length run together
SILENCE = 1e-6  # samples of this size, which MP3 makes of zeros, have the least energy in all filters
BATCH_S = 30.0  # longest batch, padding included; 60 s take as long in torch, and in onnxruntime 1.1 times as long
told: set[tuple[int, int, int]] = set()  # the kinds of recordings of this process; see ``tell``
Audio = str | Path | np.ndarray


@dataclass(frozen=True)
class Heard:
    """A short recording that waits for others of its length, or a window of a long one."""

    x: np.ndarray  # the input of the model: features (T, F) or samples (S,)
    frames: int  # T
    num_samples: int  # of the whole recording

    @property
    def silent(self) -> bool:
        """Whether this is digital silence, whose samples or energies are all equal; no frames are silence, too."""
        return self.frames == 0 or bool(np.ptp(self.x) <= SILENCE)


Run = Callable[[Sequence[Heard]], list[tuple[np.ndarray, Keep]]]  # of each: log-probabilities (T', V), the layers that ran


class Listener:
    """A model and a decoder that turn recordings into words."""

    def __init__(self, model: Model, decoder: Decoder) -> None:
        """Listen with a model and a decoder."""
        self.model, self.decoder = model, decoder

    def with_layers(self, keep: Keep) -> Run:
        """Return a function that runs these layers."""
        return lambda batch: [(log_probs, keep) for log_probs in self._emit(batch, keep)]

    def until_sure(self, thresholds: Sequence[float]) -> Run:
        """Return a function that runs layers until an exit is sure enough."""
        return lambda batch: [self._until_sure(heard, thresholds) for heard in batch]

    def listen(
        self, audios: Iterable[Audio], sample_rate: int | None, run: Run, together: bool
    ) -> Iterator[Hypothesis | UserError]:
        """Yield the hypothesis of each recording, in order, or the error that it raises.

        Args:
            audios: paths, or samples (N,).
            sample_rate: the rate of samples in Hz; None: that of the model.
            run: see ``with_layers`` and ``until_sure``.
            together: whether short recordings of similar length are computed in batches.
        """
        most = self._frames(READ_AHEAD_S) if together else 0
        group: list[Heard | Hypothesis | UserError] = []
        waiting = 0  # feature frames
        for audio in audios:
            try:
                group.append(self._hear(audio, sample_rate, run))
            except UserError as error:
                group.append(error)
            last = group[-1]
            waiting = waiting + last.frames if isinstance(last, Heard) else most  # a finished one does not wait
            if waiting >= most:
                yield from self._finished(group, run, together)
                group, waiting = [], 0
        yield from self._finished(group, run, together)

    def _hear(self, audio: Audio, sample_rate: int | None, run: Run) -> Heard | Hypothesis:
        """Read a short recording; transcribe a long one, which is not read at once."""
        model = self.model
        with self._opened(audio, sample_rate) as (read, num_samples):
            frames = num_frames(num_samples, model.frontend)
            if not is_long(frames, model.timing):
                return Heard(model.features(read, num_samples, 0, frames), frames, num_samples)
            minutes = model.timing.shift_ms / 60_000  # of a frame
            name = "samples" if isinstance(audio, np.ndarray) else str(audio)
            tell = teller(name, frames * minutes, unit=" minutes")

            def window(start: int, stop: int) -> tuple[np.ndarray, Keep]:
                tell(start * minutes)
                return run([Heard(model.features(read, num_samples, start, stop), stop - start, num_samples)])[0]

            def energy(start: int, stop: int) -> np.ndarray:
                shift = model.frontend.shift
                samples = read(start * shift, (stop - start) * shift)
                return np.square(samples).reshape(-1, shift).mean(axis=1)

            return self._hypothesis(num_samples, window, energy)

    def _finished(
        self, group: Sequence[Heard | Hypothesis | UserError], run: Run, together: bool
    ) -> list[Hypothesis | UserError]:
        """Transcribe the recordings of a group that wait; return the results of the whole group, in order."""
        done = {number: part for number, part in enumerate(group) if not isinstance(part, Heard)}
        waiting = [(number, part) for number, part in enumerate(group) if isinstance(part, Heard)]
        lengths = np.array([part.frames for _, part in waiting])
        for batch in sorted_batches(lengths, self._frames(BATCH_S) if together else 0):
            members = [waiting[index] for index in batch]
            made = run([part for _, part in members])
            for (number, part), emitted in zip(members, made, strict=True):
                done[number] = self._hypothesis(part.num_samples, lambda *_, emitted=emitted: emitted)
        return [done[number] for number in range(len(group))]

    def _frames(self, seconds: float) -> int:
        return int(seconds * 1000 / self.model.timing.shift_ms)

    def _hypothesis(
        self, num_samples: int, run: Callable[[int, int], tuple[np.ndarray, Keep]], energy: Energy | None = None
    ) -> Hypothesis:
        """Decode a recording; ``run`` returns log-probabilities (T', V) of a window, and the layers that ran."""
        model, ran = self.model, set[Keep]()

        def emit(start: int, stop: int) -> list[tuple[Keep, np.ndarray]]:
            log_probs, keep = run(start, stop)
            ran.add(keep)
            return [((), log_probs)]

        found = decode_in_windows(num_frames(num_samples, model.frontend), model.timing, self.decoder, emit, energy)[()]
        seconds = num_samples / model.frontend.sample_rate
        words = words_of(found, model.units, model.timing.frame_s, seconds, model.word_tail_s)
        return Hypothesis(" ".join(word.text for word in words), words, max(ran, key=len))

    @contextmanager
    def _opened(self, audio: Audio, sample_rate: int | None) -> Iterator[tuple[Read, int]]:
        """Open a file or samples; yield a function that reads parts at the rate of the model, and the number of samples."""
        rate = self.model.frontend.sample_rate
        if not isinstance(audio, str | os.PathLike | np.ndarray):
            raise UserError(f"audio: must be a path or a numpy array of samples, got {type(audio).__name__}; convert it")
        if isinstance(audio, np.ndarray):
            samples = _checked(audio)
            own = rate if sample_rate is None else sample_rate
            yield at_rate("samples", lambda start, count: samples[start : start + count], len(samples), own, rate)
        else:
            if sample_rate is not None:
                raise UserError(f"{audio}: a file has its own rate, so sample_rate has no effect; leave it out")
            with open_audio(str(audio), None, streams=True) as recording:
                info = recording.info
                tell(info.sample_rate, info.channels, rate)
                yield at_rate(str(audio), recording.read_mono, info.num_samples, info.sample_rate, rate)

    def _emit(self, batch: Sequence[Heard], keep: Keep) -> list[np.ndarray]:
        """Compute log-probabilities (T', V) of each utterance."""
        loud = [heard.x for heard in batch if not heard.silent]
        made = iter(self.model.emissions(loud, keep) if loud else [])
        return [self._blank(heard) if heard.silent else next(made) for heard in batch]

    def _until_sure(self, heard: Heard, thresholds: Sequence[float]) -> tuple[np.ndarray, Keep]:
        """Compute log-probabilities (T', V) with early exit; return the layers that ran, too."""
        if heard.silent:
            return self._blank(heard), ()
        log_probs, last = self.model.emissions_until_sure(heard.x, thresholds)
        return log_probs, tuple(range(1, last + 1))

    def _blank(self, heard: Heard) -> np.ndarray:
        """Return log-probabilities (T', V) of blanks alone."""
        frames = output_length(heard.frames, self.model.timing.factor)
        blank = np.full((frames, len(self.model.units)), -np.inf, dtype=np.float32)
        blank[:, BLANK] = 0.0
        return blank


def tell(rate: int, channels: int, wanted: int) -> None:
    """Log once for each kind of recording what is changed in it. Other processes do not log; ``run`` tells for them."""
    if (rate, channels, wanted) in told:
        return
    told.add((rate, channels, wanted))
    mixed = [f"{channels} channels are mixed into one"] if channels > 1 else []
    resampled = [f"{rate} Hz are resampled to {wanted} Hz"] if rate != wanted else []
    if mixed or resampled:
        logger.info("recordings with %d Hz and %d channels: %s", rate, channels, ", ".join(mixed + resampled))


def _checked(samples: np.ndarray) -> np.ndarray:
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise UserError(
            f"samples must be (N,) floating-point numbers in [-1, 1), got {samples.dtype} of shape {samples.shape};"
            " divide 16-bit integers by 32768, and mix channels into one"
        )
    samples = np.asarray(samples)  # a masked array has other functions
    check_samples("samples", samples)
    return samples
