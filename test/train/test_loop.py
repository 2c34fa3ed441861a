"""The training loop: what an update computes, what it leaves out, what it writes down."""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asrprune.config.schema import Config
from asrprune.data.dataset import Batch, Corpus
from asrprune.data.tables import read_table, write_table
from asrprune.data.tokenizer import Tokenizer
from asrprune.experiment import provenance
from asrprune.experiment import store as experiment
from asrprune.model.stochastic_depth import draw_depth, draw_layers
from asrprune.runtime.errors import UserError
from asrprune.train.journal import read_journal
from asrprune.train.loop import Trainer
from asrprune.train.ranks import make_fabric
from asrprune.train.window import Window

ConfigWith = Callable[..., Config]
MakeTrainer = Callable[..., Trainer]
# of tiny_experiment: in all, at layers 1, 2 and 4
TRAIN_LOSSES = [
    [27.6913, 31.3109, 26.9747, 24.8737],
    [20.1164, 23.7341, 17.9812, 18.6774],
    [20.0374, 27.9587, 17.9118, 14.4122],
    [12.6442, 18.5639, 10.1690, 9.3011],
]
DEV_LOSSES = [[31.80394, 20.24169, 14.92977], [20.15606, 10.91589, 8.76777]]
CALM = ("model.dropout=0", "augment.num_freq_masks=0", "augment.num_time_masks=0", "model.stochastic_depth.rate=0")


@pytest.fixture
def make_trainer(tiny_config_with: ConfigWith, tiny_data: Path, tmp_path: Path) -> Iterator[MakeTrainer]:
    """``make_trainer("train.epochs=3", ...)``: it has begun to train with the tiny config and these numbers."""
    made = []

    def make(*numbers: str, data: Path = tiny_data) -> Trainer:
        config = tiny_config_with(*numbers)
        provenance.start(tmp_path / "exp", config, tiny_data / "lang" / "bpe.model", tiny_data / "cmvn")
        tokenizer = Tokenizer(tiny_data / "lang" / "bpe.model")
        corpora = Corpus(data / "train", tokenizer), Corpus(tiny_data / "dev", tokenizer)
        model = experiment.build_model(config, tmp_path / "exp")
        trainer = Trainer(config, tmp_path / "exp", model, *corpora, make_fabric(config.train.precision, 0))
        trainer.begin()
        made.append(trainer)
        trainer.updater.model.train()
        return trainer

    yield make
    for trainer in made:
        trainer.journal.close()


def batches_of(trainer: Trainer, *positions: range) -> list[Batch]:
    return list(trainer.train_corpus.loader([np.array(part) for part in positions]))


def update(trainer: Trainer, batches: list[Batch], window: Window) -> None:
    trainer.progress.step += 1
    trainer.updater.update(trainer.progress.step, batches, [len(batch.lens) for batch in batches], window)


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in trainer.updater.module.named_parameters()
        if parameter.grad is not None
    }


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.updater.module.state_dict().items()}


# -- numbers that a refactor must not change --------------------------------------------------------------------------


def test_losses_of_the_first_updates_are_the_recorded_ones(tiny_experiment: Path) -> None:
    """Batches, seeds, augmentation, dropout, skipped layers, losses and the optimiser: a change of any of them shows here."""
    records = read_journal(tiny_experiment / "train.jsonl")
    train = [[record["loss"], *record["tap_losses"].values()] for record in records if record["kind"] == "step"]
    dev = [list(record["dev_loss"].values()) for record in records if record["kind"] == "epoch"]
    np.testing.assert_allclose(train, TRAIN_LOSSES, rtol=1e-4)
    np.testing.assert_allclose(dev, DEV_LOSSES, rtol=1e-4)


@pytest.mark.parametrize("front_end", ["{channels: 4}", "{type: conv1d}", "{type: conv1d, factor: 8}"])
def test_training_learns_a_toy_task(
    front_end: str, tiny_config_with: ConfigWith, run_training: Callable[[Config, Path], None], tmp_path: Path
) -> None:
    numbers = ("train.epochs=20", "train.schedule.peak=2e-2", "batch.max_frames=400", f"model.subsampling={front_end}")
    run_training(tiny_config_with(*numbers), tmp_path / "exp")
    epochs = [record for record in read_journal(tmp_path / "exp" / "train.jsonl") if record["kind"] == "epoch"]
    assert epochs[0]["dev_wer"]["4"] > 50.0
    assert epochs[-1]["train_loss"] < 0.1 * epochs[0]["train_loss"]
    assert all(wer < 20.0 for wer in epochs[-1]["dev_wer"].values()), "at every tapped depth"


