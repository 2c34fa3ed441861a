"""Dev scores of many sub-models in one pass: layers that they share are run once, and hopeless ones are given up."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Batch, Corpus
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.infer.prefix_tree import layers_run
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import Emissions
from asrprune.model.head import ctc_losses
from asrprune.prune.dev_score import DevScore
from asrprune.runtime.executor import Executor
from asrprune.runtime.progress import track
from asrprune.scoring.wer import word_errors

FEWEST_BATCHES = 20  # after each of which sub-models can be given up
METRICS = ("wer", "ctc")  # columns of what is counted: errors and loss


@dataclass(frozen=True)
class Share:
    """Batches for one process."""

    batches: Sequence[np.ndarray]
    keeps: Sequence[Keep]
    limit: float  # a sub-model with more errors (loss) in this share alone is given up


@dataclass(frozen=True)
class ShareCounts:
    """The result of a share."""

    index: np.ndarray  # (N,) positions in the corpus
    made: dict[Keep, np.ndarray]  # (N, 2) errors and losses; without the sub-models that were given up
    layer_frames: int  # layers that were run, times feature frames


class DevScorer:
    """Scores sub-models on a dev set and counts what that costs; it is the ``Scorer`` of a search."""

    def __init__(
        self, experiment: Experiment, corpus: Corpus, metric: str, executor: Executor, decoder: Decoder = GREEDY
    ) -> None:
        """``metric`` is "wer" (percent) or "ctc" (mean loss of an utterance); the other one breaks ties."""
        self.corpus, self.executor, self.column = corpus, executor, METRICS.index(metric)
        self.work = partial(count_errors, experiment, corpus, self.column, executor.num_gpus, decoder)
        self.frames = int(corpus.lengths.sum())
        self.batch_frames = min(experiment.config.decode.max_frames, self.frames // FEWEST_BATCHES)
        self.batches = sorted_batches(corpus.lengths, self.batch_frames)
        self.words = sum(len(text.split()) for text in corpus.texts)
        self.layer_forwards = 0.0  # layers run over the whole dev set; a part of it counts as a part
        self.naive_layer_forwards = 0  # if every sub-model had been run from the bottom, and to the end

    def __call__(self, keeps: Sequence[Keep], best: int | None = None) -> dict[Keep, DevScore]:
        """Scores of the sub-models of the kept layers.

        Args:
            keeps: one or more; the more promising come first.
            best: how many of the lowest scores are wanted: the others may be missing, as they are given up where they have more
                errors (with "ctc" loss) than the worst of the first ``best`` of ``keeps`` has in all. None: all are wanted.
        """
        self.naive_layer_forwards += sum(map(len, keeps))
        if self.executor.restarts:  # which takes longer than what could be given up
            best = None
        counts = self._pass(keeps[:best])
        if best is not None:
            counts |= self._pass(keeps[best:], max(map(self._total, counts.values())))
        return {keep: self._score(found) for keep, found in counts.items()}

    def _pass(self, keeps: Sequence[Keep], limit: float = math.inf) -> dict[Keep, np.ndarray]:
        """Errors and losses of all utterances, (N, 2), by each sub-model that is not given up."""
        counts = {keep: np.zeros((len(self.corpus), 2)) for keep in keeps}
        parts = self.executor.split(self.batches)

        def shares() -> Iterator[Share]:  # of those that are left when there is a process for it
            for batches in parts:
                if counts:
                    yield Share(batches, tuple(counts), limit)

        for counted in track(self.executor.map(self.work, shares()), f"dev scores of {len(keeps)} sub-models", len(parts)):
            self.layer_forwards += counted.layer_frames / self.frames
            counts = {keep: found for keep, found in counts.items() if keep in counted.made}
            for keep, found in counts.items():
                found[counted.index] = counted.made[keep]
            counts = {keep: found for keep, found in counts.items() if self._total(found) <= limit}
        if limit == math.inf:
            self._hard_ones_first(counts[keeps[0]][:, self.column])
        return counts

    def _hard_ones_first(self, penalty: np.ndarray) -> None:
        """Batches that begin with the utterances that have nine tenths of a sub-model's errors (loss) in the least time.

        Other sub-models fail on much the same ones, so that what is hopeless shows early.
        """
        lengths = self.corpus.lengths
        order = np.argsort(-penalty / np.maximum(lengths, 1), kind="stable")
        count = int(np.searchsorted(penalty[order].cumsum(), 0.9 * penalty.sum())) + 1
        parts = np.sort(order[:count]), np.sort(order[count:])
        self.batches = [part[batch] for part in parts for batch in sorted_batches(lengths[part], self.batch_frames)]

    def _total(self, found: np.ndarray) -> float:
        return float(found[:, self.column].sum())

    def _score(self, found: np.ndarray) -> DevScore:
        errors, loss = found.sum(axis=0)
        wer_and_loss = float(100.0 * errors / self.words), float(loss / len(self.corpus))
        return DevScore(wer_and_loss[self.column], wer_and_loss[1 - self.column])


def count_errors(
    experiment: Experiment, corpus: Corpus, column: int, num_gpus: int, decoder: Decoder, share: Share
) -> ShareCounts:
    """Count the errors and losses of a share of the batches.

    Args:
        experiment: the full model.
        corpus: the dev set, with transcripts.
        column: what the share's limit is of, 0: errors, 1: loss.
        num_gpus: 1: the GPU, 0: the CPU.
        decoder: makes labels of emissions.
        share: batches and sub-models.
    """
    runner = Runner.of(experiment, num_gpus)
    index, start, layer_frames = np.concatenate(share.batches), 0, 0
    made = {keep: np.zeros((len(index), 2)) for keep in share.keeps}
    for batch in runner.batches(corpus, share.batches):
        layer_frames += layers_run(made) * int(corpus.lengths[batch.index].sum())
        for keep, emissions in runner.emissions(batch.features, batch.lens, list(made)):
            made[keep][start : start + len(batch.index)] = _errors_and_losses(emissions, batch, corpus, decoder)
        made = {keep: found for keep, found in made.items() if found[:, column].sum() <= share.limit}
        start += len(batch.index)
        if not made:
            break
    return ShareCounts(index, made, layer_frames)


def _errors_and_losses(emissions: Emissions, batch: Batch, corpus: Corpus, decoder: Decoder) -> np.ndarray:
    """Errors and CTC loss of each utterance: (B, 2)."""
    assert corpus.tokenizer is not None
    paths = decoder.decode(emissions.log_probs, emissions.lens)
    errors = word_errors([path.labels for path in paths], [corpus.texts[i].split() for i in batch.index], corpus.tokenizer)
    losses = ctc_losses(emissions.log_probs, emissions.lens, batch.labels, batch.label_lens)
    return np.stack([errors, losses.cpu().numpy()], axis=1)
