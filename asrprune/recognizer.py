"""The public runtime: transcribe at any depth, with a trained experiment or with an exported file."""

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asrprune.config.lengths import output_length
from asrprune.data.batching import sorted_batches
from asrprune.data.units import BLANK
from asrprune.decode.decoder import Decoder
from asrprune.decode.windows import decode_in_windows, is_long
from asrprune.decode.words import Hypothesis, Word, words_of
from asrprune.experiment.plan import Keep, Plan
from asrprune.features.audio import check_samples, open_audio
from asrprune.features.fbank import Read, num_frames
from asrprune.features.resample import at_rate
from asrprune.runtime.errors import UserError
from asrprune.transcribe.model import Model

__all__ = ["Hypothesis", "Recognizer", "Word"]

logger = logging.getLogger(__name__)
FIT_AUDIO_S = 5.0
FIT_REPEATS = 3
READ_AHEAD_S = 300.0  # recordings that are read before some of similar length run together
BATCH_S = 30.0  # longest batch, padding included; 60 s take as long in torch, and in onnxruntime 1.1 times as long
Audio = str | Path | np.ndarray
Run = Callable[[Sequence[np.ndarray]], list[tuple[np.ndarray, Keep]]]


@dataclass(frozen=True)
class _Heard:
    """A short recording that waits for others of its length."""

    features: np.ndarray  # (T, F)
    num_samples: int


