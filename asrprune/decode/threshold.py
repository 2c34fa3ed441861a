"""Early exit, measured: the mean number of layers and the error rate for each threshold, and the choice of one on a dev set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.decode.decoder import Decoder
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.store import Experiment
from asrprune.infer.early_exit import confidence
from asrprune.infer.runner import Runner
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, Executor
from asrprune.runtime.progress import track
from asrprune.runtime.records import Record
from asrprune.scoring.wer import word_errors

NUM_THRESHOLDS = 50
NEVER = math.nextafter(1.0, 2.0)  # a threshold that no confidence reaches: all layers run


class Point(Record):
    """What a set costs and what it gets: mean layers per frame, WER in percent."""

    layers: float
    wer: float


class Curve(Record):
    """A set: a point for each threshold, and one for each exit if all utterances end there."""

    by_threshold: tuple[Point, ...]
    by_exit: tuple[Point, ...]
    chosen: Point


class EarlyExit(Record):
    """early_exit.json: the threshold that was chosen on a dev set, and the curves of that set and of others."""

    made_by: ClassVar[str] = "`asrprune early-exit`"
    format: Literal[1]
    model_sha256: str
    decoder: str
    exits: tuple[int, ...]
    set: str
    margin: float  # points of WER
    threshold: float
    thresholds: tuple[float, ...]
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Measured:
    """Every utterance of a set at every exit: U utterances, E exits."""

    exits: tuple[int, ...]
    errors: np.ndarray  # (U, E)
    confidence: np.ndarray  # (U, E), 0..1
    frames: np.ndarray  # (U,)
    words: int

    def at(self, threshold: float) -> Point:
        """Return the result if each utterance ends at the first exit with at least this confidence, or at the last one."""
        sure = self.confidence >= threshold
        sure[:, -1] = True
        return self._point(sure.argmax(axis=1))

    def ending_at(self, number: int) -> Point:
        """Return the result if all utterances end at the exit with this index."""
        return self._point(np.full(len(self.frames), number))

    def _point(self, chosen: np.ndarray) -> Point:
        errors = self.errors[np.arange(len(chosen)), chosen].sum()
        layers = np.average(np.array(self.exits)[chosen], weights=self.frames)
        return Point(layers=float(layers), wer=float(100.0 * errors / self.words))


def choose_threshold(dev: Measured, margin: float) -> tuple[float, tuple[float, ...]]:
    """Return the threshold with the fewest layers whose WER is at most ``margin`` above that of all layers, and all tried.

    Tried are quantiles of the confidences, and ``NEVER``. Of equal numbers of layers the one with the lower WER is taken.
    """
    tried = (*np.unique(np.quantile(dev.confidence, np.linspace(0.0, 1.0, NUM_THRESHOLDS))).tolist(), NEVER)
    limit = dev.at(NEVER).wer + margin
    allowed = [threshold for threshold in tried if dev.at(threshold).wer <= limit]
    return min(allowed, key=lambda threshold: (dev.at(threshold).layers, dev.at(threshold).wer)), tried


def early_exit(
    experiment: Experiment,
    dev: Corpus,
    others: Sequence[Corpus],
    margin: float,
    decoder: Decoder,
    executor: Executor = HERE,
) -> EarlyExit:
    """Choose a threshold on a dev set, and measure it on other sets.

    Args:
        experiment: a model with taps, which are its exits beside the last layer.
        dev: the set on which the threshold is chosen.
        others: sets on which it is only measured.
        margin: points of WER that early exit may cost on the dev set.
        decoder: the decoder.
        executor: runs the batches.

    Raises:
        UserError: the model has one exit only.
    """
    exits = exits_of(experiment)
    measured = {corpus.directory.name: measure(experiment, corpus, exits, decoder, executor) for corpus in (dev, *others)}
    threshold, tried = choose_threshold(measured[dev.directory.name], margin)
    curves = {
        name: Curve(
            by_threshold=tuple(found.at(each) for each in tried),
            by_exit=tuple(found.ending_at(number) for number in range(len(exits))),
            chosen=found.at(threshold),
        )
        for name, found in measured.items()
    }
    return EarlyExit(
        format=1, model_sha256=experiment.record.model_sha256, decoder=decoder.identity, exits=exits,
        set=dev.directory.name, margin=margin, threshold=threshold, thresholds=tried, curves=curves,
    )  # fmt: skip


def exits_of(experiment: Experiment) -> tuple[int, ...]:
    """Return the exits of a model: its taps and the last layer; raise a ``UserError`` if it has one only."""
    exits = tuple(sorted(set(experiment.config.model.exits)))
    if len(exits) == 1:
        raise UserError(f"{experiment.path}: a model without taps has one exit; train it with model.taps")
    return exits


def chosen_threshold(experiment: Experiment) -> float:
    """Return the threshold of early_exit.json; raise a ``UserError`` if it is missing or of another model."""
    path = ExperimentPaths(experiment.path).early_exit
    if not path.exists():
        raise UserError(f"{path}: is missing; run `asrprune early-exit` on a dev set, or give a threshold")
    made = EarlyExit.read(path)
    if made.model_sha256 != experiment.record.model_sha256:
        raise UserError(f"{path}: belongs to another model; run `asrprune early-exit` again, or give a threshold")
    return made.threshold


def measure(experiment: Experiment, corpus: Corpus, exits: Sequence[int], decoder: Decoder, executor: Executor) -> Measured:
    """Decode a set with transcripts at every exit. Each layer runs once."""
    parts = executor.split(sorted_batches(corpus.lengths, experiment.config.decode.max_frames))
    errors, sure = np.zeros((len(corpus), len(exits)), dtype=np.int64), np.zeros((len(corpus), len(exits)))
    work = partial(_measure, experiment, corpus, exits, executor.num_gpus, decoder)
    for index, *found in track(executor.map(work, parts), f"{corpus.directory.name}, {len(exits)} exits", len(parts)):
        errors[index], sure[index] = found
    words = sum(len(text.split()) for text in corpus.texts)
    return Measured(tuple(exits), errors, sure, np.asarray(corpus.lengths), words)


def _measure(
    experiment: Experiment, corpus: Corpus, exits: Sequence[int], num_gpus: int, decoder: Decoder, batches: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the indices of utterances (N,), and their errors and confidences at each exit, (N, E)."""
    runner, keeps = Runner.of(experiment, num_gpus), [tuple(range(1, exit + 1)) for exit in exits]
    errors: list[list[list[int]]] = []
    sure: list[np.ndarray] = []
    for batch in runner.batches(corpus, batches):
        references = [corpus.texts[i].split() for i in batch.index]
        made = [emissions for _, emissions in runner.emissions(batch.features, batch.lens, keeps)]
        paths = [decoder.decode(emissions.log_probs, emissions.lens) for emissions in made]
        labels = [[path.labels for path in found] for found in paths]
        errors.append([word_errors(found, references, experiment.tokenizer) for found in labels])
        sure.append(np.stack([confidence(emissions).cpu().numpy() for emissions in made]))
    return np.concatenate(batches), np.concatenate(errors, axis=1).T, np.concatenate(sure, axis=1).T
