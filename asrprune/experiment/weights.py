"""Weight files in safetensors format."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as safetensors."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors))


_TYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
_MOVED = {"encoder.final_norm.": "head.norm.", "ctc.": "head.project."}  # old prefix of a weight name -> current prefix


def current_name(name: str) -> str:
    """Return the current name of a weight; ``name`` may come from an earlier version.

    >>> current_name("ctc.bias"), current_name("encoder.layers.0.qkv.bias")
    ('head.project.bias', 'encoder.layers.0.qkv.bias')
    """
    return next((new + name.removeprefix(old) for old, new in _MOVED.items() if name.startswith(old)), name)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a weight file.

    Raises:
        UserError: it is missing or broken, or a weight has a type that is not computed with or a number that is not finite.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights; stage 4 (train) and stage 5 (average) make them")
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors raises an undocumented error class
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    for name, tensor in weights.items():
        if tensor.dtype not in _TYPES:
            known = ", ".join(map(_type_name, _TYPES))
            raise UserError(f"{path}: {name} has the type {_type_name(tensor.dtype)}; known types: {known}; convert the file")
        if not torch.isfinite(tensor).all():
            raise UserError(f"{path}: {name} contains numbers that are not finite; the training failed, train again")
    return {current_name(name): tensor for name, tensor in weights.items()}


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
