"""Dev scores of many sub-models in one pass: layers that they share are run once, and hopeless ones are given up."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Batch, Corpus
from asrprune.decode.ctc import greedy
from asrprune.decode.together import layers_run, run_together
from asrprune.nn.model import CtcModel, ctc_losses
from asrprune.progress import track
from asrprune.prune.plan import Keep
from asrprune.prune.search import Score
from asrprune.train.dev import word_errors

FEWEST_BATCHES = 20  # after each of which sub-models can be given up


class DevScorer:
    """Scores sub-models on a dev set and counts what that costs; it is the ``Scorer`` of a search."""

    def __init__(self, model: CtcModel, corpus: Corpus, metric: str, max_frames: int) -> None:
        """``metric`` is "wer" (percent) or "ctc" (mean loss of an utterance); the other one breaks ties."""
        assert metric in ("wer", "ctc"), metric
        self.model, self.corpus, self.metric = model.eval(), corpus, metric
        self.frames = int(corpus.lengths.sum())
        self.max_frames = max_frames
        self.batch_frames = min(max_frames, self.frames // FEWEST_BATCHES)
        self.batches = sorted_batches(corpus.lengths, self.batch_frames)
        self.words = sum(len(text.split()) for text in corpus.texts)
        self.layer_forwards = 0.0  # layers run over the whole dev set; a part of it counts as a part
        self.naive_layer_forwards = 0  # if every sub-model had been run from the bottom, and to the end

    def __call__(self, sets: Sequence[Keep], best: int | None = None) -> dict[Keep, Score]:
        """Scores of the sub-models of the kept layers.

        Args:
            sets: one or more; the more promising come first.
            best: how many of the lowest scores are wanted: the others may be missing, as they are given up where they have more
                errors (with "ctc" loss) than the worst of the first ``best`` of ``sets`` has in all. None: all are wanted.
        """
        self.naive_layer_forwards += sum(map(len, sets))
        if best is None:
            return self._pass(sets)
        first = self._pass(sets[:best])
        return {**first, **self._pass(sets[best:], max(score.primary for score in first.values()))}

    def _pass(self, sets: Sequence[Keep], limit: float = math.inf) -> dict[Keep, Score]:
        counts = {keep: np.zeros((len(self.corpus), 2)) for keep in sets}  # errors and loss of every utterance so far
        with torch.inference_mode():
            for batch in track(self.corpus.loader(self.batches), f"dev scores of {len(sets)} sub-models", len(self.batches)):
                streams, lens = run_together(self.model, *self._inputs(batch), list(counts), self.max_frames)
                self.layer_forwards += layers_run(counts) * int(batch.lens.sum()) / self.frames
                for keep, count in counts.items():
                    count[batch.index] = self._errors_and_losses(streams[keep], lens, batch)
                counts = {keep: count for keep, count in counts.items() if self._score(count).primary <= limit}
                if not counts:
                    break
        if limit == math.inf:
            self._hard_ones_first(counts[sets[0]][:, 0 if self.metric == "wer" else 1])
        return {keep: self._score(count) for keep, count in counts.items()}

    def _hard_ones_first(self, penalty: np.ndarray) -> None:
        """Batches that begin with the utterances that have nine tenths of a sub-model's errors (loss) in the least time.

        Other sub-models fail on much the same ones, so that what is hopeless shows early.
        """
        lengths = self.corpus.lengths
        order = np.argsort(-penalty / np.maximum(lengths, 1), kind="stable")
        count = int(np.searchsorted(penalty[order].cumsum(), 0.9 * penalty.sum())) + 1
        parts = np.sort(order[:count]), np.sort(order[count:])
        self.batches = [part[batch] for part in parts for batch in sorted_batches(lengths[part], self.batch_frames)]

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        device = self.model.cmvn_mean.device
        return batch.features.to(device), batch.lens.to(device)

    def _errors_and_losses(self, stream: Tensor, lens: Tensor, batch: Batch) -> np.ndarray:
        """(B, 2)."""
        assert self.corpus.tokenizer is not None
        log_probs = self.model.log_probs(stream)
        references = [self.corpus.texts[i].split() for i in batch.index]
        errors = word_errors(greedy(log_probs, lens), references, self.corpus.tokenizer)
        losses = ctc_losses(log_probs, lens, batch.labels.to(lens.device), batch.label_lens.to(lens.device))
        return np.stack([errors, losses.cpu().numpy()], axis=1)

    def _score(self, count: np.ndarray) -> Score:
        errors, loss = count.sum(axis=0)
        wer, mean = float(100.0 * errors / self.words), float(loss / len(self.corpus))
        return Score(wer, mean) if self.metric == "wer" else Score(mean, wer)
