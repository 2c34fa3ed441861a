"""The training loop. Random numbers depend on (seed, step) only, so a resumed run continues exactly."""

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from asrprune.config.schema import Config, CosineConfig
from asrprune.data.batching import epoch_batches, padding_share, sorted_batches
from asrprune.data.dataset import Batch, Corpus, feasible, write_dropped
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.weights import save_weights
from asrprune.features.augment import change_vocal_tract, change_volume, spec_augment
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import CtcModel
from asrprune.model.stochastic_depth import branch_scales, draw_depth, draw_layers, drop_probabilities
from asrprune.runtime.errors import UserError
from asrprune.runtime.progress import track
from asrprune.runtime.seeds import mix
from asrprune.train.checkpoint import (
    FORMAT,
    best_epochs,
    delete_other_epochs,
    epoch_file,
    load_state,
    restore,
    save_state,
    whole_moments,
    whole_weights,
)
from asrprune.train.dev import evaluate
from asrprune.train.journal import Journal, SilentJournal
from asrprune.train.optim import learning_rate, make_optimizer, set_learning_rate
from asrprune.train.ranks import add_up, share

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """The progress of a run. Progress, weights and optimiser moments are its whole state."""

    epoch: int = 1  # current epoch
    update: int = 0  # updates done in this epoch
    step: int = 0  # updates done in total
    epoch_loss: float = 0.0  # sum over the utterances of this epoch
    epoch_utterances: int = 0
    epoch_layers: int = 0  # layers run, summed over the updates of this epoch
    epoch_ended_at: dict[str, int] = field(default_factory=dict)  # layer -> updates of this epoch that ended at it
    seconds: float = 0.0
    records: list[dict[str, Any]] = field(default_factory=list)  # epoch, wer, loss of each finished epoch


@dataclass
class Window:
    """Sums over the updates since the last log line."""

    losses: Tensor  # (E,) loss of each exit, summed over the utterances that reach it
    reached: Tensor  # (E,) number of utterances that reach each exit
    utterances: int = 0
    frames: int = 0
    layers_run: int = 0  # summed over updates
    ended_at: Counter[int] = field(default_factory=Counter)  # layer -> updates that ended at it
    grad_norm: float = 0.0  # of the last update, before clipping
    started: float = field(default_factory=time.monotonic)


