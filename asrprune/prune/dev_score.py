"""Dev scores of all single-layer removals at once: the layers below a candidate are computed once for all candidates."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Batch, Corpus
from asrprune.decode.ctc import greedy
from asrprune.nn.model import CtcModel, ctc_losses
from asrprune.progress import track
from asrprune.prune.search import Score
from asrprune.train.dev import word_errors


class DevScorer:
    """Scores sub-models on a dev set and counts what that costs."""

    def __init__(self, model: CtcModel, corpus: Corpus, metric: str, batch_frames: int) -> None:
        """``metric`` is "wer" (percent) or "ctc" (mean loss of an utterance); the other one breaks ties."""
        assert metric in ("wer", "ctc"), metric
        self.model, self.corpus, self.metric = model.eval(), corpus, metric
        self.batches = sorted_batches(corpus.lengths, batch_frames)
        self.words = sum(len(text.split()) for text in corpus.texts)
        self.layer_forwards = 0  # layers run over the whole dev set
        self.naive_layer_forwards = 0  # if every candidate had been run from the bottom

    def score(self, keep: tuple[int, ...]) -> Score:
        """Score of one sub-model."""
        self.layer_forwards += len(keep)
        self.naive_layer_forwards += len(keep)
        totals = np.zeros(2)
        with torch.inference_mode():
            for batch in self._batches(f"dev score of {len(keep)} layers"):
                x, lens = self._embed(batch)
                totals += self._errors_and_loss(self.model.run(x, lens, keep).x, lens, batch)
        return self._score(totals)

    def score_removals(self, keep: tuple[int, ...]) -> Mapping[int, Score]:
        """Score of ``keep`` without layer l, for each l in it.

        The stream below l is shared: n layers cost n (n - 1) / 2 + n - 1 layer-forwards instead of n (n - 1).
        """
        count = len(keep)
        self.layer_forwards += count * (count - 1) // 2 + count - 1
        self.naive_layer_forwards += count * (count - 1)
        totals = {layer: np.zeros(2) for layer in keep}
        with torch.inference_mode():
            for batch in self._batches(f"removing one of {count} layers"):
                stream, lens = self._embed(batch)
                below = 0
                for position, layer in enumerate(keep):
                    above = keep[position + 1 :]
                    totals[layer] += self._errors_and_loss(self.model.run(stream, lens, above, below).x, lens, batch)
                    if above:
                        stream, below = self.model.run(stream, lens, (layer,), below).x, layer
        return {layer: self._score(total) for layer, total in totals.items()}

    def _batches(self, label: str) -> Iterator[Batch]:
        return track(self.corpus.loader(self.batches), label, len(self.batches))

    def _embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        device = self.model.cmvn_mean.device
        return self.model.encoder.embed(self.model.normalise(batch.features.to(device)), batch.lens.to(device))

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
