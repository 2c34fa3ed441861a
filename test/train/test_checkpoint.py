"""Checkpoints: the state and the one before it, the best epochs, their average."""

import errno
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asrprune.config.schema import TrainConfig
from asrprune.experiment.weights import load_weights, save_weights
from asrprune.runtime.errors import UserError
from asrprune.train.average import mean_weights
from asrprune.train.checkpoint import (
    best_epochs,
    delete_other_epochs,
    epoch_file,
    load_state,
    restore,
    save_state,
    whole_moments,
    whole_weights,
)
from asrprune.train.optim import make_optimizer

RECORD = {"epoch": 1, "wer": 0.5, "loss": 2.0, "mean_wer": 0.5, "mean_loss": 2.0}


def state(step: int) -> dict[str, Any]:
    weights, progress = {"w": torch.full((50,), float(step))}, {"step": step, "records": [RECORD]}
    return {"format": 2, "model": weights, "optimizer": {"state": {}, "param_groups": []}, "progress": progress}


def moments(*shape: int) -> dict[str, Any]:
    return {"step": torch.tensor(1.0), "exp_avg": torch.ones(shape), "exp_avg_sq": torch.ones(shape)}


WINDOW = {
    "losses": torch.ones(3), "reached": torch.ones(3), "utterances": 4, "frames": 300.0, "layers_run": 12,
    "ended_at": {4: 1}, "grad_norm": 1.0, "seconds": 0.5,
}  # fmt: skip


def step_of(directory: Path) -> int:
    loaded = load_state(directory)
    assert loaded is not None
    return loaded["progress"]["step"]


def save_two(directory: Path) -> None:
    for step in (1, 2):
        save_state(directory, state(step))


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    save_state(tmp_path, state(1))
    torch.testing.assert_close(load_state(tmp_path), state(1), rtol=0.0, atol=0.0)


def test_the_state_before_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, state(step))
    assert step_of(tmp_path) == 3
    (tmp_path / "last.pt").unlink()
    assert step_of(tmp_path) == 2
    save_state(tmp_path, state(4))
    assert torch.load(tmp_path / "previous.pt")["progress"]["step"] == 2


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_truncated_state_falls_back(tmp_path: Path, kept: float, caplog: pytest.LogCaptureFixture) -> None:
    save_two(tmp_path)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert step_of(tmp_path) == 1
    assert "last.pt cannot be read" in caplog.text


GARBAGE = [b"\0" * 4000, b"not a checkpoint\n" * 9, b"hello world\n" * 9, pickle.dumps({"a": 1}, protocol=2)]


@pytest.mark.parametrize("content", GARBAGE)
def test_garbage_falls_back(tmp_path: Path, content: bytes) -> None:
    save_two(tmp_path)
    (tmp_path / "last.pt").write_bytes(content)
    assert step_of(tmp_path) == 1


def test_every_broken_byte_of_the_index_falls_back_or_loads(tmp_path: Path) -> None:
    """Whatever torch raises on a damaged file, the run goes on."""
    save_two(tmp_path)
    whole = bytearray((tmp_path / "last.pt").read_bytes())
    logging.disable(logging.WARNING)
    try:
        for position in range(0, len(whole), 23):
            broken = bytearray(whole)
            broken[position] ^= 0xFF
            (tmp_path / "last.pt").write_bytes(broken)
            assert load_state(tmp_path) is not None
    finally:
        logging.disable(logging.NOTSET)


def test_an_index_that_points_before_the_file_falls_back(tmp_path: Path) -> None:
    """zipfile then seeks to a negative position, which is an OSError."""
    save_two(tmp_path)
    broken = bytearray((tmp_path / "last.pt").read_bytes())
    offset = broken.rindex(b"PK\6\6") + 48  # of the index, in the record that ends a zip file
    broken[offset : offset + 8] = (2**31).to_bytes(8, "little")
    (tmp_path / "last.pt").write_bytes(broken)
    assert step_of(tmp_path) == 1


