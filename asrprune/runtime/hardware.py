"""Devices and precision of this machine, and a description of the machine for results."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from asrprune.runtime.cores import usable_cores
from asrprune.runtime.errors import UserError
from asrprune.runtime.torch_pair import installed_version
from asrprune.runtime.version import version

Arithmetic: TypeAlias = Literal["float32", "bf16"]
Environment = dict[str, str | int | None]  # names of the machine and versions of programs


def pick_device(num_gpus: int) -> torch.device:
    """Return the CPU for 0 GPUs, else the first GPU (only training uses more); raise a ``UserError`` if there is none."""
    check_gpus(min(num_gpus, 1))
    return torch.device("cuda" if num_gpus else "cpu")


def check_gpus(wanted: int) -> None:
    """Raise a ``UserError`` if there are fewer GPUs than ``wanted``."""
    if wanted and not torch.cuda.is_available():
        raise UserError(
            f"--ngpu {wanted}: torch finds no GPU; use --ngpu 0 for the CPU, or run `asrprune doctor` to find the reason"
        )
    if wanted and wanted > (found := torch.cuda.device_count()):
        raise UserError(f"--ngpu {wanted}: torch finds only {found}; use --ngpu {found}, or check CUDA_VISIBLE_DEVICES")


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [gpu for gpu in visible.split(",") if gpu] if visible is not None else [*map(str, range(torch.cuda.device_count()))]


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether the device supports bfloat16: a CPU does if it has the flag avx512_bf16, amx_bf16 or (Arm) bf16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool({"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags())


def cpu_flags() -> set[str]:
    """Return the instruction-set flags of /proc/cpuinfo; empty on systems without it (macOS, Windows)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.partition(":")[2].split()}


def autocast_type(precision: str, device: torch.device) -> torch.dtype:
    """Return the type for ``precision``: bfloat16 for "bf16", and for "auto" if the device supports it; else float32."""
    if precision == "bf16" or (precision == "auto" and has_fast_bf16(device)):
        return torch.bfloat16
    return torch.float32


def arithmetic(precision: str, device: torch.device) -> Arithmetic:
    """Return the name of the type that ``autocast_type`` chooses."""
    return "bf16" if autocast_type(precision, device) == torch.bfloat16 else "float32"


def decided(precision: str, num_gpus: int) -> str:
    """Return what ``precision`` means on this machine: float32 or bf16.

    A login node without a GPU cannot say what "auto" means for its jobs, and leaves it to them.
    """
    if num_gpus and not torch.cuda.is_available():
        return precision
    return arithmetic(precision, torch.device("cuda" if num_gpus else "cpu"))


@contextmanager
def inference(precision: str, device: torch.device) -> Iterator[None]:
    """Run a trained model in this block without gradients, with ``precision``."""
    dtype = autocast_type(precision, device)
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        yield


def environment() -> Environment:
    """Return a description of the machine for a results file."""
    return {
        "asrprune": version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchaudio": installed_version("torchaudio"),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
