"""Running the sub-models of a trained model. Device, precision and batches of inference are chosen here only."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from asrprune.data.dataset import Batch, Corpus
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.infer.prefix_tree import Streams, run_together
from asrprune.model.ctc_model import Emissions
from asrprune.model.layered import LayeredModel
from asrprune.runtime.hardware import inference, pick_device


class Runner:
    """A model in eval mode, with a device and a precision."""

    def __init__(self, model: LayeredModel, device: torch.device, precision: str, max_frames: int = 0) -> None:
        """Put the model into eval mode.

        Args:
            model: the full model, on ``device``.
            device: the device of the model.
            precision: auto, float32 or bf16.
            max_frames: several sub-models share one call of a layer if they have at most so many feature frames in total.
        """
        model.eval()
        self.model = model
        self.device, self.precision = device, precision
        self.max_frames = max_frames // model.factor

    @classmethod
    def of(cls, experiment: Experiment, num_gpus: int | None = None) -> "Runner":
        """Make the runner of an experiment with the settings of its config.

        ``num_gpus``: 0: the CPU; 1 or more: the GPU; None: the current device of the model.
        """
        device = experiment.model.device if num_gpus is None else pick_device(num_gpus)
        options = experiment.config.decode
        return cls(experiment.model.to(device), device, options.precision, options.max_frames)

    def batches(self, corpus: Corpus, batches: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Yield these batches of a corpus on the device."""
        return (batch.to(self.device) for batch in corpus.loader(batches))

    def streams(self, features: Tensor, lens: Tensor, keeps: Sequence[Keep]) -> tuple[Streams, Tensor]:
        """Return the stream (B, T', D) of each sub-model and the encoder frames (B,), for raw (B, T, F) features."""
        with inference(self.precision, self.device):
            x, context = self.model.embed(features.to(self.device), lens.to(self.device))
            return run_together(self.model, x, context, keeps, self.max_frames), context.lens

    def emissions(self, features: Tensor, lens: Tensor, keeps: Sequence[Keep]) -> Iterator[tuple[Keep, Emissions]]:
        """Yield the emissions of each sub-model, one at a time, because all of them may not fit into memory."""
        streams, frames = self.streams(features, lens, keeps)
        for keep in keeps:
            with inference(self.precision, self.device):
                log_probs = self.model.head(streams[keep])
            yield keep, Emissions(log_probs, frames)
