"""The thresholds of early exit: chosen on a dev set, with the layers and the WER that follow on any set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.decode.decoder import Decoder, warn_of_thresholds
from asrprune.decode.one_piece import check_corpora
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.store import Experiment
from asrprune.infer.early_exit import confidence
from asrprune.infer.runner import Runner
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, Executor
from asrprune.runtime.progress import track
from asrprune.runtime.records import Record
from asrprune.scoring.wer import word_errors

_OR = "or give --exit-threshold (exit_threshold in Python)"
NEVER = math.nextafter(1.0, 2.0)  # a threshold that no confidence reaches
_NORMAL_95 = 1.645  # one-sided
PRICES = (0.0, *np.geomspace(1e-3, 100.0, 80).tolist())  # of a layer, in points of WER


class Point(Record):
    """The cost and the result of decoding a set: mean layers per frame, WER in percent."""

    layers: float
    wer: float


class Curve(Record):
    """The points of a set: one for each price, one for each exit if all utterances end there, and the chosen one."""

    by_price: tuple[Point, ...]
    by_exit: tuple[Point, ...]
    chosen: Point


class EarlyExit(Record):
    """early_exit.json: the thresholds that were chosen on a dev set, and the curves of that set and of others."""

    made_by: ClassVar[str] = "`asrprune early-exit`"
    format: Literal[1]
    model_sha256: str
    decoder: str
    exits: tuple[int, ...]
    set: str
    margin: float  # points of WER
    thresholds: tuple[float, ...]  # of all exits but the last one
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Measured:
    """Every utterance of a set at every exit: U utterances, E exits."""

    exits: tuple[int, ...]
    errors: np.ndarray  # (U, E)
    confidence: np.ndarray  # (U, E), 0..1
    frames: np.ndarray  # (U,)
    words: int

    def at(self, thresholds: Sequence[float]) -> Point:
        """Return the result if each utterance ends at the first exit that is sure enough.

        ``thresholds``: how sure each exit but the last one must be.
        """
        return self._point(self._exit(thresholds))

    def _exit(self, thresholds: Sequence[float]) -> np.ndarray:
        """Return the index of the exit at which each utterance ends: (U,)."""
        return (self.confidence >= np.array([*thresholds, 0.0])).argmax(axis=1)

    def worst(self, thresholds: Sequence[float]) -> float:
        """Return the one-sided 95 % bound of the WER minus the WER of all layers, in points.

        The bound assumes a normal distribution, over utterances drawn at random.
        """
        more = self._errors(self._exit(thresholds)) - self.errors[:, -1]
        return float(100.0 * (more.sum() + _NORMAL_95 * math.sqrt(len(more)) * more.std()) / self.words)

    def ending_at(self, number: int) -> Point:
        """Return the result if all utterances end at the exit with this index."""
        return self._point(np.full(len(self.frames), number))

    def _errors(self, chosen: np.ndarray) -> np.ndarray:
        """Return the errors of each utterance (U,) at the exit with the index in ``chosen`` (U,)."""
        return self.errors[np.arange(len(chosen)), chosen]

    def _point(self, chosen: np.ndarray) -> Point:
        errors = self._errors(chosen).sum()
        layers = np.average(np.array(self.exits)[chosen], weights=self.frames)
        return Point(layers=float(layers), wer=float(100.0 * errors / self.words))


def thresholds_for(dev: Measured, price: float) -> tuple[float, ...]:
    """Choose how sure each exit but the last one must be, so that WER + ``price`` * mean layers is small on a dev set.

    The thresholds are chosen from the last exit downwards, so it is known what each utterance costs if it goes on. At an exit
    the surest utterances end: as many as make the sum smallest. If that is all of them, the threshold is 0; if none, ``NEVER``.
    """
    errors, layers = 100.0 * dev.errors / dev.words, np.outer(dev.frames / dev.frames.sum(), dev.exits)
    costs = errors + price * layers  # (U, E); the sum over utterances is WER + price * mean layers
    rest, chosen = costs[:, -1], []
    for number in range(len(dev.exits) - 2, -1, -1):
        sure = dev.confidence[:, number]
        order = np.argsort(-sure, kind="stable")
        saved = np.cumsum((rest - costs[:, number])[order])
        best = int(saved.argmax())
        # in the middle between two utterances, so that rounding decides nothing
        threshold = 0.0 if best == len(order) - 1 else float(sure[order[best]] + sure[order[best + 1]]) / 2
        threshold = threshold if saved[best] > 0.0 else NEVER
        rest = np.where(sure >= threshold, costs[:, number], rest)
        chosen.append(threshold)
    return tuple(reversed(chosen))


def choose_thresholds(dev: Measured, margin: float) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """Return the thresholds with the fewest layers whose WER is hardly more than that of all layers, and all that were tried.

    ``margin``: the largest one-sided 95 % bound of the difference, in points of WER. The bound counts, and not the difference,
    because a dev set is small, and the best of many results on it looks better than it is.
    """
    tried = [thresholds_for(dev, price) for price in PRICES] + [(NEVER,) * (len(dev.exits) - 1)]
    allowed = [thresholds for thresholds in tried if dev.worst(thresholds) <= margin]
    return min(allowed, key=lambda thresholds: dev.at(thresholds).layers), tried


def early_exit(
    experiment: Experiment,
    dev: Corpus,
    others: Sequence[Corpus],
    margin: float,
    decoder: Decoder,
    executor: Executor = HERE,
) -> EarlyExit:
    """Choose the thresholds on a dev set, and measure them on other sets.

    Args:
        experiment: a model with taps, which are its exits beside the last layer.
        dev: the set on which the thresholds are chosen.
        others: sets on which they are only measured.
        margin: points of WER that early exit may cost, see ``choose_thresholds``.
        decoder: the decoder.
        executor: runs the batches.

    Raises:
        UserError: the model has one exit only, or utterances are too long.
    """
    exits = exits_of(experiment)
    check_corpora(experiment, dev, *others)
    measured = {corpus.directory.name: measure(experiment, corpus, exits, decoder, executor) for corpus in (dev, *others)}
    chosen, tried = choose_thresholds(measured[dev.directory.name], margin)
    curves = {
        name: Curve(
            by_price=tuple(found.at(each) for each in tried),
            by_exit=tuple(found.ending_at(number) for number in range(len(exits))),
            chosen=found.at(chosen),
        )
        for name, found in measured.items()
    }
    return EarlyExit(
        format=1, model_sha256=experiment.record.model_sha256, decoder=decoder.identity, exits=exits,
        set=dev.directory.name, margin=margin, thresholds=chosen, curves=curves,
    )  # fmt: skip


def exits_of(experiment: Experiment) -> tuple[int, ...]:
    """Return the exits of a model: its taps and the last layer; raise a ``UserError`` if it has one only."""
    exits = tuple(sorted(set(experiment.config.model.exits)))
    if len(exits) == 1:
        raise UserError(
            f"{experiment.path}: a model without taps has one exit; train it with model.taps, or keep a layer with a tap when"
            " you prune it"
        )
    return exits


def chosen_thresholds(experiment: Experiment, decoder: str | None = None) -> EarlyExit:
    """Return early_exit.json; warn if its thresholds were chosen with another decoder than the one of this identity.

    Raises:
        UserError: the file is missing, or of another model or other exits.
    """
    path = ExperimentPaths(experiment.path).early_exit
    if not path.exists():
        raise UserError(f"{path}: is missing; run `asrprune early-exit` on a dev set, {_OR}")
    made = EarlyExit.read(path)
    if made.model_sha256 != experiment.record.model_sha256:
        raise UserError(f"{path}: belongs to another model; run `asrprune early-exit` again, {_OR}")
    exits = exits_of(experiment)
    if made.exits != exits or len(made.thresholds) != len(exits) - 1:
        raise UserError(
            f"{path}: has {len(made.thresholds)} thresholds for the exits {_listed(made.exits)}, but the model has the exits"
            f" {_listed(exits)}, of which all but the last one need a threshold; run `asrprune early-exit` again"
        )
    if decoder is not None:
        warn_of_thresholds(path, made.decoder, decoder)
    return made


def _listed(exits: Sequence[int]) -> str:
    return ",".join(map(str, exits))


def measure(experiment: Experiment, corpus: Corpus, exits: Sequence[int], decoder: Decoder, executor: Executor) -> Measured:
    """Decode a set with transcripts at every exit. Each layer runs once."""
    parts = executor.split(sorted_batches(corpus.lengths, experiment.config.decode.max_frames))
    errors, sure = np.zeros((len(corpus), len(exits)), dtype=np.int64), np.zeros((len(corpus), len(exits)))
    work = partial(_measure, experiment.decided(executor.num_gpus), corpus, exits, executor.num_gpus, decoder)
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
    sure: list[list[np.ndarray]] = []
    for batch in runner.batches(corpus, batches):
        references = [corpus.texts[i].split() for i in batch.index]
        errors.append([])
        sure.append([])
        for _, emissions in runner.emissions(batch.features, batch.lens, keeps):  # one at a time: all may not fit into memory
            paths = decoder.decode(emissions.log_probs, emissions.lens)
            errors[-1].append(word_errors([path.labels for path in paths], references, experiment.tokenizer))
            sure[-1].append(confidence(emissions).cpu().numpy())
    return np.concatenate(batches), np.concatenate(errors, axis=1).T, np.concatenate(sure, axis=1).T
