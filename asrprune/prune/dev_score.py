"""Dev scores of many sub-models in one pass: layers that they share are run once, and hopeless ones are given up."""

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


class DevScorer:
    """Scores sub-models on a dev set and counts what that costs; it is the ``Scorer`` of a search."""

    def __init__(self, model: CtcModel, corpus: Corpus, metric: str, batch_frames: int) -> None:
        """``metric`` is "wer" (percent) or "ctc" (mean loss of an utterance); the other one breaks ties."""
        assert metric in ("wer", "ctc"), metric
        self.model, self.corpus, self.metric, self.batch_frames = model.eval(), corpus, metric, batch_frames
        self.batches = sorted_batches(corpus.lengths, batch_frames)
        self.words = sum(len(text.split()) for text in corpus.texts)
        self.frames = int(corpus.lengths.sum())
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

    def _pass(self, sets: Sequence[Keep], limit: float = float("inf")) -> dict[Keep, Score]:
        totals = {keep: np.zeros(2) for keep in sets}
        with torch.inference_mode():
            for batch in track(self.corpus.loader(self.batches), f"dev scores of {len(sets)} sub-models", len(self.batches)):
                streams, lens = run_together(self.model, *self._inputs(batch), list(totals), self.batch_frames)
                self.layer_forwards += layers_run(totals) * int(batch.lens.sum()) / self.frames
                for keep in totals:
                    totals[keep] += self._errors_and_loss(streams[keep], lens, batch)
                totals = {keep: total for keep, total in totals.items() if self._score(total).primary <= limit}
                if not totals:
                    break
        return {keep: self._score(total) for keep, total in totals.items()}

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        device = self.model.cmvn_mean.device
        return batch.features.to(device), batch.lens.to(device)

    def _errors_and_loss(self, stream: Tensor, lens: Tensor, batch: Batch) -> np.ndarray:
        assert self.corpus.tokenizer is not None
        log_probs = self.model.log_probs(stream)
        references = [self.corpus.texts[i].split() for i in batch.index]
        errors = word_errors(greedy(log_probs, lens), references, self.corpus.tokenizer)
        loss = ctc_losses(log_probs, lens, batch.labels.to(lens.device), batch.label_lens.to(lens.device)).sum()
        return np.array([errors, float(loss)])

    def _score(self, totals: np.ndarray) -> Score:
        wer, loss = float(100.0 * totals[0] / self.words), float(totals[1] / len(self.corpus))
        return Score(wer, loss) if self.metric == "wer" else Score(loss, wer)
