"""A GPU that is not there: its tensors say that they are on it and are computed on the CPU; mixing devices fails as on CUDA.

Unlike torch's fake tensors these have values, so that decoding, search and training run to their end.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

GPU = torch.device("cuda", 0)
_CPU = torch.device("cpu")
_ATEN = torch.ops.aten
_COPIES = (_ATEN._to_copy.default, _ATEN.copy_.default)  # from one device to another
_OTHER_CTC = (_ATEN._use_cudnn_ctc_loss.Tensor, _ATEN._use_miopen_ctc_loss.Tensor)  # asked for; CUDA's own is used for int64


@contextmanager
def pretended_gpu(backward: bool = False) -> Iterator[torch.device]:
    """Have a GPU.

    Args:
        backward: have gradients, too, for which torch's C++ must believe that all is on the CPU; autocast then does nothing.
    """
    torch._C._ensureCUDADeviceGuardSet()  # a guard that does nothing where there is no driver
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a moved module gets new parameters, of another class
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes one on the CPU, then moves it by an operation
    try:
        with (
            patch.object(torch.cuda, "_lazy_init", lambda: None),
            patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            patch.object(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
            patch.object(OnGpu, "seen_as", _CPU if backward else GPU),
            _Gpu(),
        ):
            yield GPU
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(before)


class OnGpu(Tensor):
    """A tensor on it."""

    seen_as = GPU  # by torch's C++
    value: Tensor

    @staticmethod
    def __new__(cls, value: Tensor) -> "OnGpu":
        """Put a tensor there."""
        return Tensor._make_wrapper_subclass(
            cls, value.size(), strides=value.stride(), storage_offset=value.storage_offset(), dtype=value.dtype,
            device=cls.seen_as,
        )  # fmt: skip

    def __init__(self, value: Tensor) -> None:
        self.value = value

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The GPU."""
        return GPU

    def cpu(self, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
        """A copy on the CPU, where torch's C++ may believe that it is."""
        return _ATEN._to_copy.default(self, device=_CPU)

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """As ``Tensor.to``."""
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        device = GPU if device is None else device
        if device.type == "cuda" and dtype in (None, self.dtype):
            return self
        return _ATEN._to_copy.default(self, device=device, dtype=dtype)

    def tolist(self) -> Any:
        """Its values, which torch refuses for other classes than its own."""
        return self.value.tolist()

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"on {GPU}: {self.value}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        """As the mode, which is off while an operation runs."""
        return _run(func, args, kwargs or {})


class _Gpu(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func in _OTHER_CTC:
        return False
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, OnGpu)]
    here = [x for x in tensors if not isinstance(x, OnGpu) and x.dim() > 0]
    if there and here and func not in _COPIES:
        raise RuntimeError(f"{func}: tensors on {GPU} and on the CPU, of {[tuple(x.shape) for x in tensors]}")
    device = kwargs.get("device")
    if device is not None:
        kwargs = {**kwargs, "device": _CPU}
    values, options = tree_map_only(OnGpu, lambda x: x.value, (args, kwargs))
    made = func(*values, **options)
    if func is _ATEN.copy_.default:
        return args[0]
    by_autograd = func is _ATEN.new_empty_strided.default  # memory for a gradient, of the device that C++ sees
    if not there if device is None or by_autograd else torch.device(device).type == "cpu":
        return made
    own = {id(x.value): x for x in there}  # what was changed in place
    return tree_map_only(Tensor, lambda x: own[id(x)] if id(x) in own else OnGpu(x), made)
