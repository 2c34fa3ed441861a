"""The check of an exported file: onnxruntime against torch at every depth, by numbers, and by texts and WER of a dev set."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asrprune.decode.decoder import Array
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.export.examples import Example
from asrprune.export.record import Precision
from asrprune.export.session import Session
from asrprune.infer.early_exit import confidence
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import Emissions
from asrprune.runtime.errors import UserError
from asrprune.scoring.wer import word_errors

Said = dict[tuple[str, ...], dict[Keep, list[list[int]]]]  # names of utterances -> layers -> labels of each utterance
TOLERANCE = 1e-3  # of log-probabilities; the largest difference seen in float32 is 1e-5
_TOLERANCES: dict[Precision, float] = {"float32": TOLERANCE, "fp16": 5.0, "int8": inf}  # texts show what int8 costs


@dataclass
class Texts:
    """The texts of a sub-model on a dev set, in torch and of the file."""

    changed: list[str] = field(default_factory=list)  # utterances whose text differs
    errors: int = 0  # word errors of the file
    errors_float32: int = 0  # of torch


@dataclass
class Comparison:
    """The texts of all sub-models."""

    texts: dict[Keep, Texts]
    utterances: int = 0
    words: int = 0  # of the references

    def wer(self, keep: Keep) -> tuple[float, float] | None:
        """Return the WER of the file and of torch, in percent; None without transcripts."""
        found = self.texts[keep]
        return (100 * found.errors / self.words, 100 * found.errors_float32 / self.words) if self.words else None

    def loss(self) -> float:
        """Return the largest increase of the WER at any depth, in points; raise a ``UserError`` without transcripts."""
        if not self.words:
            raise UserError("--max-loss: the utterances of --dev have no transcripts, so they have no WER; add the file text")
        return max(100 * (texts.errors - texts.errors_float32) / self.words for texts in self.texts.values())


class Check:
    """A comparison of a file with the model that it was made from."""

    def __init__(
        self,
        experiment: Experiment,
        path: Path,
        keeps: Sequence[Keep],
        choice: bool,
        precision: Precision = "float32",
        said: Said | None = None,
    ) -> None:
        """Load the file.

        Args:
            experiment: the model.
            path: the exported file.
            keeps: the layers of each depth.
            choice: whether the file has all layers, and an input that says which of them run.
            precision: of the file. Texts of int8 are compared of utterances that run one by one, as it needs them.
            said: labels of torch from earlier checks of the same model and examples, which are not computed again.
        """
        self._precision, self._said = precision, {} if said is None else said
        self.experiment, self.path, self.keeps, self.choice = experiment, path, keeps, choice
        self._runner = Runner(experiment.model, torch.device("cpu"), "float32")
        self._session = Session(path)

    def numbers(self, examples: Iterable[Example]) -> float:
        """Compare log-probabilities; return the largest difference.

        Raises:
            UserError: the file gives other numbers; in int8, numbers that are not finite.
        """
        found = [0.0]
        for example in examples:
            for _, ours, log_probs, frames in self._both(example):
                if frames.tolist() != ours.lens.tolist():
                    raise self._wrong(f"it has {frames.tolist()} encoder frames instead of {ours.lens.tolist()}")
                found.append(_difference(log_probs, ours.log_probs, frames))
        worst, most = float(np.max(found)), _TOLERANCES[self._precision]
        if not isfinite(worst):
            raise self._wrong("log-probabilities are not finite")
        if worst > most:
            raise self._wrong(f"log-probabilities differ from those of torch by up to {worst:.3g}, more than {most}")
        return worst

    def early_exit(self, examples: Iterable[Example], exits: Sequence[int], thresholds: Sequence[float]) -> None:
        """Check that utterances end at the first exit that is sure enough in torch, and with its log-probabilities there.

        Raises:
            UserError: one ends elsewhere, or with other numbers. Confidences differ by as much as log-probabilities may.
        """
        keeps = [tuple(range(1, exit + 1)) for exit in exits]
        needed = np.array([*thresholds, 0.0])
        for example in examples:
            log_probs, frames, layers = self._session.run_until_sure(example.x, example.lens, thresholds)
            there = [emissions for _, emissions in self._runner.emissions(example.features, example.frames, keeps)]
            sure = np.stack([confidence(emissions).numpy() for emissions in there])  # (E, B)
            for number, depth in enumerate(layers.tolist()):
                place = exits.index(depth)
                too_late = (sure[:place, number] > needed[:place] + TOLERANCE).any()
                if too_late or sure[place, number] < needed[place] - TOLERANCE:
                    raise self._wrong(f"early exit ends an utterance after {depth} layers, where it does not end in torch")
                row = slice(number, number + 1)
                worst = _difference(log_probs[row], there[place].log_probs[row], frames[row])
                if not worst <= TOLERANCE:
                    raise self._wrong(f"log-probabilities of early exit after {depth} layers differ by {worst:.3g} from torch")

    def texts(self, examples: Iterable[Example], keeps: Sequence[Keep] | None = None) -> Comparison:
        """Compare greedy texts, at every depth or with the layers in ``keeps``."""
        found = Comparison({keep: Texts() for keep in keeps or self.keeps})
        for example in examples:
            references = [text.split() for text in example.texts]
            found.utterances += len(references)
            found.words += sum(map(len, references))
            said, tokenizer = self._said_in_torch(example), self.experiment.tokenizer
            for keep, texts in found.texts.items():
                here, there = said[keep], self._said_by_file(example, keep)
                texts.changed += [name for name, a, b in zip(example.ids, here, there, strict=True) if a != b]
                texts.errors += sum(word_errors(there, references, tokenizer))
                texts.errors_float32 += sum(word_errors(here, references, tokenizer))
        return found

    def same_texts(self, examples: Iterable[Example]) -> int:
        """Return the number of utterances; raise a ``UserError`` if one of them has another text."""
        found = self.texts(examples)
        for keep, texts in found.texts.items():
            if texts.changed:
                layers = ",".join(map(str, keep))
                raise self._wrong(f"with layers {layers} the text of {texts.changed[0]} differs from that of torch")
        return found.utterances

    def _said_in_torch(self, example: Example) -> dict[Keep, list[list[int]]]:
        """Return the labels at every depth, which are computed once for all checks that share them."""
        key = tuple(example.ids)
        if key not in self._said:
            made = self._runner.emissions(example.features, example.frames, self.keeps)
            self._said[key] = {keep: _labels(emissions.log_probs, emissions.lens) for keep, emissions in made}
        return self._said[key]

    def _said_by_file(self, example: Example, keep: Keep) -> list[list[int]]:
        layers = keep if self.choice else None
        if self._precision != "int8":
            return _labels(*self._session.run(example.x, example.lens, layers))
        rows = zip(example.x, example.lens, strict=True)
        return [_labels(*self._session.run(x[None, :length], np.array([length]), layers))[0] for x, length in rows]

    def _both(self, example: Example) -> Iterator[tuple[Keep, Emissions, np.ndarray, np.ndarray]]:
        """Yield the layers of each depth, the emissions in torch, and the log-probabilities and lengths of the file."""
        for keep, emissions in self._runner.emissions(example.features, example.frames, self.keeps):
            yield keep, emissions, *self._session.run(example.x, example.lens, keep if self.choice else None)

    def _wrong(self, what: str) -> UserError:
        fix = "install the versions of constraints.txt, which work"
        other = "" if self._precision == "float32" else ", or export it in float32"
        return UserError(f"{self.path}: in onnxruntime {what}; nothing is written; {fix}{other}")


def _labels(log_probs: Array, frames: Array) -> list[list[int]]:
    return [path.labels for path in GREEDY.decode(log_probs, frames)]


def _difference(ours: np.ndarray, theirs: Tensor, lens: np.ndarray) -> float:
    """Return the largest difference, padding left out; NaN if any number is NaN."""
    differences = [float(np.abs(ours[i, :n] - theirs[i, :n].numpy()).max()) for i, n in enumerate(lens) if n]
    return float(np.max(differences, initial=0.0))  # the max of Python may pass over a NaN
