"""Checkpoints: the exact state of a run, the best epochs' weights, and their average."""

import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from asrprune.errors import UserError
from asrprune.files import atomic_path

logger = logging.getLogger(__name__)
STATE = "last.pt"
PREVIOUS = "previous.pt"
FORMAT = 3
_BROKEN = (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)  # what torch.load raises on broken files


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
            return torch.load(path, map_location="cpu", weights_only=True)
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


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as safetensors."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read safetensors; a missing or broken file is a ``UserError``."""
    if not path.is_file():
        raise UserError(f"{path}: no such weights; stage 4 (train) and stage 5 (average) make them")
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own, undocumented class
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None


def epoch_file(directory: Path, epoch: int) -> Path:
    """Where the weights after an epoch lie."""
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


def average(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Mean of several weight files, summed in float64, in the files' own types."""
    assert paths
    first = load_weights(paths[0])
    sums = {name: tensor.double() for name, tensor in first.items()}
    for path in paths[1:]:
        for name, tensor in load_weights(path).items():
            sums[name] += tensor.double()
    return {name: (total / len(paths)).to(first[name].dtype) for name, total in sums.items()}
