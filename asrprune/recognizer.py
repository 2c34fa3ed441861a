"""The public runtime: transcribe at any depth, with a trained experiment or with an exported file."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asrprune.decode.decoder import Decoder
from asrprune.decode.words import Hypothesis, Word
from asrprune.experiment.plan import Keep, Plan
from asrprune.runtime.errors import UserError
from asrprune.transcribe.listener import Audio, Listener, Run
from asrprune.transcribe.model import Model

__all__ = ["Hypothesis", "Recognizer", "Word"]

FIT_AUDIO_S = 5.0
FIT_REPEATS = 3


class Recognizer:
    """A model for transcription. A change of depth reloads nothing. Several threads may use the same recogniser.

    Attributes:
        model: the model; see ``transcribe.model``.
        listener: what turns recordings into words with it.
        layers: the layers that run by default.
    """

    def __init__(self, model: Model, decoder: Decoder | None = None) -> None:
        """Use ``Recognizer.load``."""
        self.model = model
        self.listener = Listener(model, model.decoder({}) if decoder is None else decoder)
        self.layers: tuple[int, ...] = model.default

    @property
    def decoder(self) -> Decoder:
        """The decoder, which turns the output of the model into labels."""
        return self.listener.decoder

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
            device: "cpu", "cuda" or a GPU such as "cuda:1"; "cpu" for an exported file.
            decoder: numbers that replace those of ``decode.decoder`` in the config:
                ``{"type": "beam", "lm": "3gram.arpa", "context": ["Lynde"]}``.
            low_memory: an exported file takes less memory, and more time.

        Raises:
            UserError: a file is missing or broken.
        """
        if not isinstance(path, str | os.PathLike):
            raise UserError(f"the path of a model must be a string or a Path, got {path!r}")
        if not isinstance(decoder, Mapping | None):
            raise UserError(f'decoder: must be numbers such as {{"type": "beam"}}, got {decoder!r}')
        is_exported = str(path).endswith(".onnx")
        if low_memory and not is_exported:
            raise UserError(f"{path}: low_memory is a mode of exported models; leave it out")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", str(device)):
            raise UserError(f'device must be "cpu", "cuda" or a GPU such as "cuda:1", got {device!r}')
        load = partial(_exported, low_memory=low_memory) if is_exported else _trained
        model = load(Path(path), plan, str(device))
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

        Channels are mixed, and other sample rates are resampled to that of the model. A recording that is longer than the
        utterances of the training is decoded in windows; memory does not grow with its length. A recording of
        digital silence has no words.

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
        if isinstance(audios, str | os.PathLike | np.ndarray):
            raise UserError("audios: must be a list of recordings; for one use transcribe")
        run = self._run(depth, layers, exit_threshold)
        return self.listener.listen(audios, sample_rate, run, together=self.model.batches and depth != "auto")

    def _run(self, depth: int | Literal["auto"] | None, layers: Sequence[int] | None, threshold: float | None) -> Run:
        """Return what runs the chosen layers; see ``Listener.with_layers``."""
        if depth == "auto":
            if layers is not None:
                raise UserError("give a depth or layers, not both")
            if threshold is not None and not (isinstance(threshold, Real) and threshold >= 0):
                raise UserError(f"an exit threshold must be a number from 0 to 1 (above: never), got {threshold!r}")
            return self.listener.until_sure(self.model.thresholds(threshold, self.decoder.identity))
        if threshold is not None:
            raise UserError('an exit threshold has no effect without the depth "auto"')
        return self.listener.with_layers(self.layers_of(depth, layers))

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
        if not (isinstance(budget, Real) and budget >= 0 and isinstance(seconds, Real) and 0 < seconds < float("inf")):
            raise UserError(f"fit: {name} must be a number from 0, and seconds one above 0, got {budget!r} and {seconds!r}")
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
            chosen = tuple(layers) if isinstance(layers, Iterable) else None
            if chosen is None or not all(isinstance(layer, Integral) for layer in chosen):
                raise UserError(f"layers: must be layer numbers, such as [1, 2, 5], got {layers!r}")
            keep = tuple(map(int, chosen))
            self.model.check_layers(keep)
            return keep
        if depth is None:
            return self.layers
        if isinstance(depth, bool) or not isinstance(depth, Integral):
            raise UserError(f'depth: must be a number of layers, such as 6, or "auto", got {depth!r}')
        return self.plan.keep(depth)

    def _rtf(self, keep: Keep, seconds: float) -> float:
        rate = self.model.frontend.sample_rate
        noise = np.random.default_rng(0).normal(0.0, 0.1, int(seconds * rate)).astype(np.float32)
        times = []
        for _ in range(FIT_REPEATS + 1):
            started = time.perf_counter()
            self.transcribe(noise, layers=keep)
            times.append(time.perf_counter() - started)
        return float(np.median(times[1:])) / seconds


def _exported(path: Path, plan: str | Path | None, device: str, low_memory: bool) -> Model:
    from asrprune.transcribe.exported import ExportedModel

    if plan is not None:
        raise UserError(f"{path}: has a plan of its own; `asrprune export --plan` chooses it")
    if device != "cpu":
        raise UserError(f"{path}: an exported file runs on the CPU, not on {device}; load the experiment")
    return ExportedModel(path, low_memory)


def _trained(path: Path, plan: str | Path | None, device: str) -> Model:
    from asrprune.runtime.hardware import check_gpus
    from asrprune.transcribe.trained import TrainedModel  # here, because it imports torch

    check_gpus(device == "cuda")
    return TrainedModel.load(path, plan, device)
