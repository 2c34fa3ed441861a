"""The training loop. Random numbers depend on (seed, step) only, so a resumed run continues exactly."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import TypeAdapter

from asrprune.config.load import resolved
from asrprune.config.schema import Config, CosineConfig
from asrprune.data.batching import epoch_batches, padding_share, sorted_batches
from asrprune.data.dataset import Batch, Corpus, feasible, write_dropped
from asrprune.decode.one_piece import too_long_in
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.trained_with import check_trained_with
from asrprune.experiment.weights import save_weights
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import CtcModel
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.runtime.hardware import arithmetic
from asrprune.runtime.progress import track
from asrprune.runtime.signals import Interrupted, deferred
from asrprune.train.checkpoint import (
    FORMAT,
    Count,
    Seconds,
    best_epochs,
    delete_other_epochs,
    epoch_file,
    load_state,
    restore,
    save_state,
    trained_with,
    whole_moments,
    whole_weights,
)
from asrprune.train.dev import evaluate
from asrprune.train.journal import Exit, Journal, SilentJournal
from asrprune.train.ranks import add_up, part, share
from asrprune.train.update import Updater
from asrprune.train.window import Window

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """The progress of a run. Its whole state is this, the window, the weights and the moments of the optimiser."""

    epoch: Count = 1  # current epoch
    update: Count = 0  # updates done in this epoch
    step: Count = 0  # updates done in total
    epoch_loss: float = 0.0  # sum over the utterances of this epoch
    epoch_utterances: Count = 0
    epoch_layers: Count = 0  # layers run, summed over the updates of this epoch
    epoch_ended_at: dict[Exit, Count] = field(default_factory=dict)  # layer -> updates of this epoch that ended at it
    seconds: Seconds = 0.0
    records: list[dict[str, Any]] = field(default_factory=list)  # dev results; see ``store.Epoch``
    threads: int | None = None  # of each process; with another number, sums differ in their last bits


class _Stopped(Exception):
    """A signal stopped the training; its state is saved."""


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
        self.kept = _feasible(train, exp, config, self.writes)
        total_steps = self._count_updates() if isinstance(config.train.schedule, CosineConfig) else 0
        self.updater = Updater(config, model, train, fabric, total_steps)
        self.progress = Progress()
        self.journal: Journal | SilentJournal = SilentJournal()
        self.saved_at = time.monotonic()
        self.exits = [*map(str, config.model.exits)]
        self.window = self._empty_window()
        self.signals: list[int] = []  # those that asked the training to stop
        self.last_loss: float | None = None
        self.updates_left = 0  # of the training
        self.before_update: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Load the state of a killed run, if there is one, and open the log."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._tell_threads()
        self._delete_other_epochs()  # the run may have been killed after saving and before deleting
        if self.writes and (risk := too_long_in(self.dev_corpus, self.config, self.updater.module)):
            logger.warning("%s", risk)  # no error: the training may have enough memory
        _tell_dropped(self.train_corpus, self.exp, self.config, self.kept, self.writes)
        if self.writes:
            self.journal = Journal(self.exp, self.progress.step, self.progress.epoch)

    def run(self) -> None:
        """Train to the last epoch. At a signal, save the state after the running update and stop; at a second one, at once.

        Raises:
            Interrupted: a signal came, or another process of this training got one.
        """
        self.begin()
        try:
            with deferred(insistent=True) as self.signals:
                self._train()
        except _Stopped:
            if self.writes:  # else the first process ends the training
                raise Interrupted(signal.SIGTERM) from None  # of another process; our own is raised at the end of the block
        self.journal.close()

    def _tell_threads(self) -> None:
        before, now = self.progress.threads, torch.get_num_threads()
        if before not in (None, now):
            logger.info(
                "the run began with %d threads and goes on with %d, so its last bits may differ from those of a run that was"
                " not stopped; --threads %d avoids this", before, now, before,
            )  # fmt: skip
        self.progress.threads = now

    def _train(self) -> None:
        if self.progress.epoch <= self.config.train.epochs:
            self._try_largest_batches()
        while self.progress.epoch <= self.config.train.epochs:
            self._run_epoch()
            self._finish_epoch()
        part(self.fabric)

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
        progress, updates = self.progress, self._updates(self.progress.epoch)
        self.updates_left = len(updates) * (self.config.train.epochs - progress.epoch + 1) - progress.update
        updates = updates[progress.update :]
        batches = self._load([batch for update in updates for batch in update])
        self.updater.model.train()
        if not self.window.utterances:  # begin its time here; a window with updates is that of a stopped run
            self.window = self._empty_window()
        for update in track(updates, f"epoch {progress.epoch}/{self.config.train.epochs}", note=self._outlook):
            self.before_update()
            progress.step += 1
            progress.update += 1
            self.updates_left -= 1
            self.updater.update(progress.step, [next(batches) for _ in update], [len(batch) for batch in update], self.window)
            if progress.step % self.config.train.log_every_steps == 0:
                self._log()
                self._save_if_due()
            elif self.fabric.world_size == 1:  # several processes would have to agree after each update
                self._stop_if_asked()
        self._log()
        if not progress.epoch_utterances:
            raise UserError(
                f"epoch {progress.epoch}: no update had a finite gradient, so the model learns nothing; check the features of"
                " the utterances named above, or lower train.schedule.peak"
            )

    def _load(self, batches: list[np.ndarray]) -> Iterator[Batch]:
        """Yield this process's share of each batch, read in advance, on its device."""
        own = [share(batch, self.fabric.global_rank, self.fabric.world_size) for batch in batches]
        pin = self.fabric.device.type == "cuda"
        return (b.to(self.fabric.device) for b in self.train_corpus.loader(own, self.config.train.num_workers, pin))

    def _try_largest_batches(self) -> None:
        """Run the batches that need the most memory, without an update, so that a lack of memory shows at once.

        One is the batch with the most padded frames. Attention with relative positions also stores a value for each pair of
        frames, so another one is the batch with the most pairs.
        """
        batches = [batch for update in self._updates(self.progress.epoch) for batch in update]
        lengths = self.train_corpus.lengths
        largest, pairs = (max(batches, key=lambda batch: len(batch) * int(lengths[batch].max()) ** power) for power in (1, 2))
        others = [pairs] if self.updater.module.holds_pairs and pairs is not largest else []
        logger.info(
            "%d batches per epoch, %.1f %% of their frames are padding; largest: %d utterances x %d frames",
            len(batches), 100 * padding_share(lengths, batches), len(largest), int(lengths[largest].max()),
        )  # fmt: skip
        self.updater.model.train()
        for batch in self._load([largest, *others]):
            self.updater.try_out(batch)

    # -- bookkeeping -------------------------------------------------------------------------------------------------

    def _empty_window(self) -> Window:
        return Window.empty(len(self.exits), self.fabric.device)

    def _outlook(self) -> str:
        """Format the last loss, and the time that the rest of the training takes if it goes on like this."""
        progress = self.progress
        if self.last_loss is None or not progress.seconds:
            return ""
        left_s = progress.seconds / (progress.step - sum(self.window.ended_at.values())) * self.updates_left
        return f"; loss {self.last_loss:.3f}; about {left_s:.0f} s left of the training"

    def _log(self) -> None:
        """Write a log line for the window, and empty it; if all its updates were skipped, the next line includes it."""
        progress, window = self.progress, self.window
        if not window.utterances:
            return
        seconds = window.seconds
        reached = window.reached > 0  # in a short window, high exits may not be reached
        losses, frames = window.added_up(self.fabric)
        means = (losses / window.reached)[reached]
        weights = torch.tensor(self.config.model.exit_weights, device=means.device)[reached]
        self.last_loss = loss = float((weights * means).sum() / weights.sum())
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
            "lr": self.updater.optimizer.param_groups[0]["lr"], "grad_norm": window.grad_norm,
            "frames_per_s": frames / seconds, "elapsed_s": progress.seconds,
        })  # fmt: skip
        self.window = self._empty_window()

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
        runner = Runner(self.updater.module, self.fabric.device, self.config.train.precision)
        alone = self.fabric.world_size == 1
        model, check = self.config.model, self._stop_if_asked if alone else lambda: None
        metrics = evaluate(runner, self.dev_corpus, batches, [*model.inner_taps, model.num_layers], self.fabric, check)
        progress.seconds += time.monotonic() - started
        full, exits = self.exits[-1], len(metrics.wer)
        record: dict[str, Any] = {
            "epoch": progress.epoch, "wer": metrics.wer[full], "loss": metrics.loss[full],
            "mean_wer": sum(metrics.wer.values()) / exits, "mean_loss": sum(metrics.loss.values()) / exits,
        }  # fmt: skip
        progress.records.append(record)
        train_loss = progress.epoch_loss / progress.epoch_utterances
        self.journal.epoch({
            "epoch": progress.epoch, "step": progress.step, "train_loss": train_loss,
            "dev_loss": metrics.loss, "dev_wer": metrics.wer, "seconds": progress.seconds,
            "layers_run": progress.epoch_layers, "ended_at": progress.epoch_ended_at,
            "precision": arithmetic(self.config.train.precision, self.fabric.device),
        })  # fmt: skip
        wers = ", ".join(f"layer {tap}: {wer:.2f} %" for tap, wer in metrics.wer.items())
        rate = self.config.scoring.in_units("WER")
        logger.info("epoch %d: train loss %.3f, dev loss %.3f, dev %s %s; %.1f layers per update%s; %.0f s in total",
                    progress.epoch, train_loss, record["loss"], rate, wers, progress.epoch_layers / progress.update,
                    self._shares(), progress.seconds)  # fmt: skip
        if progress.epoch in self._best_epochs():
            weights, path = whole_weights(self.updater.module), epoch_file(self.checkpoints, progress.epoch)
            if self.writes:
                save_weights(path, weights)
                record["sha256"] = sha256_of(path)

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
        """Save the state if it is time, or if a signal came. All processes must take part in saving, so they agree first."""
        due = self.writes and time.monotonic() - self.saved_at >= self.config.train.checkpoint_every_s
        votes = add_up(torch.tensor([due, bool(self.signals)], dtype=torch.float32, device=self.fabric.device), self.fabric)
        due_anywhere, asked_anywhere = (votes > 0).tolist()
        if asked_anywhere:
            self._stop()
        if due_anywhere:
            self._save()

    def _stop_if_asked(self) -> None:
        if self.signals:
            self._stop()

    def _stop(self) -> NoReturn:
        self._save()
        part(self.fabric)
        self.journal.close()
        if not self.writes:
            self.signals.clear()
        logger.info("stopped by a signal; update %d of epoch %d is saved", self.progress.update, self.progress.epoch)
        raise _Stopped

    def _save(self) -> None:
        weights, moments = whole_weights(self.updater.module), whole_moments(self.updater.module, self.updater.optimizer)
        window = self.window.state(self.fabric)
        if self.writes:
            self.journal.sync()
            progress = asdict(self.progress)
            state = {"format": FORMAT, "model": weights, "optimizer": moments, "progress": progress, "window": window}
            save_state(self.checkpoints, {**state, "config": resolved(self.config)})
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        state = load_state(self.checkpoints)
        if state is None:
            return
        if state["format"] != FORMAT:
            raise UserError(
                f"{self.checkpoints}: written by another version of asrprune; remove the directory to train from the start"
            )
        check_trained_with(self.checkpoints, self.config, trained_with(state))
        try:
            restore(self.updater.module, self.updater.optimizer, state["model"], state["optimizer"])
            self.progress = TypeAdapter(Progress).validate_python(state["progress"])
            if "window" in state:
                self.window = Window.of(state["window"], len(self.exits), self.fabric)
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            raise UserError(
                f"{self.checkpoints}: its state is not one of this model ({error!r}); remove it to train from the start"
            ) from None
        self.updater.set_learning_rate(self.progress.step)  # the log and the next state may need it before the next update
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
    hours = corpus.lengths * config.frontend.shift_ms / 3_600_000
    logger.info("training on %d utterances, %.2f h", len(kept), hours[mask].sum())
    if not mask.all():
        logger.warning("%d utterances (%.2f h) are too short for their transcript, or have no transcript, and are left out: %s",
                       (~mask).sum(), hours[~mask].sum(), ExperimentPaths(exp).dropped)  # fmt: skip