def test_parts_of_a_state_that_no_training_writes_fall_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The fused AdamW reads moments as float32 numbers that lie one after the other, whatever they are."""
    whole = {**state(2), "optimizer": {"state": {"w": moments(2, 3)}}, "window": WINDOW}
    save_state(tmp_path, whole)
    assert step_of(tmp_path) == 2
    double, one = torch.ones((2, 3), dtype=torch.float64), torch.ones(1)
    wrong: list[tuple[tuple[str, ...], object]] = [
        *((("optimizer", "state", "w", "exp_avg"), value) for value in (3, double, one.expand(2, 3), one.to_sparse())),
        *((("window", "ended_at"), value) for value in ({"a": 1}, {1: "a"}, {1: -1})),
        *((("window", "frames"), value) for value in (float("inf"), float("nan"), -1.0)),
        (("window", "utterances"), "x"),
        (("window", "losses"), [1.0]),
        (("progress", "records"), [{**RECORD, "new": 1}]),
        (("model",), {"w": 1}),
    ]
    save_state(tmp_path, state(1))
    (tmp_path / "last.pt").rename(tmp_path / "previous.pt")
    for place, value in wrong:
        torch.save(with_value(whole, place, value), tmp_path / "last.pt")
        assert step_of(tmp_path) == 1, place
        assert f"last.pt cannot be read ({'.'.join(place)}" in caplog.text
        caplog.clear()


def with_value(document: dict[str, Any], place: tuple[str, ...], value: object) -> dict[str, Any]:
    key, *rest = place
    return {**document, key: with_value(document[key], tuple(rest), value) if rest else value}


def test_no_readable_state_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    save_two(tmp_path)
    for name in ("last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="no readable training state; remove"):
        load_state(tmp_path)


def test_failed_save_leaves_the_states_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_two(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_state(tmp_path, state(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]
    assert step_of(tmp_path) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("what", ["state", "weights"])
def test_full_disk_is_an_os_error(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line explains it; torch and safetensors would make classes of their own of it."""
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    monkeypatch.setattr("tempfile.mkstemp", lambda *_: (os.open(full, os.O_WRONLY), str(full)))
    with pytest.raises(OSError, match="No space left") as caught:
        save_state(tmp_path, state(1)) if what == "state" else save_weights(
            tmp_path / "w.safetensors", {"a": torch.zeros(9999)}
        )
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("key", ["step", "exp_avg", "exp_avg_sq"])
def test_moments_of_another_shape_are_refused(key: str) -> None:
    """The fused AdamW would read and write beside them: a segmentation fault."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    theirs = {"weight": {**moments(2, 3), key: torch.zeros(1)}, "bias": moments(2)}
    with pytest.raises(ValueError, match=rf"^{key} of weight has the shape \[1\], not \["):
        restore(model, optimizer, model.state_dict(), {"state": theirs})
    assert not optimizer.state


def test_a_state_does_not_change_the_numbers_of_the_optimiser() -> None:
    model = nn.Linear(3, 2)
    other, optimizer = (make_optimizer(model, TrainConfig(weight_decay=decay)) for decay in (0.5, 0.25))
    before = whole_moments(model, optimizer)["param_groups"]
    saved = whole_moments(model, other)
    assert saved["param_groups"] != before
    restore(model, optimizer, whole_weights(model), saved)
    after = whole_moments(model, optimizer)["param_groups"]
    assert [{**group, "betas": (*group["betas"],)} for group in after] == before


def test_best_epochs_have_the_lowest_wer_then_loss_then_are_later() -> None:
    records = [
        {"epoch": 1, "mean_wer": 5.0, "mean_loss": 0.5, "wer": 9.0},
        {"epoch": 2, "mean_wer": 4.0, "mean_loss": 9.0, "wer": 9.0},
        {"epoch": 3, "mean_wer": 5.0, "mean_loss": 1.0, "wer": 1.0},
        {"epoch": 4, "mean_wer": 5.0, "mean_loss": 1.0, "wer": 9.0},
    ]
    assert [best_epochs(records, count) for count in (1, 2, 3, 4, 9)] == [[2], [1, 2], [1, 2, 4], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert best_epochs([], 3) == []


def test_all_but_the_kept_epochs_are_deleted(tmp_path: Path) -> None:
    for epoch in (1, 2, 3, 10):
        save_weights(epoch_file(tmp_path, epoch), {"w": torch.zeros(1)})
    save_state(tmp_path, state(1))
    delete_other_epochs(tmp_path, [2, 10])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch0002.safetensors", "epoch0010.safetensors", "last.pt"]


def test_average_is_the_float64_mean(tmp_path: Path) -> None:
    """Values that float32 sums would lose: 1e8 + 1 - 1e8."""
    rng = np.random.default_rng(0)
    paths = []
    for epoch, large in enumerate((1e8, 1.0, -1e8), start=1):
        paths.append(epoch_file(tmp_path, epoch))
        weights = {"a": torch.tensor([large]), "b": torch.from_numpy(rng.normal(size=(3, 4)).astype(np.float32))}
        save_weights(paths[-1], {**weights, "c": weights["b"].T.bfloat16()})
    mean = mean_weights(paths)
    arrays = [{name: tensor.double().numpy() for name, tensor in load_weights(path).items()} for path in paths]
    assert mean["a"].item() == np.float32(1 / 3)
    expected = np.mean([array["b"] for array in arrays], axis=0).astype(np.float32)
    assert np.array_equal(mean["b"].numpy(), expected)
    assert mean["b"].dtype == torch.float32
    assert mean["c"].dtype == torch.bfloat16
    assert np.allclose(mean["c"].double().numpy(), np.mean([array["c"] for array in arrays], axis=0), rtol=2**-8)


@pytest.mark.parametrize("other", [{"b": torch.ones(7)}, {"a": torch.ones(1)}, {"a": torch.ones(3, 7)}, {}])
def test_weights_of_different_models_have_no_average(other: dict[str, torch.Tensor], tmp_path: Path) -> None:
    paths = [epoch_file(tmp_path, epoch) for epoch in (1, 2)]
    save_weights(paths[0], {"a": torch.ones(7)})
    save_weights(paths[1], other)
    with pytest.raises(UserError, match=r"epoch0002\.safetensors: has weights of other names or shapes than epoch0001"):
        mean_weights(paths)


def test_missing_and_broken_weights_are_the_users_to_know(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="no such weights; stage 4"):
        load_weights(path)
    save_weights(path, {"a": torch.randn(70)})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_weights(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64])
def test_weights_of_types_that_are_not_computed_with_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", {"a": torch.ones(3).to(dtype)})
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(UserError, match=rf"w\.safetensors: a has the type {name}; known types: float32, .*; convert the file"):
        load_weights(tmp_path / "w.safetensors")


def test_weights_may_be_views_and_come_from_a_model_in_training(tmp_path: Path) -> None:
    weight = torch.randn(3, 4, requires_grad=True)
    save_weights(tmp_path / "w.safetensors", {"t": weight.T})
    assert torch.equal(load_weights(tmp_path / "w.safetensors")["t"], weight.detach().T)