class Recognizer:
    """A model for transcription. A change of depth reloads nothing. Several threads may use the same recogniser.

    Attributes:
        model: the model; see ``transcribe.model``.
        decoder: what turns its output into labels.
        layers: the layers that run by default.
    """

    def __init__(self, model: Model, decoder: Decoder | None = None) -> None:
        """Use ``Recognizer.load``."""
        self.model = model
        self.decoder = model.decoder({}) if decoder is None else decoder
        self.layers: tuple[int, ...] = model.default

    @property
    def plan(self) -> Plan:
        """The plan with the layers of each depth."""
        return self.model.plan

    @classmethod
    def load(
        cls,
        path: str | Path,
        plan: str | Path | None = None,
        device: str = "cpu",
        decoder: Mapping[str, Any] | None = None,
        low_memory: bool = False,
    ) -> "Recognizer":
        """Load an experiment, which runs in torch, or an exported file, which runs in onnxruntime without torch.

        Args:
            path: a directory made by a recipe (stage 5 or later) or by `asrprune prune`; or FILE.onnx of `asrprune export`.
            plan: of an experiment: the plan with the layers of each depth, which is a strategy (``exp/plans/NAME.json``) or a
                file; None: the plan ``iterative`` if it exists, else the lowest layers. An exported file has its own.
            device: "cpu" or "cuda"; "cpu" for an exported file.
            decoder: numbers that replace those of ``decode.decoder`` in the config:
                ``{"type": "beam", "lm": "3gram.arpa", "context": ["Lynde"]}``.
            low_memory: an exported file takes less memory, and more time.

        Raises:
            UserError: a file is missing or broken.
        """
        load = partial(_exported, low_memory=low_memory) if str(path).endswith(".onnx") else _trained
        model = load(Path(path), plan, device)
        return cls(model, model.decoder(decoder or {}))

    def transcribe(
        self,
        audio: Audio,
        depth: int | Literal["auto"] | None = None,
        layers: Sequence[int] | None = None,
        sample_rate: int | None = None,
        exit_threshold: float | None = None,
    ) -> Hypothesis:
        """Transcribe a file, or (N,) floating-point samples in [-1, 1).

        Channels are mixed, and other sample rates are resampled to that of the model. A recording of more than a minute is
        decoded in overlapping windows; memory does not grow with its length. A recording of digital silence has no words.

        Args:
            audio: path or samples. A named pipe is read to its end, and so is standard input for ``-``.
            depth: the number of layers to run; the plan gives the layers. None: ``layers``, or the result of ``fit``, or those
                that the model runs by default: all, or what `asrprune set-depth` chose. "auto": early exit, layers run until an
                exit of the model is sure enough.
            layers: exactly these layers.
            sample_rate: the rate of samples in Hz; None: that of the model.
            exit_threshold: 0..1, how sure an exit must be with "auto"; None: what `asrprune early-exit` chose.

        Raises:
            UserError: the audio cannot be read, the samples have another type or scale, the depth or a layer does not exist, or
                early exit is not possible.
        """
        (found,) = self.transcribe_many([audio], depth, layers, sample_rate, exit_threshold)
        if isinstance(found, UserError):
            raise found
        return found

    def transcribe_many(
        self,
        audios: Iterable[Audio],
        depth: int | Literal["auto"] | None = None,
        layers: Sequence[int] | None = None,
        sample_rate: int | None = None,
        exit_threshold: float | None = None,
    ) -> Iterator[Hypothesis | UserError]:
        """Yield what ``transcribe`` returns for each recording, in order, or the error that it raises for this recording.

        Short recordings of similar length run in batches of at most ``BATCH_S`` seconds, which takes less time and gives the
        same texts. Early exit and files with int8 run them one by one: int8 scales all numbers of a batch together.

        Args:
            audios: recordings; ``READ_AHEAD_S`` seconds of them are read before the first result.
            depth: see ``transcribe``, as for the other arguments.
            layers: as above.
            sample_rate: as above.
            exit_threshold: as above.

        Raises:
            UserError: the depth or a layer does not exist, or early exit is not possible.
        """
        run = self._run(depth, layers, exit_threshold)
        together = self.model.batches and depth != "auto"
        return self._results(audios, sample_rate, run, together)

    def _results(
        self, audios: Iterable[Audio], sample_rate: int | None, run: Run, together: bool
    ) -> Iterator[Hypothesis | UserError]:
        """Yield the results; ``together``: those of short recordings of similar length are computed in batches."""
        most = self._frames(READ_AHEAD_S) if together else 0
        group: list[_Heard | Hypothesis | UserError] = []
        waiting = 0  # feature frames
        for audio in audios:
            try:
                heard = self._hear(audio, sample_rate, run)
                waiting = waiting + len(heard.features) if isinstance(heard, _Heard) else most
                group.append(heard)
            except UserError as error:
                waiting = most
                group.append(error)
            if waiting >= most:
                yield from self._finished(group, run, together)
                group, waiting = [], 0
        yield from self._finished(group, run, together)

    def _hear(self, audio: Audio, sample_rate: int | None, run: Run) -> _Heard | Hypothesis:
        """Read a short recording; transcribe a long one, which is not read at once."""
        model = self.model
        with self._opened(audio, sample_rate) as (read, num_samples):
            frames = num_frames(num_samples, model.frontend)
            if not is_long(frames, model.timing):
                return _Heard(model.features(read, num_samples, 0, frames), num_samples)
            return self._hypothesis(num_samples, lambda *window: run([model.features(read, num_samples, *window)])[0])

    def _finished(
        self, group: Sequence[_Heard | Hypothesis | UserError], run: Run, together: bool
    ) -> list[Hypothesis | UserError]:
        """Transcribe the recordings of a group that wait."""
        done = {number: part for number, part in enumerate(group) if not isinstance(part, _Heard)}
        waiting = [(number, part) for number, part in enumerate(group) if isinstance(part, _Heard)]
        lengths = np.array([len(part.features) for _, part in waiting])
        for batch in sorted_batches(lengths, self._frames(BATCH_S) if together else 0):
            members = [waiting[index] for index in batch]
            made = run([part.features for _, part in members])
            for (number, part), emitted in zip(members, made, strict=True):
                done[number] = self._hypothesis(part.num_samples, lambda *_, emitted=emitted: emitted)
        return [done[number] for number in range(len(group))]

    def _frames(self, seconds: float) -> int:
        return int(seconds * 1000 / self.model.timing.shift_ms)

    def _hypothesis(self, num_samples: int, run: Callable[[int, int], tuple[np.ndarray, Keep]]) -> Hypothesis:
        """Decode a recording; ``run`` returns log-probabilities (T', V) of a window, and the layers that ran."""
        model, ran = self.model, set[Keep]()

        def emit(start: int, stop: int) -> list[tuple[Keep, np.ndarray]]:
            log_probs, keep = run(start, stop)
            ran.add(keep)
            return [((), log_probs)]

        found = decode_in_windows(num_frames(num_samples, model.frontend), model.timing, self.decoder, emit)[()]
        seconds = num_samples / model.frontend.sample_rate
        words = words_of(found, model.units, model.timing.frame_s, seconds, model.word_tail_s)
        return Hypothesis(" ".join(word.text for word in words), words, max(ran, key=len))

    def _run(self, depth: int | Literal["auto"] | None, layers: Sequence[int] | None, threshold: float | None) -> Run:
        """Return a function of features (T, F), which returns log-probabilities (T', V) and the layers that ran."""
        if depth == "auto":
            if layers is not None:
                raise UserError("give a depth or layers, not both")
            thresholds = self.model.thresholds(threshold)
            return lambda batch: [self._until_sure(features, thresholds) for features in batch]
        if threshold is not None:
            raise UserError('an exit threshold has no effect without the depth "auto"')
        keep = self.layers_of(depth, layers)
        return lambda batch: [(log_probs, keep) for log_probs in self._emit(batch, keep)]

    def fit(
        self,
        rtf: float | None = None,
        params_m: float | None = None,
        memory_mb: float | None = None,
        seconds: float = FIT_AUDIO_S,
    ) -> int:
        """Select the deepest sub-model of the plan that meets one budget; return its depth.

        Later calls of ``transcribe`` use it. Give exactly one of:

        Args:
            rtf: largest real-time factor on this machine. Transcription of ``seconds`` of noise is timed: the median of three
                runs.
            params_m: largest number of parameters, in millions.
            memory_mb: largest size of the weights, in 10^6 bytes. It is the memory of a model that has only these layers
                (`asrprune prune`, `asrprune export --form depth`); one that can run at every depth has all weights in memory.
            seconds: length of the noise.

        Raises:
            UserError: all sub-models are above the budget, or no budget or several are given.
        """
        given = {"rtf": rtf, "params_m": params_m, "memory_mb": memory_mb}
        budgets = [(name, budget) for name, budget in given.items() if budget is not None]
        if len(budgets) != 1:
            raise UserError("fit needs exactly one of rtf, params_m and memory_mb")
        ((name, budget),) = budgets
        ways: dict[str, tuple[str, Callable[[Keep], float]]] = {
            "rtf": (f"a real-time factor of {budget} or less here", lambda keep: self._rtf(keep, seconds)),
            "params_m": (f"{budget} million parameters or less", self.model.params_m),
            "memory_mb": (f"{budget} MB of weights or less", self.model.memory_mb),
        }
        what, measure = ways[name]
        taken = float("inf")
        for step in sorted(self.plan.steps, key=lambda step: -step.depth):
            taken = measure(step.keep)
            if taken <= budget:
                self.layers = step.keep
                return step.depth
        raise UserError(f"no depth of plan {self.plan.strategy} has {what}; the smallest has {taken:.4f}")

    def layers_of(self, depth: int | None = None, layers: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the layers that ``transcribe`` runs; raise a ``UserError`` if the depth or a layer does not exist."""
        if depth is not None and layers is not None:
            raise UserError("give a depth or layers, not both")
        if layers is not None:
            self.model.check_layers(layers)
            return tuple(layers)
        return self.layers if depth is None else self.plan.keep(depth)

    @contextmanager
    def _opened(self, audio: Audio, sample_rate: int | None) -> Iterator[tuple[Read, int]]:
        """Open a file or samples; yield a function that reads parts at the rate of the model, and the number of samples."""
        rate = self.model.frontend.sample_rate
        if isinstance(audio, np.ndarray):
            samples = _checked(audio)
            own = rate if sample_rate is None else sample_rate
            yield at_rate("samples", lambda start, count: samples[start : start + count], len(samples), own, rate)
        else:
            with open_audio(str(audio), None, streams=True) as recording:
                info = recording.info
                _tell(info.sample_rate, info.channels, rate)
                yield at_rate(str(audio), recording.read_mono, info.num_samples, info.sample_rate, rate)

    def _emit(self, batch: Sequence[np.ndarray], keep: Keep) -> list[np.ndarray]:
        """Compute log-probabilities (T', V) of each utterance, for features (T, F)."""
        loud = [features for features in batch if not _silent(features)]
        made = iter(self.model.emissions(loud, keep) if loud else [])
        return [self._blank(features) if _silent(features) else next(made) for features in batch]

    def _until_sure(self, features: np.ndarray, thresholds: Sequence[float]) -> tuple[np.ndarray, Keep]:
        """Compute log-probabilities (T', V) of features (T, F) with early exit; return the layers that ran, too."""
        if _silent(features):
            return self._blank(features), ()
        log_probs, last = self.model.emissions_until_sure(features, thresholds)
        return log_probs, tuple(range(1, last + 1))

    def _blank(self, features: np.ndarray) -> np.ndarray:
        """Return log-probabilities (T', V) of blanks alone, for features (T, F)."""
        frames = output_length(len(features), self.model.timing.factor)
        blank = np.full((frames, len(self.model.units)), -np.inf, dtype=np.float32)
        blank[:, BLANK] = 0.0
        return blank

    def _rtf(self, keep: Keep, seconds: float) -> float:
        rate = self.model.frontend.sample_rate
        noise = np.random.default_rng(0).normal(0.0, 0.1, int(seconds * rate)).astype(np.float32)
        times = []
        for _ in range(FIT_REPEATS + 1):
            started = time.perf_counter()
            self.transcribe(noise, layers=keep)
            times.append(time.perf_counter() - started)
        return float(np.median(times[1:])) / seconds


def _silent(features: np.ndarray) -> bool:
    """Return whether features (T, F) are those of digital silence, whose energies are all equal; no frames are silence, too."""
    return not features.size or bool(np.ptp(features) == 0.0)


def _exported(path: Path, plan: str | Path | None, device: str, low_memory: bool) -> Model:
    from asrprune.transcribe.exported import ExportedModel

    if plan is not None:
        raise UserError(f"{path}: has a plan of its own; `asrprune export --plan` chooses it")
    if device != "cpu":
        raise UserError(f"{path}: an exported file runs on the CPU, not on {device}; load the experiment")
    return ExportedModel(path, low_memory)


def _trained(path: Path, plan: str | Path | None, device: str) -> Model:
    from asrprune.transcribe.trained import TrainedModel  # here, because it imports torch

    return TrainedModel.load(path, plan, device)


@functools.cache  # once for each kind of recording
def _tell(rate: int, channels: int, wanted: int) -> None:
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
    check_samples("samples", samples)
    return samples