# -- one update -------------------------------------------------------------------------------------------------------


def test_micro_batches_add_up_to_one_batch(make_trainer: MakeTrainer) -> None:
    """Twice 6 and 2 utterances give the gradient of 8: the loss is normalised by the utterances of the whole update."""
    trainer = make_trainer(*CALM, "train.grad_clip=1e9", "train.schedule.peak=1e-12")
    collected, windows = [], []
    for parts in ((range(8),), (range(6), range(6, 8))):
        windows.append(trainer._empty_window())
        update(trainer, batches_of(trainer, *parts), windows[-1])
        collected.append(gradients(trainer))
    for name, expected in collected[0].items():
        torch.testing.assert_close(collected[1][name], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()), msg=name)
    torch.testing.assert_close(windows[1].losses, windows[0].losses)
    assert windows[1].utterances == windows[0].utterances == 8
    assert windows[1].frames == windows[0].frames == int(trainer.train_corpus.lengths[:8].sum())
    assert windows[1].grad_norm == pytest.approx(windows[0].grad_norm, rel=1e-4)


def test_two_views_differ_by_their_masks_alone(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have one vocal tract, so the same frames of both belong together."""
    trainer = make_trainer("model.dropout=0", "augment.vocal_tract=0.2", "augment.volume_db=0", "train.consistency=0.2")
    seen: list[torch.Tensor] = []
    forward = trainer.updater.module.forward

    def watched(features: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seen.append(features)
        return forward(features, *arguments)

    monkeypatch.setattr(trainer.updater.module, "forward", watched)
    (batch,) = batches_of(trainer, range(8))
    trainer.updater.losses(batch, [1, 2, 3, 4])
    first, second = seen[0].chunk(2)
    assert len(first) == 8
    whole = (first != 0) & (second != 0)
    assert torch.equal(first[whole], second[whole])
    assert not torch.equal(first, second)


def test_gradient_is_that_of_the_mean_over_utterances(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*CALM, "train.grad_clip=1e9")
    batch = batches_of(trainer, range(4))[0]
    features = trainer.updater.module.normalise(batch.features)
    losses = trainer.updater.module(features, batch.lens, batch.labels, batch.label_lens)
    (trainer.updater.module.total(losses) / 4).backward()
    expected = gradients(trainer)
    update(trainer, [batch], trainer._empty_window())
    torch.testing.assert_close(gradients(trainer), expected)


def test_gradient_is_clipped_and_its_norm_is_logged_unclipped(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.grad_clip=0.5")
    window = trainer._empty_window()
    update(trainer, batches_of(trainer, range(4)), window)
    norm = torch.stack([gradient.square().sum() for gradient in gradients(trainer).values()]).sum().sqrt()
    assert float(norm) == pytest.approx(0.5, rel=1e-4)
    assert window.grad_norm > 5.0


def test_update_without_a_finite_gradient_is_left_out(make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(*CALM)
    window = trainer._empty_window()
    batch = batches_of(trainer, range(4))[0]
    update(trainer, [batch], window)
    losses, norm = window.losses.clone(), window.grad_norm
    before, moments = weights(trainer), trainer.updater.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    batch.features[1, 5] = float("nan")
    update(trainer, [batch], window)
    named = ", ".join(trainer.train_corpus.ids[int(index)] for index in batch.index)
    assert f"step 2: the gradient is not finite; utterances: {named}; the update is skipped" in caplog.text
    torch.testing.assert_close(weights(trainer), before, rtol=0.0, atol=0.0)
    assert torch.equal(trainer.updater.optimizer.state_dict()["state"][0]["exp_avg"], moments)
    assert torch.equal(window.losses, losses)
    assert (window.utterances, window.grad_norm, window.ended_at.total()) == (4, norm, 2)
    update(trainer, batches_of(trainer, range(4)), window)
    assert trainer.progress.step == 3
    after = weights(trainer)
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(after["head.project.weight"], before["head.project.weight"])


def test_training_ends_when_no_gradient_is_finite(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*CALM)
    good, bad = batches_of(trainer, range(4)), batches_of(trainer, range(4))
    bad[0].features[1, 5] = float("inf")
    for batches in [bad, bad, bad, bad, good, bad, bad, bad, bad]:
        update(trainer, batches, trainer._empty_window())
    with pytest.raises(UserError, match=f"{trainer.train_corpus.ids[1]}.*; 5 updates in a row were skipped"):
        update(trainer, bad, trainer._empty_window())


def test_an_epoch_without_a_finite_gradient_ends_the_training(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(*CALM, "train.log_every_steps=1")
    trainer.begin()
    monkeypatch.setattr(trainer, "_updates", lambda epoch: [[np.arange(4)]])
    monkeypatch.setattr(trainer.updater, "_clip", lambda: float("nan"))
    with pytest.raises(UserError, match="epoch 1: no update had a finite gradient"):
        trainer._run_epoch()


def test_layers_that_are_skipped_have_gradient_zero_from_the_first_update_on(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("model.stochastic_depth.rate=0.7", "model.stochastic_depth.mode=uniform")
    trainer._try_largest_batches()
    skipped_before = set()
    for step in range(1, 6):
        update(trainer, batches_of(trainer, range(4)), trainer._empty_window())
        ran = draw_layers([0.7] * 4, trainer.config.seed, step)
        for number, layer in enumerate(trainer.updater.module.encoder.layers, start=1):
            gradient = layer.qkv.weight.grad
            assert gradient is not None, (step, number)
            assert bool(gradient.any()) == (number in ran), (step, number)
            assert (
                layer.qkv.weight in trainer.updater.optimizer.state
            )  # zero gradients move Adam's moments, on one process as on many
        skipped_before |= {1, 2, 3, 4} - set(ran)
    assert skipped_before == {1, 2, 3, 4}


def test_randomness_of_an_update_depends_on_its_number_alone(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    before, collected = weights(trainer), []
    for step in (7, 7, 8):
        trainer.updater.module.load_state_dict(before)
        torch.manual_seed(len(collected))
        trainer.progress.step = step - 1
        update(trainer, batches_of(trainer, range(4)), trainer._empty_window())
        collected.append(gradients(trainer))
    torch.testing.assert_close(collected[1], collected[0], rtol=0.0, atol=0.0)
    assert not torch.allclose(collected[2]["head.project.weight"], collected[0]["head.project.weight"], rtol=1e-2)


def test_learning_rate_of_an_update_is_the_schedules(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.schedule.peak=5e-3", "train.schedule.warmup_steps=4")
    for _ in range(2):
        update(trainer, batches_of(trainer, range(2)), trainer._empty_window())
    assert [group["lr"] for group in trainer.updater.optimizer.param_groups] == pytest.approx([2.5e-3, 2.5e-3])


def test_truncated_updates_leave_the_layers_above_as_they_are(make_trainer: MakeTrainer) -> None:
    """Not even their moments decay: a gradient of None, not of zero."""
    trainer = make_trainer(*CALM, 'model.truncated={"1": 0.3, "2": 0.4}', "train.weight_decay=0.5")
    window, seen = trainer._empty_window(), set()
    for step in range(1, 13):
        layers = [list(layer.parameters()) for layer in trainer.updater.module.encoder.layers]
        before = [[p.detach().clone() for p in layer] for layer in layers]
        state = trainer.updater.optimizer.state
        moments = [[state[p]["exp_avg"].clone() if step > 1 else None for p in layer] for layer in layers]
        update(trainer, batches_of(trainer, range(4)), window)
        depth = 4 if step == 1 else draw_depth({1: 0.3, 2: 0.4}, 4, trainer.config.seed, step)
        seen.add(depth)
        for number, parameters in enumerate(layers, start=1):
            moved = [not torch.equal(p, old) for p, old in zip(parameters, before[number - 1], strict=True)]
            assert all(moved) if number <= depth else not any(moved), (step, number)
            if number > depth:
                states = [state[p]["exp_avg"] for p in parameters]
                assert all(torch.equal(now, old) for now, old in zip(states, moments[number - 1], strict=True))
    assert seen == {1, 2, 4}
    assert window.layers_run == sum(depth * count for depth, count in window.ended_at.items())
    assert sum(window.ended_at.values()) == 12
    assert window.reached.tolist() == [48, 4 * (12 - window.ended_at[1]), 4 * window.ended_at[4]]


def test_a_model_grows(make_trainer: MakeTrainer) -> None:
    """The first update runs all layers; then no layer above the tap runs until its updates are over."""
    trainer = make_trainer(*CALM, 'model.truncated={"1": 0.4}', 'model.grow={"1": 4, "2": 9}')
    ends = []
    for _ in range(14):
        window = trainer._empty_window()
        update(trainer, batches_of(trainer, range(2)), window)
        ends.append(*window.ended_at)
    drawn = [draw_depth({1: 0.4}, 4, trainer.config.seed, step) for step in range(1, 15)]
    assert ends == [4, 1, 1, 1, *(min(2, depth) for depth in drawn[4:9]), *drawn[9:]]
    assert {1, 2} == set(ends[4:9]), "truncated updates go on while the model grows"


def test_logged_loss_is_that_of_the_exits_that_were_reached(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*CALM, "model.tap_weight=0.8")
    trainer.window = Window(torch.tensor([8.0, 6.0, 0.0]), torch.tensor([4.0, 2.0, 0.0]), 4)
    trainer._log()
    (record,) = read_journal(trainer.journal.path)
    assert record["tap_losses"] == {"1": 2.0, "2": 3.0}
    assert record["loss"] == pytest.approx(2.5)


def test_an_epoch_says_where_its_updates_ended_and_its_precision(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    options = ("model.stochastic_depth.rate=0", "train.epochs=1", "train.precision=bf16")
    trainer = make_trainer('model.truncated={"1": 0.5}', *options)
    with caplog.at_level(logging.INFO):
        trainer.run()
    *steps, epoch = read_journal(trainer.journal.path)
    assert epoch["ended_at"] == {depth: sum(step["ended_at"].get(depth, 0) for step in steps) for depth in ("1", "4")}
    assert epoch["precision"] == "bf16"
    assert epoch["layers_run"] == epoch["ended_at"]["1"] + 4 * epoch["ended_at"]["4"] == sum(s["layers_run"] for s in steps)
    assert re.search(r"layers per update \(\d\d % end at layer 1, \d\d % end at layer 4\)", caplog.text)


# -- one run ----------------------------------------------------------------------------------------------------------


def test_logged_losses_are_means_over_utterances(make_trainer: MakeTrainer) -> None:
    """Without anything random, and at a learning rate of nearly 0, the epoch's loss is the untrained model's."""
    trainer = make_trainer(*CALM, "train.epochs=1", "train.schedule.peak=1e-12", "train.log_every_steps=3")
    model = trainer.updater.module
    batch = batches_of(trainer, range(len(trainer.train_corpus)))[0]
    with torch.inference_mode():
        losses = model(model.normalise(batch.features), batch.lens, batch.labels, batch.label_lens) / len(trainer.train_corpus)
    trainer.run()
    records = read_journal(trainer.journal.path)
    assert records[-1]["train_loss"] == pytest.approx(float(model.total(losses)), rel=1e-4)
    for record in records[:-1]:
        assert record["loss"] == pytest.approx(
            0.34 * record["tap_losses"]["4"] + 0.33 * sum(map(record["tap_losses"].get, "12"))
        )


def test_largest_batch_is_tried_first_and_changes_nothing(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    seen, losses = [], trainer.updater.losses

    def watched(batch: Batch, keep: list[int], depth: int | None = None) -> torch.Tensor:
        seen.append((batch.features.shape[0] * batch.features.shape[1], keep))
        return losses(batch, keep, depth)

    monkeypatch.setattr(trainer.updater, "losses", watched)
    before = weights(trainer)
    trainer._try_largest_batches()
    assert seen[0][1] == [1, 2, 3, 4]
    torch.testing.assert_close(weights(trainer), before, rtol=0.0, atol=0.0)
    trainer._run_epoch()
    assert seen[0][0] == max(size for size, _ in seen[1:])


@pytest.mark.parametrize("layer", ["conformer", "ebranchformer"])
def test_where_layers_hold_pairs_of_frames_the_batch_with_most_of_them_is_tried_too(
    layer: str, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(f"model.layer={layer}")
    corpus, seen, updater = trainer.train_corpus, [], trainer.updater
    losses = updater.losses
    monkeypatch.setattr(Corpus, "__getitem__", lambda own, i: (i, np.zeros((own.lengths[i], 80), np.float32), own.labels(i)))
    corpus.lengths[:] = 50
    corpus.lengths[3] = 70  # alone it has fewer frames than three of 50, and more pairs
    monkeypatch.setattr(trainer, "_updates", lambda epoch: [[np.array([0, 1])], [np.array([3])]])
    monkeypatch.setattr(updater, "losses", lambda batch, keep: (seen.append(batch.index.tolist()), losses(batch, keep))[1])
    trainer._try_largest_batches()
    assert seen == [[0, 1]], "70^2 is less than 2 * 50^2"
    corpus.lengths[3] = 80
    trainer._try_largest_batches()
    assert seen[1:] == [[0, 1], [3]]


def test_every_utterance_is_seen_once_an_epoch_in_the_planned_updates(make_trainer: MakeTrainer) -> None:
    cosine = "train.schedule.name=cosine"  # which needs to know how many there will be
    trainer = make_trainer("batch.max_frames=300", "batch.accumulate=3", cosine)
    updates = trainer._updates(1)
    assert sorted(index for update in updates for batch in update for index in batch) == list(range(24))
    assert [len(update) for update in updates[:-1]] == [3] * (len(updates) - 1)
    assert trainer.updater.total_steps == len(updates) + len(trainer._updates(2))


def test_dev_set_is_measured_every_so_many_epochs_and_after_the_last(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.epochs=5", "train.dev_every_epochs=2", "train.keep_best=3")
    trainer.run()
    assert [record["epoch"] for record in trainer.progress.records] == [2, 4, 5]
    assert [record["epoch"] for record in read_journal(trainer.journal.path) if record["kind"] == "epoch"] == [2, 4, 5]
    assert len(list(trainer.checkpoints.glob("epoch*"))) == 3


def test_state_is_saved_when_it_is_due(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer("train.log_every_steps=1")
    saved, clock = [], [0.0]
    monkeypatch.setattr("asrprune.train.loop.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(trainer, "_save", lambda: (saved.append(clock[0]), setattr(trainer, "saved_at", clock[0])))
    trainer.saved_at = 0.0
    for seconds in (60.0, 119.0, 120.0, 180.0, 240.0):
        clock[0] = seconds
        trainer._save_if_due()
    assert saved == [120.0, 240.0]


def test_log_is_on_the_disk_before_the_state_that_counts_on_it(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    events: list[object] = []
    monkeypatch.setattr("asrprune.train.journal.os.fsync", events.append)
    monkeypatch.setattr("asrprune.train.loop.save_state", lambda *_: events.append("state"))
    trainer._save()
    assert events == [trainer.journal._file.fileno(), "state"]


# -- utterances that cannot be learnt from ----------------------------------------------------------------------------


@pytest.fixture
def data_with_long_texts(tiny_data: Path, tmp_path: Path) -> Path:
    """The first utterance has more words than encoder frames."""
    directory = tmp_path / "data" / "train"
    directory.mkdir(parents=True)
    for name in ("feats.scp", "utt2num_frames"):
        (directory / name).write_bytes((tiny_data / "train" / name).read_bytes())
    text = read_table(tiny_data / "train" / "text")
    first = next(iter(text))
    write_table(directory / "text", {**text, first: "one " * 59 + "one"})
    return tmp_path / "data"


@pytest.mark.parametrize("factor", [4, 8])
def test_infeasible_utterances_are_listed_and_left_out(
    factor: int,
    make_trainer: MakeTrainer,
    data_with_long_texts: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    numbers = ("frontend.frame_length_ms=1000", "frontend.frame_shift_ms=1000", f"model.subsampling.factor={factor}")
    trainer = make_trainer(*numbers, data=data_with_long_texts)
    frames = (int(trainer.train_corpus.lengths[0] - 1) // 2 - 1) // 2
    if factor == 8:
        frames = (frames - 1) // 2
    dropped = (trainer.checkpoints.parent / "dropped.tsv").read_text().splitlines()
    assert dropped == ["utterance\tencoder_frames\tneeded_frames", f"{trainer.train_corpus.ids[0]}\t{frames}\t119"]
    assert sorted(index for update in trainer._updates(1) for batch in update for index in batch) == list(range(1, 24))
    assert "training on 23 utterances" in caplog.text
    hours = trainer.train_corpus.lengths[0] / 3600
    assert (
        f"1 utterances ({hours:.2f} h) are too short for their transcript, or have no transcript, and are left out"
        in caplog.text
    )


def test_nothing_to_learn_from_is_an_error(make_trainer: MakeTrainer, data_with_long_texts: Path) -> None:
    text = read_table(data_with_long_texts / "train" / "text")
    write_table(data_with_long_texts / "train" / "text", dict.fromkeys(text, "one " * 99 + "one"))
    with pytest.raises(UserError, match=r"each utterance is too short for its transcript or has none; see .*dropped\.tsv"):
        make_trainer(data=data_with_long_texts)
