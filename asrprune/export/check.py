"""The check of an exported file: onnxruntime must give the numbers of torch at every depth, for any length and batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asrprune.config.lengths import min_frames
from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.export.session import Session
from asrprune.features.fbank import UNIT_SCALE
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import Emissions
from asrprune.runtime.errors import UserError

TOLERANCE = 1e-3  # of log-probabilities; the largest difference seen in float32 is 1e-5
LENGTHS = (1, 57, 93, 200, 333)  # feature frames
BATCHES = (1, 4)


class Check:
    """A comparison of a file with the model that it was made from."""

    def __init__(self, experiment: Experiment, path: Path, keeps: Sequence[Keep], any_depth: bool) -> None:
        """Load the file.

        Args:
            experiment: the model.
            path: the exported file.
            keeps: the layers of each depth.
            any_depth: whether the file has all layers, and an input that says which of them run.
        """
        self.experiment, self.path, self.keeps, self.any_depth = experiment, path, keeps, any_depth
        self._runner = Runner(experiment.model, torch.device("cpu"), "float32")
        self._session = Session(path)

    def numbers(self) -> float:
        """Compare the log-probabilities of noise; return the largest difference.

        Raises:
            UserError: the file gives other numbers.
        """
        worst = 0.0
        for features, lens in _noise(self.experiment):
            for _, ours, log_probs, frames in self._both(features, lens):
                if frames.tolist() != ours.lens.tolist():
                    raise self._wrong(f"it has {frames.tolist()} encoder frames instead of {ours.lens.tolist()}")
                worst = max(worst, _difference(log_probs, ours.log_probs, frames))
        if not worst <= TOLERANCE:
            raise self._wrong(f"log-probabilities differ from those of torch by up to {worst:.3g}, more than {TOLERANCE}")
        return worst

    def texts(self, dev: Path, count: int) -> int:
        """Compare the greedy labels of the first ``count`` utterances of a data directory; return how many there were.

        Raises:
            UserError: an utterance has other labels.
        """
        corpus = Corpus(dev, None)
        chosen = np.arange(min(count, len(corpus)))
        batches = sorted_batches(corpus.lengths[chosen], self.experiment.config.decode.max_frames)
        for batch in corpus.loader([chosen[part] for part in batches]):
            for keep, emissions, log_probs, frames in self._both(batch.features, batch.lens):
                ours = GREEDY.decode(emissions.log_probs, emissions.lens)
                theirs = GREEDY.decode(log_probs, frames)
                for index, a, b in zip(batch.index, ours, theirs, strict=True):
                    if a.labels != b.labels:
                        layers = ",".join(map(str, keep))
                        raise self._wrong(f"with layers {layers} the text of {corpus.ids[index]} differs from that of torch")
        return len(chosen)

    def _both(self, features: Tensor, lens: Tensor) -> Iterator[tuple[Keep, Emissions, np.ndarray, np.ndarray]]:
        """Yield the layers of each depth, the emissions in torch, and the log-probabilities and lengths of the file."""
        unit = (features - UNIT_SCALE).numpy()
        for keep, emissions in self._runner.emissions(features, lens, self.keeps):
            yield keep, emissions, *self._session.run(unit, lens.numpy(), keep if self.any_depth else None)

    def _wrong(self, what: str) -> UserError:
        return UserError(
            f"{self.path}: in onnxruntime {what}; nothing is written; the versions of constraints.txt are known to work"
        )


def _noise(experiment: Experiment) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches (B, T, F) of noise with the mean and the spread of the features, and the lengths (B,)."""
    model, generator = experiment.model, torch.Generator().manual_seed(0)
    for frames in LENGTHS:
        for utterances in BATCHES:
            noise = torch.randn(utterances, frames, len(model.cmvn_mean), generator=generator)
            shortest = max(1, frames // 2, min(frames, min_frames(model.config.subsampling.factor)))
            yield noise / model.cmvn_scale + model.cmvn_mean, torch.linspace(frames, shortest, utterances).long()


def _difference(ours: np.ndarray, theirs: Tensor, lens: np.ndarray) -> float:
    """Return the largest difference on real frames; NaN if one is not a number."""
    return max((float(np.abs(ours[i, :n] - theirs[i, :n].numpy()).max()) for i, n in enumerate(lens) if n), default=0.0)
