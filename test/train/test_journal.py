"""train.jsonl: what a resumed run forgets, and lines that a kill cut short."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from asrprune.runtime.errors import UserError
from asrprune.train.journal import Journal, read_journal


def step(number: int, epoch: int) -> dict[str, Any]:
    return {
        "step": number, "epoch": epoch, "loss": 1.0, "tap_losses": {"2": 1.5, "4": 0.5}, "lr": 0.1, "grad_norm": 2.0,
        "frames_per_s": 3.0, "elapsed_s": 4.0,
    }  # fmt: skip


def epoch(number: int, at: int) -> dict[str, Any]:
    return {"epoch": number, "step": at, "train_loss": 1.0, "dev_loss": {"4": 1.0}, "dev_wer": {"4": 50.0}, "seconds": 9.0}


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """Two epochs of four updates, a line for every second update."""
    journal = Journal(tmp_path, 0, 1)
    for number in (1, 2):
        for at in (2, 4):
            journal.step(step(4 * (number - 1) + at, number))
        journal.epoch(epoch(number, 4 * number))
    journal.close()
    return tmp_path


def names(exp: Path) -> list[str]:
    return [f"{record['kind']} {record['step']}" for record in read_journal(exp / "train.jsonl")]


ALL = ["step 2", "step 4", "epoch 4", "step 6", "step 8", "epoch 8"]


def test_records_are_kept_in_order_and_whole(exp: Path) -> None:
    assert names(exp) == ALL
    assert read_journal(exp / "train.jsonl")[0] == {"kind": "step", **step(2, 1)}
    assert read_journal(exp / "train.jsonl")[2] == {"kind": "epoch", **epoch(1, 4)}


@pytest.mark.parametrize(
    ("done", "under_way", "left"),
    [
        (0, 1, []),  # killed before the first state
        (2, 1, ["step 2"]),
        (4, 1, ["step 2", "step 4"]),  # the state was saved before the epoch was evaluated
        (4, 2, ["step 2", "step 4", "epoch 4"]),
        (6, 2, ["step 2", "step 4", "epoch 4", "step 6"]),
        (8, 3, ALL),
    ],
)
def test_resumed_run_forgets_what_it_will_write_again(exp: Path, done: int, under_way: int, left: list[str]) -> None:
    Journal(exp, done, under_way).close()
    assert names(exp) == left


def test_records_are_appended_after_those_that_are_kept(exp: Path) -> None:
    journal = Journal(exp, 4, 2)
    journal.step(step(5, 2))
    journal.sync()
    assert names(exp) == ["step 2", "step 4", "epoch 4", "step 5"]
    journal.close()


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_last_line_that_was_cut_short_is_left_out(exp: Path, cut: int) -> None:
    path = exp / "train.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert names(exp) == (ALL if cut == 1 else ALL[:-1])
    Journal(exp, 8, 3).close()
    assert path.read_text().endswith("}\n")
    assert len(path.read_text().splitlines()) == len(names(exp))


def test_zeros_at_the_end_are_left_out(exp: Path) -> None:
    """What some file systems leave after a loss of power."""
    path = exp / "train.jsonl"
    path.write_bytes(path.read_bytes() + b"\0" * 99)
    assert names(exp) == ALL


def test_broken_line_in_the_middle_is_an_error(exp: Path) -> None:
    path = exp / "train.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1][:20] + "\n"
    path.write_text("".join(lines))
    with pytest.raises(UserError, match=r"train\.jsonl:2: not a JSON record"):
        read_journal(path)


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_an_error_rate_that_is_no_number_is_an_error(exp: Path, value: str) -> None:
    path = exp / "train.jsonl"
    path.write_text(path.read_text().replace('"dev_wer": {"4": 50.0}', f'"dev_wer": {{"4": {value}}}'))
    with pytest.raises(UserError, match=r"train\.jsonl:\d+: not a JSON record"):
        read_journal(path)


def test_numbers_survive_being_forgotten_around(exp: Path) -> None:
    """The file is written anew on every start, so numbers must come back to the last bit."""
    journal = Journal(exp, 8, 3)
    journal.step({**step(9, 3), "loss": 0.1 + 0.2, "grad_norm": float("inf")})
    journal.close()
    before = (exp / "train.jsonl").read_bytes()
    Journal(exp, 9, 3).close()
    assert (exp / "train.jsonl").read_bytes() == before
    assert json.loads(before.splitlines()[-1])["loss"] == 0.1 + 0.2


def curves(exp: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(exp / "tensorboard")).Reload()


def test_curves_are_drawn(exp: Path) -> None:
    events = curves(exp)
    assert {"loss", "lr", "tap_loss/2", "tap_loss/4", "dev_wer/4", "train_loss"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6, 8]


def test_curves_of_a_resumed_run_have_every_step_once(exp: Path) -> None:
    journal = Journal(exp, 4, 2)
    for number in (6, 8):
        journal.step(step(number, 2))
    journal.close()
    assert [event.step for event in curves(exp).Scalars("loss")] == [2, 4, 6, 8]


def test_a_full_disk_under_the_curves_is_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path, 0, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    journal._board._get_file_writer().event_writer._async_writer._writer.write = full

    def write_lines() -> None:
        for number in range(1, 100):
            journal.step(step(number, 1))
            time.sleep(0.01)

    with pytest.raises(OSError, match="No space left"):
        write_lines()
    assert capfd.readouterr().err == ""
