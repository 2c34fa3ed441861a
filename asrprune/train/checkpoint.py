"""Checkpoints: the state of a run for resuming, and the weights of the best epochs."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast
from zipfile import ZIP_STORED, ZipFile

import torch
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from typing_extensions import NotRequired, TypedDict

from asrprune.config.load import RecordedConfig, parse_config
from asrprune.config.schema import Config
from asrprune.runtime.errors import UserError, first_line
from asrprune.runtime.files import atomic_path
from asrprune.runtime.planted import open_plain

logger = logging.getLogger(__name__)
STATE = "last.pt"
PREVIOUS = "previous.pt"
FORMAT = 4
Count = Annotated[int, Field(ge=0, le=2**53)]  # larger numbers are not exact as float64
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor in the layout of a new one, the only layout that fused kernels read correctly."""
    if type(tensor) is not Tensor or tensor.dtype != torch.float32 or not tensor.is_contiguous():
        raise ValueError("is no float32 tensor with one number after the other")
    return tensor


_Numbers = Annotated[Tensor, AfterValidator(_plain)]
_TENSORS = ConfigDict(arbitrary_types_allowed=True)


class _Record(TypedDict):
    """The dev results of an epoch; see ``experiment.store.Epoch``."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    epoch: Count
    wer: float
    loss: float
    mean_wer: float
    mean_loss: float
    sha256: NotRequired[str]


class _Progress(TypedDict):
    """The part of the progress that is also read outside of training."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    records: list[_Record]


class _Moments(TypedDict):
    """What AdamW keeps of a weight."""

    __pydantic_config__ = _TENSORS  # type: ignore[misc]
    step: _Numbers
    exp_avg: _Numbers
    exp_avg_sq: _Numbers


class _Optimizer(TypedDict):
    state: dict[str, _Moments]


class _Window(TypedDict):
    """See ``train.window.Window``."""

    __pydantic_config__ = _TENSORS  # type: ignore[misc]
    losses: _Numbers
    reached: _Numbers
    utterances: Count
    frames: Annotated[float, Field(ge=0, le=2**53)]
    layers_run: Count
    ended_at: dict[Count, Count]
    grad_norm: float
    seconds: Seconds


class _State(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow", arbitrary_types_allowed=True)  # type: ignore[misc]
    format: int
    model: dict[str, Tensor]
    optimizer: _Optimizer
    progress: _Progress
    window: NotRequired[_Window]  # earlier versions saved states only when it was empty
    config: NotRequired[RecordedConfig]  # earlier versions did not save it


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
                _check_archive(handle)
                state = torch.load(handle, map_location="cpu", weights_only=True)
                _check_fields(state)
                return cast(dict[str, Any], state)
            except Exception as error:  # torch and zipfile stumble over damaged files in many ways
                logger.warning("%s cannot be read (%s); trying the previous state", path, first_line(error))
    if present:
        raise UserError(f"{directory}: no readable training state; remove {directory} to train from the start")
    return None


def trained_with(state: Mapping[str, Any]) -> Config | None:
    """Return the config of the training that saved a state; None: an earlier version saved it."""
    return parse_config(state["config"], "config") if "config" in state else None


def _check_archive(handle: BinaryIO) -> None:
    """Raise a ValueError if a part of the file is damaged, or if it unpacks to more bytes than it has."""
    size = handle.seek(0, os.SEEK_END)
    archive = ZipFile(handle)
    parts = archive.infolist()
    if any(part.compress_type != ZIP_STORED for part in parts) or sum(part.file_size for part in parts) > size:
        raise ValueError("its parts are compressed or overlap, which torch never writes")
    if damaged := archive.testzip():  # torch writes checksums but does not compare them
        raise ValueError(f"{damaged} is damaged")
    handle.seek(0)


def _check_fields(state: Any) -> None:
    """Raise a ValueError that names the first field that is missing or of another type."""
    try:
        _STATE.validate_python(state, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Return all weights, on the CPU. Each process may hold a part of them, so all processes must call this."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict  # slow to import

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def whole_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of the optimiser by weight name; see ``whole_weights``."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    return get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, weights: dict[str, Any], moments: dict[str, Any]) -> None:
    """Load what ``whole_weights`` and ``whole_moments`` returned; the number of processes may be another one now.

    The optimiser keeps its own numbers, such as the weight decay.

    Raises:
        Exception: they are those of another model; torch has many classes for this.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, name in names.items():
        _check_moments(name, moments["state"][name], parameter.shape)
    groups = [{**group, "params": [names[parameter] for parameter in group["params"]]} for group in optimizer.param_groups]
    own = {"state": moments["state"], "param_groups": groups}
    whole = StateDictOptions(full_state_dict=True)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=own, options=whole)


def _check_moments(name: str, moments: Mapping[str, Tensor], shape: torch.Size) -> None:
    """Raise a ValueError unless moments have the shape of their weight; the fused AdamW would write beside others."""
    shapes = {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}
    for key, right in shapes.items():
        if moments[key].shape != right:
            raise ValueError(f"{key} of {name} has the shape {[*moments[key].shape]}, not {[*right]}")


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
