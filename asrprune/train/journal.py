"""The records of a training run in train.jsonl and tensorboard."""

import json
import os
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from asrprune.experiment.paths import ExperimentPaths
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import parse_json, write_text
from asrprune.runtime.hardware import Arithmetic
from asrprune.runtime.planted import no_link, read_plain
from asrprune.runtime.records import Finite

Percent = Annotated[float, Field(allow_inf_nan=False, le=1e15)]  # of larger ones no figure can be drawn
Exit = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]  # a layer


class _Step(TypedDict):
    """The fields of a line about some updates that a reader needs; the line has more."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    kind: Literal["step"]
    step: int
    epoch: int
    lr: float


class _Epoch(TypedDict):
    """The fields of a line about an epoch that a reader needs; losses and error rates are by exit."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    kind: Literal["epoch"]
    step: int
    epoch: int
    seconds: Finite
    train_loss: float
    dev_loss: Annotated[dict[Exit, float], Field(min_length=1)]
    dev_wer: Annotated[dict[Exit, Percent], Field(min_length=1)]
    precision: NotRequired[Arithmetic]


_LINE: TypeAdapter[Any] = TypeAdapter(Annotated[_Step | _Epoch, Field(discriminator="kind")])


class Journal:
    """The writer of ``train.jsonl`` and tensorboard. A resumed run first drops the records after its state."""

    def __init__(self, exp: Path, step: int, epoch: int) -> None:
        """Open for appending after update ``step`` in ``epoch``, the first unfinished epoch."""
        self.path = ExperimentPaths(exp).log
        _forget(self.path, step, epoch)
        self._file = open(self.path, "a", encoding="utf-8", opener=no_link)  # noqa: SIM115  (open for the whole run)
        from torch.utils.tensorboard import SummaryWriter  # takes seconds, and the report, which only reads, does not need it

        self._board = SummaryWriter(str(exp / "tensorboard"), purge_step=step + 1)
        threading.excepthook = _tell_error_of_thread

    def step(self, record: dict[str, Any]) -> None:
        """Record the updates since the last record: loss, tap losses, learning rate, gradient norm, speed."""
        self._write({"kind": "step", **record})
        scalars = {key: record[key] for key in ("loss", "lr", "grad_norm", "frames_per_s")}
        self._plot(record["step"], {**scalars, **{f"tap_loss/{tap}": loss for tap, loss in record["tap_losses"].items()}})

    def epoch(self, record: dict[str, Any]) -> None:
        """Record the end of an epoch: dev loss and WER of every exit."""
        self._write({"kind": "epoch", **record})
        curves = {f"{name}/{tap}": value for name in ("dev_loss", "dev_wer") for tap, value in record[name].items()}
        self._plot(record["step"], {"train_loss": record["train_loss"], **curves})

    def sync(self) -> None:
        """Write all records to the disk; call this before saving a state."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close both files."""
        self._file.close()
        self._board.close()

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def _plot(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)


def _tell_error_of_thread(failed: Any) -> None:
    """Print the traceback of a thread, except tensorboard's, whose error (such as a full disk) ``add_scalar`` raises again."""
    if type(failed.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(failed)


class SilentJournal(Journal):
    """The journal of the other training processes, which do not write."""

    def __init__(self) -> None:
        pass

    def step(self, record: dict[str, Any]) -> None:
        """Do nothing."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Read the records of ``train.jsonl``; skip an incomplete last line of a killed run.

    Raises:
        UserError: another line is broken.
    """
    records = []
    lines = read_plain(path).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line.decode())
            _LINE.validate_python(record, strict=True)
            records.append(record)
        except ValueError:
            if number < len(lines):
                raise UserError(
                    f"{path}:{number}: not a JSON record of a training; only the last line may be incomplete; delete this line"
                ) from None
    return records


def _forget(path: Path, step: int, epoch: int) -> None:
    """Drop the records that a resumed run will write again."""
    if not path.exists():
        return
    records = read_journal(path)
    kept = [r for r in records if (r["epoch"] < epoch if r["kind"] == "epoch" else r["step"] <= step)]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
