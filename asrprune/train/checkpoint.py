"""Checkpoints: the state of a run for resuming, and the weights of the best epochs."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile

import torch
from pydantic import ConfigDict, TypeAdapter
from torch import nn
from typing_extensions import TypedDict

from asrprune.runtime.errors import UserError, first_line
from asrprune.runtime.files import atomic_path
from asrprune.runtime.planted import open_plain

logger = logging.getLogger(__name__)
STATE = "last.pt"
PREVIOUS = "previous.pt"
FORMAT = 4


class _Record(TypedDict):
    """The dev results of an epoch; see ``experiment.store.Epoch``."""

    epoch: int
    wer: float
    loss: float
    mean_wer: float
    mean_loss: float


class _Progress(TypedDict):
    """The part of the progress that is also read outside of training."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    records: list[_Record]


class _State(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    format: int
    progress: _Progress


_STATE = TypeAdapter(_State)


def save_state(directory: Path, state: dict[str, Any]) -> None:
    """Write the state of a run; keep the previous state as ``previous.pt``."""
    last = directory / STATE
    with atomic_path(last) as temporary:
        with open(temporary, "wb") as handle:  # given a path, torch raises a RuntimeError if the disk is full
            torch.save(state, handle)
        if last.exists():
            os.replace(last, directory / PREVIOUS)


def load_state(directory: Path) -> dict[str, Any] | None:
    """Read the newest readable state; return None if there are no state files.

    Raises:
        UserError: there are state files, but none of them can be read.
    """
    present = [path for path in (directory / STATE, directory / PREVIOUS) if path.exists()]
    for path in present:
        with open_plain(path) as handle:
            try:
                if damaged := ZipFile(handle).testzip():  # torch writes checksums but does not compare them
                    raise ValueError(f"{damaged} is damaged")
                handle.seek(0)
                state = torch.load(handle, map_location="cpu", weights_only=True)
                _STATE.validate_python(state, strict=True)
                return cast(dict[str, Any], state)
            except Exception as error:  # torch and zipfile stumble over damaged files in many ways
                logger.warning("%s cannot be read (%s); trying the previous state", path, first_line(error))
    if present:
        raise UserError(f"{directory}: no readable training state; remove {directory} to train from the start")
    return None


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Return all weights, on the CPU. Each process may hold a part of them, so all processes must call this."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict  # slow to import

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def whole_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of the optimiser by weight name; see ``whole_weights``."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    return get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, weights: dict[str, Any], moments: dict[str, Any]) -> None:
    """Load what ``whole_weights`` and ``whole_moments`` returned; the number of processes may be another one now."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    whole = StateDictOptions(full_state_dict=True)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=whole)


def epoch_file(directory: Path, epoch: int) -> Path:
    """Return the path of the weights after an epoch."""
    return directory / f"epoch{epoch:04d}.safetensors"


def best_epochs(records: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """Return the ``count`` epochs of the lowest mean dev WER over all exits; ties: the lower dev loss, then the later epoch."""
    ranked = sorted(records, key=lambda record: (record["mean_wer"], record["mean_loss"], -record["epoch"]))
    return sorted(record["epoch"] for record in ranked[:count])


def delete_other_epochs(directory: Path, keep: Sequence[int]) -> None:
    """Delete the weights of all epochs but ``keep``."""
    wanted = {epoch_file(directory, epoch).name for epoch in keep}
    for path in directory.glob("epoch*.safetensors"):
        if path.name not in wanted:
            path.unlink()
