"""The check of an exported file: onnxruntime against torch at every depth, by numbers, and by texts and WER of a dev set."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf, isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asrprune.data.tokenizer import Tokenizer
from asrprune.decode.decoder import Array
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.export.examples import Example
from asrprune.export.record import Ended, Exported, Precision
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

    def add(self, example: Example, file: list[list[int]], float32: list[list[int]], tokenizer: Tokenizer) -> None:
        """Add what both say of a batch: the labels of each utterance."""
        references = [text.split() for text in example.texts]
        self.changed += [name for name, a, b in zip(example.ids, file, float32, strict=True) if a != b]
        self.errors += sum(word_errors(file, references, tokenizer))
        self.errors_float32 += sum(word_errors(float32, references, tokenizer))

    def wer(self, words: int) -> tuple[float, float] | tuple[None, None]:
        """Return the WER of the file and of torch, in percent; None without transcripts."""
        return (100 * self.errors / words, 100 * self.errors_float32 / words) if words else (None, None)


@dataclass
class Comparison:
    """The texts of all sub-models."""

    texts: dict[Keep, Texts]
    utterances: int = 0
    words: int = 0  # of the references

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
        self.session = Session(path)

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
            log_probs, frames, layers = self.session.run_until_sure(example.x, example.lens, thresholds)
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
            found.utterances += len(example.texts)
            found.words += _num_words(example)
            said = self._said_in_torch(example)
            for keep, texts in found.texts.items():
                layers = keep if self.choice else None
                file = self._said_by_file(example, partial(self.session.run, keep=layers))
                texts.add(example, file[0], said[keep], self.experiment.tokenizer)
        return found

    def ended(self, examples: Iterable[Example], exported: Exported, dev: Path) -> Ended:
        """Compare early exit on a set: its greedy texts and the number of layers that ran."""
        texts, words, layers = Texts(), 0, list[tuple[int, int]]()
        exits, thresholds = exported.exits, exported.thresholds
        keeps, needed = [tuple(range(1, exit + 1)) for exit in exits], np.array([[*thresholds, 0.0]]).T  # (E, 1)
        for example in examples:
            made = [emissions for _, emissions in self._runner.emissions(example.features, example.frames, keeps)]
            first = (np.stack([confidence(emissions).numpy() for emissions in made]) >= needed).argmax(axis=0)  # (B,)
            said = [_labels(emissions.log_probs, emissions.lens) for emissions in made]
            file, ran = self._said_by_file(example, partial(self.session.run_until_sure, thresholds=thresholds))
            texts.add(example, file, [said[place][row] for row, place in enumerate(first)], self.experiment.tokenizer)
            words += _num_words(example)
            layers += zip(ran, (exits[place] for place in first), strict=True)
        (own, float32), (wer, wer_float32) = np.mean(layers, axis=0).tolist(), texts.wer(words)
        return Ended(
            set=dev.resolve().name, utterances=len(layers), layers=own, layers_float32=float32, changed=len(texts.changed),
            wer=wer, wer_float32=wer_float32,
        )  # fmt: skip

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

    def _said_by_file(self, example: Example, run: Callable[..., tuple[np.ndarray, ...]]) -> tuple[list[list[int]], list[int]]:
        """Return the labels of each utterance, and with early exit the number of layers that ran."""
        parts = example.one_by_one() if self._precision == "int8" else [(example.x, example.lens)]
        labels, layers = list[list[int]](), list[int]()
        for x, lens in parts:
            log_probs, frames, *ran = run(x, lens)
            labels += _labels(log_probs, frames)
            layers += [count for counts in ran for count in counts.tolist()]
        return labels, layers

    def _both(self, example: Example) -> Iterator[tuple[Keep, Emissions, np.ndarray, np.ndarray]]:
        """Yield the layers of each depth, the emissions in torch, and the log-probabilities and lengths of the file."""
        for keep, emissions in self._runner.emissions(example.features, example.frames, self.keeps):
            yield keep, emissions, *self.session.run(example.x, example.lens, keep if self.choice else None)

    def _wrong(self, what: str) -> UserError:
        fix = "install the versions of constraints.txt, which work"
        other = "" if self._precision == "float32" else ", or export it in float32"
        return UserError(f"{self.path}: in onnxruntime {what}; nothing is written; {fix}{other}")


def _num_words(example: Example) -> int:
    return sum(len(text.split()) for text in example.texts)


def _labels(log_probs: Array, frames: Array) -> list[list[int]]:
    return [path.labels for path in GREEDY.decode(log_probs, frames)]


def _difference(ours: np.ndarray, theirs: Tensor, lens: np.ndarray) -> float:
    """Return the largest difference, padding left out; NaN if any number is NaN."""
    differences = [float(np.abs(ours[i, :n] - theirs[i, :n].numpy()).max()) for i, n in enumerate(lens) if n]
    return float(np.max(differences, initial=0.0))  # the max of Python may pass over a NaN
