"""Dev scores of many sub-models in one pass. Shared layers are run once; sub-models with too many errors are dropped early."""

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
from asrprune.prune.speakers import speakers_of
from asrprune.runtime.executor import Executor
from asrprune.runtime.progress import track
from asrprune.scoring.wer import word_errors

FEWEST_BATCHES = 20  # the smallest number of batches; a sub-model can be dropped after each batch
METRICS = ("wer", "ctc")  # the columns of the counts: errors and loss


@dataclass(frozen=True)
class Share:
    """The work of one process: batches of the dev set and sub-models."""

    batches: Sequence[np.ndarray]
    keeps: Sequence[Keep]
    limit: float  # a sub-model with more errors (or loss) in this share is dropped


@dataclass(frozen=True)
class ShareCounts:
    """The result for a share."""

    index: np.ndarray  # (N,) indices in the corpus
    made: dict[Keep, np.ndarray]  # (N, 2) errors and losses of each sub-model that was not dropped
    layer_frames: int  # number of layers run, times feature frames


class DevScorer:
    """The ``Scorer`` of a search: computes dev scores of sub-models and counts the layers that it runs."""

    def __init__(
        self, experiment: Experiment, corpus: Corpus, metric: str, executor: Executor, decoder: Decoder = GREEDY
    ) -> None:
        """Prepare the dev set; ``metric`` is "wer" (percent) or "ctc" (mean loss per utterance), the other one breaks ties."""
        self.corpus, self.executor, self.column = corpus, executor, METRICS.index(metric)
        self.work = partial(count_errors, experiment, corpus, self.column, executor.num_gpus, decoder)
        self.frames = int(corpus.lengths.sum())
        self.batch_frames = min(experiment.config.decode.max_frames, self.frames // FEWEST_BATCHES)
        self.batches = sorted_batches(corpus.lengths, self.batch_frames)
        self.words = sum(len(text.split()) for text in corpus.texts)
        self.speakers = speakers_of(corpus)
        self.num_speakers = int(self.speakers.max(initial=-1)) + 1
        self.layer_forwards = 0.0  # layer passes over the dev set; a part of the set counts as a fraction
        self.naive_layer_forwards = 0  # layer passes if every sub-model were run separately on the whole set

    def __call__(self, keeps: Sequence[Keep], best: int | None = None) -> dict[Keep, DevScore]:
        """Compute the dev scores of sub-models.

        Args:
            keeps: the layers of each sub-model, the most promising sub-model first.
            best: the number of lowest scores that the caller needs; None: all. The first ``best`` sub-models of ``keeps`` are
                scored completely. Any other one is dropped, and is missing in the result, when it has more errors (with "ctc"
                more loss) than the worst of these.
        """
        self.naive_layer_forwards += sum(map(len, keeps))
        if self.executor.restarts:  # a second pass would restart all processes, which takes longer than it saves
            best = None
        counts = self._pass(keeps[:best])
        if best is not None:
            counts |= self._pass(keeps[best:], max(map(self._total, counts.values())))
        return {keep: self._score(found) for keep, found in counts.items()}

    def _pass(self, keeps: Sequence[Keep], limit: float = math.inf) -> dict[Keep, np.ndarray]:
        """Return errors and losses of all utterances, (N, 2), for each sub-model with at most ``limit`` in total."""
        counts = {keep: np.zeros((len(self.corpus), 2)) for keep in keeps}
        parts = self.executor.split(self.batches)

        def shares() -> Iterator[Share]:  # with the sub-models that remain when a process takes the share
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
            self._order_by_errors(counts[keeps[0]][:, self.column])
        return counts

    def _order_by_errors(self, penalty: np.ndarray) -> None:
        """Put utterances into the first batches by errors (or loss) per frame, until these hold 0.9 of the total.

        Other sub-models make errors on nearly the same utterances, so bad sub-models are dropped early.
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
        by_speaker = np.bincount(self.speakers, weights=found[:, self.column])
        return DevScore(wer_and_loss[self.column], wer_and_loss[1 - self.column], tuple(by_speaker.tolist()))


def count_errors(
    experiment: Experiment, corpus: Corpus, column: int, num_gpus: int, decoder: Decoder, share: Share
) -> ShareCounts:
    """Count errors and losses of sub-models on a share of the batches.

    Args:
        experiment: the full model.
        corpus: the dev set, with transcripts.
        column: the column to which the limit applies, 0: errors, 1: loss.
        num_gpus: 0: the CPU, 1 or more: the GPU.
        decoder: the decoder.
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
    """Return the errors and the CTC loss of each utterance: (B, 2)."""
    assert corpus.tokenizer is not None
    paths = decoder.decode(emissions.log_probs, emissions.lens)
    errors = word_errors([path.labels for path in paths], [corpus.texts[i].split() for i in batch.index], corpus.tokenizer)
    losses = ctc_losses(emissions.log_probs, emissions.lens, batch.labels, batch.label_lens)
    return np.stack([errors, losses.cpu().numpy()], axis=1)
