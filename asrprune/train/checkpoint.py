"""Checkpoints: the exact state of a run, the best epochs' weights, and their average."""

import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path
from asrprune.runtime.planted import open_plain

logger = logging.getLogger(__name__)
STATE = "last.pt"
PREVIOUS = "previous.pt"
FORMAT = 4
# what torch.load raises on broken files
_BROKEN = (RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError, pickle.UnpicklingError)


def save_state(directory: Path, state: dict[str, Any]) -> None:
    """Write the state of a run; the one before it is kept as ``previous.pt``."""
    last = directory / STATE
    with atomic_path(last) as temporary:
        with open(temporary, "wb") as handle:  # given a path, torch turns a full disk into a RuntimeError
            torch.save(state, handle)
        if last.exists():
            os.replace(last, directory / PREVIOUS)


def load_state(directory: Path) -> dict[str, Any] | None:
    """The newest readable state, None if there is none.

    Raises:
        UserError: there are state files, but none can be read.
    """
    present = [path for path in (directory / STATE, directory / PREVIOUS) if path.exists()]
    for path in present:
        try:
            with open_plain(path) as handle:
                state = torch.load(handle, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or not state.keys() >= {"format", "progress"}:
                raise ValueError("it is no state of a training")
            return state
        except _BROKEN as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            logger.warning("%s cannot be read (%s); trying the one before it", path, reason)
    if present:
        raise UserError(f"{directory}: no readable training state; remove {directory} to train from the start")
    return None


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Weights on the CPU, put together where each of several processes holds a part: all of them must call this."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict  # slow to import

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def whole_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state by the names of the weights, as ``whole_weights``."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    return get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, weights: dict[str, Any], moments: dict[str, Any]) -> None:
    """Give ``whole_weights`` and ``whole_moments`` back, to any number of processes."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    whole = StateDictOptions(full_state_dict=True)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=whole)


def epoch_file(directory: Path, epoch: int) -> Path:
    """Return the path of the weights after an epoch."""
    return directory / f"epoch{epoch:04d}.safetensors"


def best_epochs(records: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """The ``count`` epochs with the lowest dev WER, the mean over all exits; ties: the lower dev loss, then the later epoch."""
    ranked = sorted(records, key=lambda record: (record["mean_wer"], record["mean_loss"], -record["epoch"]))
    return sorted(record["epoch"] for record in ranked[:count])


def prune_epochs(directory: Path, keep: Sequence[int]) -> None:
    """Delete the weights of all epochs but ``keep``."""
    wanted = {epoch_file(directory, epoch).name for epoch in keep}
    for path in directory.glob("epoch*.safetensors"):
        if path.name not in wanted:
            path.unlink()
