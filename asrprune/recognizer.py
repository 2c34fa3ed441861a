"""The public runtime: transcribe with a trained model at any depth."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asrprune.data.tokenizer import WORD_START
from asrprune.decode.choose import decoder_of
from asrprune.decode.decoder import BestPath, Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Plan, check_layers
from asrprune.experiment.store import Experiment, load
from asrprune.features.audio import read_audio
from asrprune.features.fbank import compute_fbank
from asrprune.infer.runner import Runner
from asrprune.prune.find import find_plan
from asrprune.runtime.errors import UserError

FIT_AUDIO_S = 5.0
FIT_REPEATS = 3


@dataclass(frozen=True)
class Word:
    """A recognised word."""

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
        experiment = load(Path(exp), device)
        recognizer = cls(experiment, plan, decoder_of(experiment, decoder))
        if plan is not None:
            find_plan(recognizer.experiment, plan)  # reports a missing plan at once
        return recognizer

    def transcribe(
        self, audio: str | Path | np.ndarray, depth: int | None = None, layers: Sequence[int] | None = None
    ) -> Hypothesis:
        """Transcribe a file, or (N,) float32 samples in [-1, 1) at the model's sample rate.

        Args:
            audio: path or samples.
            depth: the number of layers to run; the plan gives the layers. None: ``layers``, or the result of ``fit``, or all.
            layers: exactly these layers.

        Raises:
            UserError: the audio cannot be read, the samples have another type, or the depth or a layer does not exist.
        """
        keep = self._keep(depth, layers)
        options = self.experiment.config.frontend
        samples = _checked(audio) if isinstance(audio, np.ndarray) else read_audio(str(audio), options.sample_rate)
        log_probs = self._emit(compute_fbank(samples, options), keep)
        words = self._words(log_probs, self.decoder.decode(log_probs.unsqueeze(0), torch.tensor([len(log_probs)]))[0])
        return Hypothesis(" ".join(word.text for word in words), words, keep)

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

    def _keep(self, depth: int | None, layers: Sequence[int] | None) -> tuple[int, ...]:
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

    def _words(self, log_probs: Tensor, path: BestPath) -> tuple[Word, ...]:
        config = self.experiment.config
        frame_s = config.model.subsampling.factor * config.frontend.frame_shift_ms / 1000
        pieces = self.experiment.tokenizer.pieces
        words: list[Word] = []
        for group in _group_by_word([pieces[label] for label in path.labels]):
            labels = [path.labels[i] for i in group]
            probabilities = [
                log_probs[path.first[i] : path.last[i] + 1, label].exp().mean() for i, label in zip(group, labels, strict=True)
            ]
            text = self.experiment.tokenizer.decode(labels)
            start, end = path.first[group[0]] * frame_s, (path.last[group[-1]] + 1) * frame_s
            if text:
                words.append(Word(text, round(start, 3), round(end, 3), float(torch.stack(probabilities).mean())))
        return tuple(words)


def _checked(samples: np.ndarray) -> np.ndarray:
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise UserError(
            f"samples must be (N,) floating-point numbers in [-1, 1), got {samples.dtype} of shape {samples.shape};"
            " divide 16-bit integers by 32768, and mix channels into one"
        )
    return samples


def _group_by_word(pieces: Sequence[str]) -> list[list[int]]:
    """Return the indices of the pieces of each word; a piece with sentencepiece's word mark begins a word."""
    groups: list[list[int]] = []
    for position, piece in enumerate(pieces):
        if piece.startswith(WORD_START) or not groups:
            groups.append([])
        groups[-1].append(position)
    return groups
