"""The log of a training: train.jsonl, tensorboard and the log."""

import json
import os
from pathlib import Path
from typing import Any

from asrprune.experiment.paths import ExperimentPaths
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import parse_json, write_text
from asrprune.runtime.planted import no_link, open_plain


class Journal:
    """Appends records to ``train.jsonl`` and tensorboard; a resumed run first forgets what lies after its state."""

    def __init__(self, exp: Path, step: int, epoch: int) -> None:
        """Open for appending after update ``step`` in ``epoch`` (the first that is not finished)."""
        self.path = ExperimentPaths(exp).log
        _forget(self.path, step, epoch)
        self._file = open(self.path, "a", encoding="utf-8", opener=no_link)  # noqa: SIM115  (open for the whole run)
        from torch.utils.tensorboard import SummaryWriter  # seconds to import, and the report only reads

        self._board = SummaryWriter(str(exp / "tensorboard"), purge_step=step + 1)

    def step(self, record: dict[str, Any]) -> None:
        """Record an update: loss, tap losses, learning rate, gradient norm, speed."""
        self._write({"kind": "step", **record})
        scalars = {key: record[key] for key in ("loss", "lr", "grad_norm", "frames_per_s")}
        self._plot(record["step"], {**scalars, **{f"tap_loss/{tap}": loss for tap, loss in record["tap_losses"].items()}})

    def epoch(self, record: dict[str, Any]) -> None:
        """Record the end of an epoch: dev loss and WER of every tap."""
        self._write({"kind": "epoch", **record})
        curves = {f"{name}/{tap}": value for name in ("dev_loss", "dev_wer") for tap, value in record[name].items()}
        self._plot(record["step"], {"train_loss": record["train_loss"], **curves})

    def sync(self) -> None:
        """Bring all records to the disk: before a state is saved that holds them for written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush everything."""
        self._file.close()
        self._board.close()

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def _plot(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)


class SilentJournal(Journal):
    """The journal of a process that does not write: another process of the training does."""

    def __init__(self) -> None:
        pass

    def step(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The records of a ``train.jsonl``; a last line that a kill cut short is left out.

    Raises:
        UserError: another line is broken.
    """
    records = []
    with open_plain(path) as handle:
        lines = handle.read().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(parse_json(line.decode()))
        except ValueError:
            if number < len(lines):
                raise UserError(
                    f"{path}:{number}: not a JSON record; only the last line may be cut short, so delete this one"
                ) from None
    return records


def _forget(path: Path, step: int, epoch: int) -> None:
    """Drop the records that a resumed run will write again."""
    if not path.exists():
        return
    records = read_journal(path)
    kept = [r for r in records if (r["epoch"] < epoch if r["kind"] == "epoch" else r["step"] <= step)]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
