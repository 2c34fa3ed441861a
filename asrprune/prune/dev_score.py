"""Dev scores of many sub-models in one pass: layers that they share are run once, and hopeless ones are given up."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Batch, Corpus
from asrprune.decode.ctc import greedy
from asrprune.nn.model import CtcModel, ctc_losses
from asrprune.progress import track
from asrprune.prune.search import Keep, Score
from asrprune.train.dev import word_errors

Streams = dict[Keep, Tensor]  # kept layers so far -> (B, T', D), what they made of a batch


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
                for keep, stream, lens in self._run(batch, list(totals)):
                    totals[keep] += self._errors_and_loss(stream, lens, batch)
                totals = {keep: total for keep, total in totals.items() if self._score(total).primary <= limit}
                if not totals:
                    break
        return {keep: self._score(total) for keep, total in totals.items()}

    def _run(self, batch: Batch, sets: Sequence[Keep]) -> Iterator[tuple[Keep, Tensor, Tensor]]:
        """The stream of every sub-model and its lengths, layer by layer: sub-models that begin alike share theirs so far."""
        device = self.model.cmvn_mean.device
        x, lens = self.model.encoder.embed(self.model.normalise(batch.features.to(device)), batch.lens.to(device))
        streams: Streams = {(): x}
        share = float(batch.lens.sum()) / self.frames
        for layer in range(1, self.model.config.num_layers + 1):
            wanted = dict.fromkeys(tuple(kept for kept in keep if kept <= layer) for keep in sets)
            grown = [prefix for prefix in wanted if layer in prefix]
            self.layer_forwards += share * len(grown)
            streams = {prefix: streams[prefix] for prefix in wanted if layer not in prefix} | self._grow(streams, grown, lens)
        for keep in sets:
            yield keep, streams[keep], lens

    def _grow(self, streams: Streams, grown: Sequence[Keep], lens: Tensor) -> Streams:
        """Run the last layer of each prefix, several in one call as far as the frame budget allows."""
        alike: dict[int, list[Keep]] = defaultdict(list)  # by the layer before: self-conditioning depends on it
        for prefix in grown:
            alike[prefix[-2] if len(prefix) > 1 else 0].append(prefix)
        made: Streams = {}
        for after, prefixes in alike.items():
            count = max(1, self.batch_frames // (4 * streams[prefixes[0][:-1]].shape[1] * len(lens)))
            for group in (prefixes[i : i + count] for i in range(0, len(prefixes), count)):
                x = torch.cat([streams[prefix[:-1]] for prefix in group])
                x = self.model.run(x, lens.repeat(len(group)), (group[0][-1],), after).x
                made.update(zip(group, x.split(len(lens)), strict=True))
        return made

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