class Trainer:
    """A training run: model, optimiser, data and progress."""

    def __init__(self, config: Config, exp: Path, model: CtcModel, train: Corpus, dev: Corpus, fabric: Fabric) -> None:
        """Set up a run; ``begin`` opens its files.

        Raises:
            UserError: all utterances are too short or have no transcript; ``dropped.tsv`` lists them.
        """
        self.config, self.exp = config, exp
        self.checkpoints = ExperimentPaths(exp).checkpoints
        self.train_corpus, self.dev_corpus = train, dev
        self.fabric = fabric
        self.writes = fabric.is_global_zero  # only the first of several processes writes files
        self.probabilities = drop_probabilities(
            config.model.num_layers, config.model.stochastic_depth.rate, config.model.stochastic_depth.mode
        )
        self.kept = _feasible(train, exp, config, self.writes)
        self.total_steps = self._count_updates() if isinstance(config.train.schedule, CosineConfig) else 0
        model.all_take_part = isinstance(fabric.strategy, DDPStrategy)
        self.model = fabric.setup_module(model)
        self.optimizer = cast(Optimizer, fabric.setup_optimizers(make_optimizer(model, config.train)))  # after FSDP's split
        self.progress = Progress()
        self.journal: Journal | SilentJournal = SilentJournal()
        self.saved_at = time.monotonic()
        self.exits = [*map(str, config.model.exits)]

    def begin(self) -> None:
        """Load the state of a killed run, if there is one, and open the log."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._delete_other_epochs()  # the run may have been killed after saving and before deleting
        _tell_dropped(self.train_corpus, self.exp, self.config, self.kept, self.writes)
        if self.writes:
            self.journal = Journal(self.exp, self.progress.step, self.progress.epoch)

    def run(self) -> None:
        """Train to the last epoch."""
        self.begin()
        if self.progress.epoch <= self.config.train.epochs:
            self._try_largest_batches()
        while self.progress.epoch <= self.config.train.epochs:
            self._run_epoch()
            self._finish_epoch()
        self.journal.close()

    # -- one epoch ---------------------------------------------------------------------------------------------------

    def _updates(self, epoch: int) -> list[list[np.ndarray]]:
        """Return the updates of an epoch; each is a list of micro-batches."""
        batches = epoch_batches(self.train_corpus.lengths[self.kept], self.config.batch, self.config.seed, epoch)
        batches = [self.kept[batch] for batch in batches]
        count = self.config.batch.accumulate
        return [batches[i : i + count] for i in range(0, len(batches), count)]

    def _count_updates(self) -> int:
        """Return the number of updates of all epochs. Epochs may have slightly different numbers of batches."""
        return sum(len(self._updates(epoch)) for epoch in range(1, self.config.train.epochs + 1))

    def _run_epoch(self) -> None:
        progress = self.progress
        updates = self._updates(progress.epoch)[progress.update :]
        batches = self._load([batch for update in updates for batch in update])
        window = self._window()
        self.model.train()
        for update in track(updates, f"epoch {progress.epoch}/{self.config.train.epochs}"):
            self._update([next(batches) for _ in update], window, [len(batch) for batch in update])
            if progress.step % self.config.train.log_every_steps == 0:
                window = self._log(window)
                self._save_if_due()  # only here, where the window is empty
        if window.utterances:
            self._log(window)

    def _load(self, batches: list[np.ndarray]) -> Iterator[Batch]:
        """Yield the share of this process of each batch, read in advance, on its device."""
        own = [share(batch, self.fabric.global_rank, self.fabric.world_size) for batch in batches]
        pin = self.fabric.device.type == "cuda"
        return (b.to(self.fabric.device) for b in self.train_corpus.loader(own, self.config.train.num_workers, pin))

    def _update(self, batches: list[Batch], window: Window, sizes: list[int]) -> None:
        """Do one update with the clipped gradient of the mean loss over the utterances of all micro-batches.

        ``sizes``: utterances of each micro-batch, of all processes together.
        """
        progress = self.progress
        progress.step += 1
        progress.update += 1
        rank, world = self.fabric.global_rank, self.fabric.world_size
        torch.manual_seed(mix(self.config.seed, progress.step, 1 + rank))  # dropout and SpecAugment
        depth = self._draw_depth()
        keep = [layer for layer in draw_layers(self.probabilities, self.config.seed, progress.step) if layer <= depth]
        utterances = sum(sizes)
        set_learning_rate(self.optimizer, learning_rate(progress.step, self.total_steps, self.config.train.schedule))
        self._clear_gradients(depth)
        for number, (batch, size) in enumerate(zip(batches, sizes, strict=True), start=1):
            counts = int(rank < size)  # 0 if this process only has a placeholder, see ``share``
            with self.fabric.no_backward_sync(self.model, enabled=world > 1 and number < len(batches)):
                losses = counts * self._losses(batch, keep, depth)
                self.fabric.backward(self._module.total(losses) / utterances * world)  # DDP takes the mean over processes
            window.losses[: len(losses)] += losses.detach()
            window.frames += counts * int(self.train_corpus.lengths[batch.index].sum())  # batch.lens would wait for the GPU
        for layer in self._module.encoder.layers[
            depth:
        ]:  # without gradient the optimiser leaves their weights and moments unchanged
            layer.zero_grad(set_to_none=True)
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.config.train.grad_clip, error_if_nonfinite=False
        )
        assert norm is not None
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP: a sum over the processes
        window.grad_norm = float(norm)  # waits for the GPU; done before the optimiser step, which then runs asynchronously
        if math.isfinite(window.grad_norm):
            self.optimizer.step()
        else:
            logger.warning("step %d: the gradient is not finite; the update is skipped", progress.step)
        window.reached[: len(losses)] += utterances
        window.utterances += utterances
        window.layers_run += len(keep)
        window.ended_at[depth] += 1

    def _clear_gradients(self, depth: int) -> None:
        """Set the gradients of layers up to ``depth`` to 0, not None: skipped layers are then updated as with DDP."""
        self.optimizer.zero_grad(set_to_none=False)
        for parameter in self._module.encoder.layers[:depth].parameters():
            if parameter.grad is None:  # the layer was above the depth of the last update
                parameter.grad = torch.zeros_like(parameter)

    def _draw_depth(self) -> int:
        """Draw the exit at which this update ends. The first update runs all layers, so that all weights get moments."""
        model, step = self.config.model, self.progress.step
        return model.num_layers if step == 1 else draw_depth(model.truncated, model.num_layers, self.config.seed, step)

    def _losses(self, batch: Batch, keep: list[int], depth: int | None = None) -> Tensor:
        options = self.config.augment
        features = self._module.normalise(change_vocal_tract(batch.features, self.config.frontend, options))
        features = spec_augment(change_volume(features, self._module.cmvn_scale, options), options)
        return self.model(features, batch.lens, batch.labels, batch.label_lens, keep, branch_scales(self.probabilities), depth)

    @property
    def _module(self) -> CtcModel:
        return cast(CtcModel, self.model.module)  # without fabric's wrapper

    def _try_largest_batches(self) -> None:
        """Run the batches that need the most memory, without an update, so that a lack of memory shows at once.

        One is the batch with the most padded frames. Attention with relative positions also stores a value for each pair of
        frames, so another one is the batch with the most pairs. This also gives every layer a gradient, so that a layer that
        is skipped in the first update is treated as in any other update.
        """
        batches = [batch for update in self._updates(self.progress.epoch) for batch in update]
        lengths = self.train_corpus.lengths
        largest, pairs = (max(batches, key=lambda batch: len(batch) * int(lengths[batch].max()) ** power) for power in (1, 2))
        others = [pairs] if self._module.encoder.holds_pairs and pairs is not largest else []
        logger.info(
            "%d batches per epoch, %.1f %% of their frames are padding; largest: %d utterances x %d frames",
            len(batches), 100 * padding_share(lengths, batches), len(largest), int(lengths[largest].max()),
        )  # fmt: skip
        self.model.train()
        buffers = [(buffer, buffer.clone()) for buffer in self._module.buffers()]
        for batch in self._load([largest, *others]):
            self.fabric.backward(self._module.total(self._losses(batch, list(range(1, self.config.model.num_layers + 1)))))
            self.optimizer.zero_grad(set_to_none=False)
        for buffer, before in buffers:  # BatchNorm must not count these batches: a resumed run would count them twice
            buffer.copy_(before)

    # -- bookkeeping -------------------------------------------------------------------------------------------------

    def _window(self) -> Window:
        exits, device = len(self.exits), self.fabric.device
        return Window(torch.zeros(exits, device=device), torch.zeros(exits, device=device))

    def _log(self, window: Window) -> Window:
        """Write a log line for ``window``; return an empty window."""
        progress, seconds = self.progress, time.monotonic() - window.started
        reached = window.reached > 0  # in a short window, high exits may not be reached
        means = (add_up(window.losses, self.fabric) / window.reached)[reached]
        weights = torch.tensor(self.config.model.exit_weights, device=means.device)[reached]
        frames = float(add_up(torch.tensor(float(window.frames), device=means.device), self.fabric))
        loss = float((weights * means).sum() / weights.sum())
        progress.epoch_loss += loss * window.utterances
        progress.epoch_utterances += window.utterances
        progress.epoch_layers += window.layers_run
        ended_at = {str(depth): window.ended_at[depth] for depth in sorted(window.ended_at)}
        for depth, count in ended_at.items():
            progress.epoch_ended_at[depth] = progress.epoch_ended_at.get(depth, 0) + count
        progress.seconds += seconds
        self.journal.step({
            "step": progress.step, "epoch": progress.epoch, "loss": loss,
            "tap_losses": dict(zip(compress(self.exits, reached.tolist()), means.tolist(), strict=True)),
            "layers_run": window.layers_run, "ended_at": ended_at,
            "lr": self.optimizer.param_groups[0]["lr"], "grad_norm": window.grad_norm,
            "frames_per_s": frames / seconds, "elapsed_s": progress.seconds,
        })  # fmt: skip
        return self._window()

    def _finish_epoch(self) -> None:
        progress, options = self.progress, self.config.train
        if progress.epoch % options.dev_every_epochs == 0 or progress.epoch == options.epochs:
            self._evaluate()
        progress.epoch += 1
        progress.update, progress.epoch_loss, progress.epoch_utterances = 0, 0.0, 0
        progress.epoch_layers, progress.epoch_ended_at = 0, {}
        self._save()
        self._delete_other_epochs()

    def _evaluate(self) -> None:
        """Measure the model on the dev set; save its weights if the epoch is one of the best."""
        progress, started = self.progress, time.monotonic()
        batches = sorted_batches(self.dev_corpus.lengths, self.config.decode.max_frames)
        runner = Runner(self._module, self.fabric.device, self.config.train.precision)
        metrics = evaluate(runner, self.dev_corpus, batches, self.fabric)
        progress.seconds += time.monotonic() - started
        full, exits = self.exits[-1], len(metrics.wer)
        record = {
            "epoch": progress.epoch, "wer": metrics.wer[full], "loss": metrics.loss[full],
            "mean_wer": sum(metrics.wer.values()) / exits, "mean_loss": sum(metrics.loss.values()) / exits,
        }  # fmt: skip
        progress.records.append(record)
        train_loss = progress.epoch_loss / progress.epoch_utterances
        self.journal.epoch({
            "epoch": progress.epoch, "step": progress.step, "train_loss": train_loss,
            "dev_loss": metrics.loss, "dev_wer": metrics.wer, "seconds": progress.seconds,
            "layers_run": progress.epoch_layers, "ended_at": progress.epoch_ended_at,
        })  # fmt: skip
        wers = ", ".join(f"layer {tap}: {wer:.2f} %" for tap, wer in metrics.wer.items())
        rate = self.config.scoring.in_units("WER")
        logger.info("epoch %d: train loss %.3f, dev loss %.3f, dev %s %s; %.1f layers per update%s; %.0f s in total",
                    progress.epoch, train_loss, record["loss"], rate, wers, progress.epoch_layers / progress.update,
                    self._shares(), progress.seconds)  # fmt: skip
        if progress.epoch in self._best_epochs():
            weights = whole_weights(self._module)
            if self.writes:
                save_weights(epoch_file(self.checkpoints, progress.epoch), weights)

    def _shares(self) -> str:
        """Format `` (30 % end at layer 2, 70 % end at layer 12)``; empty without truncated updates."""
        ended = sorted(self.progress.epoch_ended_at.items(), key=lambda item: int(item[0]))
        shares = ", ".join(f"{100 * count / self.progress.update:.0f} % end at layer {depth}" for depth, count in ended)
        return f" ({shares})" if len(ended) > 1 else ""

    def _best_epochs(self) -> list[int]:
        return best_epochs(self.progress.records, self.config.train.keep_best)

    def _delete_other_epochs(self) -> None:
        if self.writes:
            delete_other_epochs(self.checkpoints, self._best_epochs())

    def _save_if_due(self) -> None:
        due = time.monotonic() - self.saved_at >= self.config.train.checkpoint_every_s
        if self.fabric.broadcast(due):  # all processes must take part in saving
            self._save()

    def _save(self) -> None:
        weights, moments = whole_weights(self._module), whole_moments(self._module, self.optimizer)
        if self.writes:
            self.journal.sync()
            state = {"format": FORMAT, "model": weights, "optimizer": moments, "progress": asdict(self.progress)}
            save_state(self.checkpoints, state)
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        state = load_state(self.checkpoints)
        if state is None:
            return
        if state["format"] != FORMAT:
            raise UserError(
                f"{self.checkpoints}: written by another version of asrprune; remove the directory to train from the start"
            )
        try:
            restore(self._module, self.optimizer, state["model"], state["optimizer"])
            self.progress = Progress(**state["progress"])
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            raise UserError(
                f"{self.checkpoints}: its state is not one of this model ({error!r}); remove it to train from the start"
            ) from None
        logger.info("continuing at epoch %d, update %d", self.progress.epoch, self.progress.step + 1)


def _feasible(corpus: Corpus, exp: Path, config: Config, writes: bool) -> np.ndarray:
    """Return the indices of the utterances that CTC can learn from."""
    kept = feasible(corpus, config.model.subsampling.factor)
    if not kept.any():
        if writes:
            write_dropped(ExperimentPaths(exp).dropped, corpus, kept, config.model.subsampling.factor)
        raise UserError(
            f"{corpus.directory}: each utterance is too short for its transcript or has none; see {exp / 'dropped.tsv'}"
        )
    return np.flatnonzero(kept)


def _tell_dropped(corpus: Corpus, exp: Path, config: Config, kept: np.ndarray, writes: bool) -> None:
    """Log the size of the training set, and list the utterances left out in ``dropped.tsv``."""
    mask = np.zeros(len(corpus), dtype=bool)
    mask[kept] = True
    if writes:
        write_dropped(ExperimentPaths(exp).dropped, corpus, mask, config.model.subsampling.factor)
    hours = corpus.lengths * config.frontend.frame_shift_ms / 3_600_000
    logger.info("training on %d utterances, %.2f h", len(kept), hours[mask].sum())
    if not mask.all():
        logger.warning("%d utterances (%.2f h) are too short for their transcript, or have no transcript, and are left out: %s",
                       (~mask).sum(), hours[~mask].sum(), ExperimentPaths(exp).dropped)  # fmt: skip
