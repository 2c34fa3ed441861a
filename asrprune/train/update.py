"""One update of a training: losses, gradients, the step of the optimiser. Random numbers depend on (seed, step) only."""

import logging
import math
from collections.abc import Sequence
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from asrprune.config.schema import Config
from asrprune.data.dataset import Batch, Corpus
from asrprune.data.tables import some
from asrprune.features.augment import change_vocal_tract, change_volume, spec_augment
from asrprune.model.ctc_model import CtcModel
from asrprune.model.stochastic_depth import branch_scales, draw_depth, draw_layers, drop_probabilities, grown_depth
from asrprune.runtime.errors import UserError
from asrprune.runtime.seeds import mix
from asrprune.train.optim import learning_rate, make_optimizer, set_learning_rate
from asrprune.train.window import Window

logger = logging.getLogger(__name__)
_MOST_SKIPPED = 5  # updates in a row


class Updater:
    """The model and the optimiser of a training, and how they are updated."""

    def __init__(self, config: Config, model: CtcModel, corpus: Corpus, fabric: Fabric, total_steps: int) -> None:
        """Make the optimiser.

        Args:
            config: all numbers.
            model: the model, on the CPU.
            corpus: the training set.
            fabric: devices and precision.
            total_steps: updates of the whole training, for a schedule that needs their number.
        """
        self.config, self.corpus, self.fabric, self.total_steps = config, corpus, fabric, total_steps
        self.skipped = 0  # updates skipped in a row, because the gradient was not finite
        depth = config.model.stochastic_depth
        self.probabilities = drop_probabilities(config.model.num_layers, depth.rate, depth.mode)
        self.model = fabric.setup_module(model)
        self.optimizer = cast(Optimizer, fabric.setup_optimizers(make_optimizer(model, config.train)))  # after FSDP's split

    @property
    def module(self) -> CtcModel:
        """The model without fabric's wrapper."""
        return cast(CtcModel, self.model.module)

    def update(self, step: int, batches: Sequence[Batch], sizes: Sequence[int], window: Window) -> None:
        """Do update ``step`` with the clipped gradient of the mean loss over the utterances of all micro-batches.

        Args:
            step: 1, 2, ...
            batches: the share of this process of each micro-batch.
            sizes: utterances of each micro-batch, of all processes together.
            window: where the sums of the update are added.
        """
        rank, world = self.fabric.global_rank, self.fabric.world_size
        torch.manual_seed(mix(self.config.seed, step, 1 + rank))  # dropout and SpecAugment
        depth = self._draw_depth(step)
        keep = [layer for layer in draw_layers(self.probabilities, self.config.seed, step) if layer <= depth]
        utterances = sum(sizes)
        self.set_learning_rate(step)
        self._clear_gradients(depth)
        sums = torch.zeros_like(window.losses)
        for number, (batch, size) in enumerate(zip(batches, sizes, strict=True), start=1):
            counts = int(rank < size)  # 0 if this process only has a placeholder, see ``share``
            with self.fabric.no_backward_sync(self.model, enabled=world > 1 and number < len(batches)):
                losses = counts * self.losses(batch, keep, depth)
                self.fabric.backward(self.module.total(losses) / utterances * world)  # DDP takes the mean over processes
            sums[: len(losses)] += losses.detach()
            window.frames += counts * int(self.corpus.lengths[batch.index].sum())  # batch.lens would wait for the GPU
        for layer in self.module.encoder.layers[depth:]:  # without gradient their weights and moments stay as they are
            layer.zero_grad(set_to_none=True)
        norm = self._clip()
        if math.isfinite(norm):
            self.optimizer.step()
            self.skipped = 0
            window.losses += sums
            window.reached[: len(losses)] += utterances
            window.utterances += utterances
            window.grad_norm = norm
        else:  # its losses may be NaN, which would make the mean of the window NaN
            self._skip(step, [self.corpus.ids[int(i)] for batch in batches for i in batch.index])
        window.layers_run += len(keep)
        window.ended_at[depth] += 1

    def set_learning_rate(self, step: int) -> None:
        """Give the optimiser the learning rate of update ``step``."""
        set_learning_rate(self.optimizer, learning_rate(step, self.total_steps, self.config.train.schedule))

    def losses(self, batch: Batch, keep: list[int], depth: int | None = None) -> Tensor:
        """Return the loss of each exit (E,), summed over the batch, which is augmented: twice, for ``train.consistency``."""
        options, consistency = self.config.augment, self.config.train.consistency
        features = self.module.normalise(change_vocal_tract(batch.features, self.config.frontend, options))
        features = features.repeat(self.config.train.views, 1, 1)  # two views of the same vocal tract
        features = spec_augment(change_volume(features, self.module.cmvn_scale, options), options)
        scales = branch_scales(self.probabilities)
        losses = self.model(features, batch.lens, batch.labels, batch.label_lens, keep, scales, depth, consistency)
        return losses + zero_of_unused(self.module, keep) if isinstance(self.fabric.strategy, DDPStrategy) else losses

    def try_out(self, batch: Batch) -> None:
        """Compute the gradient of all layers without an update.

        So a lack of memory shows at once. Afterwards every layer has a gradient of 0, so a layer that the first update skips is
        treated as in any later update.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        self.fabric.backward(self.module.total(self.losses(batch, list(range(1, self.config.model.num_layers + 1)))))
        self.optimizer.zero_grad(set_to_none=False)
        for buffer, before in buffers:  # BatchNorm must not count these batches: a resumed run would count them twice
            buffer.copy_(before)

    def _skip(self, step: int, utterances: list[str]) -> None:
        """Report an update that is skipped because its gradient is not finite; end the training after several in a row."""
        self.skipped += 1
        what = f"step {step}: the gradient is not finite; utterances: {some(utterances)}"
        if self.skipped == _MOST_SKIPPED:
            raise UserError(
                f"{what}; {self.skipped} updates in a row were skipped, so the model learns nothing; check the features of"
                " these utterances, or lower train.schedule.peak"
            )
        logger.warning("%s; the update is skipped", what)

    def _clear_gradients(self, depth: int) -> None:
        """Set the gradients of layers up to ``depth`` to 0, not None: skipped layers are then updated as with DDP."""
        self.optimizer.zero_grad(set_to_none=False)
        for parameter in self.module.encoder.layers[:depth].parameters():
            if parameter.grad is None:  # the layer was above the depth of the last update
                parameter.grad = torch.zeros_like(parameter)

    def _draw_depth(self, step: int) -> int:
        """Draw the exit at which this update ends. The first update runs all layers, so that all weights get moments."""
        model = self.config.model
        if step == 1:
            return model.num_layers
        drawn = draw_depth(model.truncated, model.num_layers, self.config.seed, step)
        return min(drawn, grown_depth(model.grow, model.num_layers, step))

    def _clip(self) -> float:
        """Clip the gradient; return its norm before that. This waits for the GPU; the optimiser then runs asynchronously."""
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.config.train.grad_clip, error_if_nonfinite=False
        )
        assert norm is not None
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # FSDP: a sum over the processes


def zero_of_unused(model: CtcModel, keep: Sequence[int]) -> Tensor:
    """Return 0 times the sum of the parameters that an update can leave unused: DDP waits for the gradient of each of them."""
    parts = [layer for number, layer in enumerate(model.encoder.layers, start=1) if number not in keep]
    parts += [] if model.condition is None else [model.condition]
    return 0.0 * sum((p.sum() for part in parts for p in part.parameters()), torch.zeros(()))
