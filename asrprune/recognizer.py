"""The public runtime: transcribe with a trained model at any depth."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asrprune.data.tokenizer import WORD_START
from asrprune.decode.choose import decoder_of
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.decode.windows import Found, decode_in_windows
from asrprune.experiment.plan import Keep, Plan, check_layers
from asrprune.experiment.store import Experiment, load
from asrprune.features.audio import check_samples, open_audio
from asrprune.features.fbank import Read, fbank_of_part, num_frames
from asrprune.infer.runner import Runner
from asrprune.prune.find import find_plan
from asrprune.runtime.errors import UserError

WORD_TAIL_S = 0.25  # the longest time that a word lasts after its last label; docs/decoding.md has the measurement
FIT_AUDIO_S = 5.0
FIT_REPEATS = 3


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


class Recognizer:
    """A trained model for transcription. A change of depth reloads nothing.

    Attributes:
        layers: the layers that run by default.
    """

    def __init__(self, experiment: Experiment, plan: str | Path | None, decoder: Decoder = GREEDY) -> None:
        """Use ``Recognizer.load``."""
        self.experiment, self.decoder = experiment, decoder
        self.runner = Runner.of(experiment)
        self._plan = plan
        self.layers: tuple[int, ...] = tuple(range(1, experiment.num_layers + 1))

    @cached_property
    def plan(self) -> Plan:
        """The plan with the layers of each depth; read on first use."""
        return find_plan(self.experiment, self._plan)

    @classmethod
    def load(
        cls,
        exp: str | Path,
        plan: str | Path | None = None,
        device: str = "cpu",
        decoder: Mapping[str, Any] | None = None,
    ) -> "Recognizer":
        """Load an experiment directory.

        Args:
            exp: a directory made by a recipe (stage 5 or later) or by `asrprune prune`.
            plan: the plan with the layers of each depth: a strategy (``exp/plans/NAME.json``) or a file; None: the plan
                ``iterative`` if it exists, else the lowest layers.
            device: "cpu" or "cuda".
            decoder: numbers that replace those of ``decode.decoder`` in the config:
                ``{"type": "beam", "lm": "3gram.arpa", "context": ["Lynde"]}``.

        Raises:
            UserError: a file is missing or broken.
        """
        experiment = load(Path(exp).absolute(), device)  # the plan is read later, perhaps in another working directory
        if plan is not None and str(plan).endswith(".json"):
            plan = Path(plan).absolute()
        recognizer = cls(experiment, plan, decoder_of(experiment, decoder))
        if plan is not None:
            find_plan(recognizer.experiment, plan)  # reports a missing plan at once
        return recognizer

    def transcribe(
        self,
        audio: str | Path | np.ndarray,
        depth: int | None = None,
        layers: Sequence[int] | None = None,
        sample_rate: int | None = None,
    ) -> Hypothesis:
        """Transcribe a file, or (N,) float32 samples in [-1, 1) at the model's sample rate.

        A recording of more than a minute is decoded in overlapping windows; memory does not grow with its length.

        Args:
            audio: path or samples. A named pipe is read to its end, and so is standard input for ``-``.
            depth: the number of layers to run; the plan gives the layers. None: ``layers``, or the result of ``fit``, or all.
            layers: exactly these layers.
            sample_rate: the rate of samples in Hz, if it shall be checked. That of a file is always checked.

        Raises:
            UserError: the audio cannot be read, the samples have another type, scale or rate, or the depth or a layer does
                not exist.
        """
        keep = self.layers_of(depth, layers)
        config = self.experiment.config
        with self._opened(audio, sample_rate) as (read, num_samples):

            def emit(start: int, stop: int) -> list[tuple[Keep, Tensor]]:
                return [(keep, self._emit(fbank_of_part(read, num_samples, start, stop, config.frontend), keep))]

            found = decode_in_windows(num_frames(num_samples, config.frontend), config, self.decoder, emit)[keep]
        words = self._words(found, num_samples / config.frontend.sample_rate)
        return Hypothesis(" ".join(word.text for word in words), words, keep)

    @contextmanager
    def _opened(self, audio: str | Path | np.ndarray, sample_rate: int | None) -> Iterator[tuple[Read, int]]:
        """Open a file or samples; yield a function that reads parts of it, and the number of samples."""
        rate = self.experiment.config.frontend.sample_rate
        if isinstance(audio, np.ndarray):
            if sample_rate not in (None, rate):
                raise UserError(f"the samples have {sample_rate} Hz, but the model needs {rate} Hz; resample them")
            samples = _checked(audio)
            yield lambda start, count: samples[start : start + count], len(samples)
        else:
            with open_audio(str(audio), rate, streams=True) as recording:
                yield recording.read, recording.info.num_samples

    def fit(self, rtf: float, seconds: float = FIT_AUDIO_S) -> int:
        """Select the deepest sub-model of the plan that has at most the real-time factor ``rtf`` here; return its depth.

        Later calls of ``transcribe`` use it. Transcription of ``seconds`` of noise is timed: the median of three runs.

        Raises:
            UserError: all sub-models are too slow.
        """
        taken = float("inf")
        for step in sorted(self.plan.steps, key=lambda step: -step.depth):
            taken = self._rtf(step.keep, seconds)
            if taken <= rtf:
                self.layers = step.keep
                return step.depth
        raise UserError(
            f"no depth of plan {self.plan.strategy} has a real-time factor of {rtf} or less here; the smallest has {taken:.4f}"
        )

    def layers_of(self, depth: int | None = None, layers: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the layers that ``transcribe`` runs; raise a ``UserError`` if the depth or a layer does not exist."""
        if depth is not None and layers is not None:
            raise UserError("give a depth or layers, not both")
        if layers is not None:
            check_layers(layers, self.experiment.num_layers, "layers")
            return tuple(layers)
        return self.layers if depth is None else self.plan.keep(depth)

    def _emit(self, features: np.ndarray, keep: tuple[int, ...]) -> Tensor:
        """Compute log-probabilities (T', V), on the CPU, of features (T, F)."""
        batch = torch.from_numpy(features).unsqueeze(0), torch.tensor([len(features)])
        ((_, emissions),) = self.runner.emissions(*batch, [keep])
        return emissions.log_probs[0, : int(emissions.lens[0])].cpu()

    def _rtf(self, keep: tuple[int, ...], seconds: float) -> float:
        options = self.experiment.config.frontend
        noise = np.random.default_rng(0).normal(0.0, 0.1, int(seconds * options.sample_rate)).astype(np.float32)
        times = []
        for _ in range(FIT_REPEATS + 1):
            started = time.perf_counter()
            self.transcribe(noise, layers=keep)
            times.append(time.perf_counter() - started)
        return float(np.median(times[1:])) / seconds

    def _words(self, found: Found, seconds: float) -> tuple[Word, ...]:
        """Return the words of a recording that is ``seconds`` long."""
        config = self.experiment.config
        frame_s = config.model.subsampling.factor * config.frontend.frame_shift_ms / 1000
        pieces = self.experiment.tokenizer.pieces
        groups = _group_by_word([pieces[label] for label in found.labels])
        begins = [found.first[group[0]] * frame_s for group in groups]
        words: list[Word] = []
        for group, begin, following in zip(groups, begins, [*begins[1:], seconds], strict=False):
            text = self.experiment.tokenizer.decode([found.labels[i] for i in group])
            spoken = (found.last[group[-1]] + 1) * frame_s
            end = max(min(spoken + WORD_TAIL_S, following), min(spoken, seconds))
            if text:
                words.append(Word(text, round(begin, 3), round(end, 3), fmean(found.confidences[i] for i in group)))
        return tuple(words)


def _checked(samples: np.ndarray) -> np.ndarray:
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise UserError(
            f"samples must be (N,) floating-point numbers in [-1, 1), got {samples.dtype} of shape {samples.shape};"
            " divide 16-bit integers by 32768, and mix channels into one"
        )
    check_samples("samples", samples)
    return samples


def _group_by_word(pieces: Sequence[str]) -> list[list[int]]:
    """Return the indices of the pieces of each word; a piece with sentencepiece's word mark begins a word."""
    groups: list[list[int]] = []
    for position, piece in enumerate(pieces):
        if piece.startswith(WORD_START) or not groups:
            groups.append([])
        groups[-1].append(position)
    return groups
