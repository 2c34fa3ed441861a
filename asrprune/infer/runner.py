"""Running the sub-models of one trained model: device, precision and batches are decided here, and nowhere else."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from asrprune.data.dataset import Batch, Corpus
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.infer.prefix_tree import Streams, run_together
from asrprune.model.ctc_model import CtcModel, Emissions
from asrprune.runtime.hardware import inference, pick_device


class Runner:
    """A model in eval mode, on its device, computing in its precision."""

    def __init__(self, model: CtcModel, device: torch.device, precision: str, max_frames: int = 0) -> None:
        """Put the model into eval mode.

        Args:
            model: the full model, on ``device``.
            device: where it computes.
            precision: auto, float32 or bf16.
            max_frames: sub-models go through a layer together if they have no more (padded) feature frames.
        """
        self.model = model.eval()
        self.device, self.precision = device, precision
        self.max_frames = max_frames // model.config.subsampling.factor

    @classmethod
    def of(cls, experiment: Experiment, num_gpus: int | None = None) -> "Runner":
        """The runner of an experiment, as its config says.

        Args:
            experiment: a trained model.
            num_gpus: 0: the CPU, else the GPU; None: where the model is.
        """
        device = experiment.model.cmvn_mean.device if num_gpus is None else pick_device(num_gpus)
        options = experiment.config.decode
        return cls(experiment.model.to(device), device, options.precision, options.max_frames)

    def batches(self, corpus: Corpus, batches: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Read these batches of a corpus, and put them on the device."""
        return (batch.to(self.device) for batch in corpus.loader(batches))

    def streams(self, features: Tensor, lens: Tensor, keeps: Sequence[Keep]) -> tuple[Streams, Tensor]:
        """The stream (B, T', D) of each sub-model, and the encoder frames (B,); from raw (B, T, F) features of (B,) frames."""
        with inference(self.precision, self.device):
            x, context = self.model.embed(features.to(self.device), lens.to(self.device))
            return run_together(self.model, x, context, keeps, self.max_frames), context.lens

    def emissions(self, features: Tensor, lens: Tensor, keeps: Sequence[Keep]) -> Iterator[tuple[Keep, Emissions]]:
        """The emissions of each sub-model, one after another: those of all of them may not fit into memory."""
        streams, frames = self.streams(features, lens, keeps)
        for keep in keeps:
            with inference(self.precision, self.device):
                log_probs = self.model.head(streams[keep])
            yield keep, Emissions(log_probs, frames)
