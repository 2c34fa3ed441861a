"""The check of the machine: which requirements of asrprune are met, and the command that repairs each fault."""

from __future__ import annotations  # an old Python must be able to import this file and report its version

import importlib
import importlib.metadata
import locale
import os
import platform
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from asrprune.runtime.cores import usable_cores
from asrprune.runtime.errors import UserError, first_line
from asrprune.runtime.packages import BASE, EXTRAS, USES
from asrprune.runtime.torch_pair import NOT_INSTALLED, import_torchaudio, installed_version, pair_command

_OF_TRAINING = ("lightning-fabric", "kaldiio")  # an installation with none of these is not for training
_MIN_DISK_GIB = 1.0  # enough for egs/mini and its experiment
_GIB = 2**30
_SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Check:
    """The result of one check. ``fix`` is a command or a sentence; a failed check is a fault only if it is ``required``."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def diagnose() -> list[Check]:
    """Check Python, the libraries and the machine. Takes seconds, as it imports all libraries. Never raises an error."""
    packages = [_package(name, module) for name, module in BASE.items()]
    options = [_package(name, module, USES[extra]) for extra in USES for name, module in EXTRAS[extra].items()]
    machine = [_memory(), *_shared_memory(), _disk(Path.cwd()), _locale()]
    return [_python(), *packages, *_training(), *options, *machine]


def doctor_ok(checks: list[Check]) -> bool:
    """Return whether all required checks passed."""
    return all(check.ok for check in checks if check.required)


def format_report(checks: list[Check]) -> str:
    """Format one line per check, with the fix below it. Plain ASCII without rich, as the locale or rich may be broken."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        status = "ok" if check.ok else "FAIL" if check.required else "-"
        lines.append(f"{status:<4}  {check.name:<{width}}  {check.detail}")
        if not check.ok and check.fix:
            lines.append(f"{'':<4}  {'':<{width}}  -> {check.fix}")
    faults = sum(not check.ok and check.required for check in checks)
    verdict = "Nothing that asrprune requires is missing." if not faults else f"To repair: {faults} (FAIL above)."
    return "\n".join([*lines, "", verdict])


def _python() -> Check:
    fix = "install Python 3.10 or newer, and make a new environment with it"
    return Check("python", sys.version_info >= (3, 10), f"{platform.python_version()} ({sys.executable})", fix)


def _training() -> list[Check]:
    """Check what training needs, if it is installed at all: an installation may be for exported models only."""
    if all(installed_version(name) == NOT_INSTALLED for name in _OF_TRAINING):
        detail = "not installed; this installation runs exported models: asrprune transcribe --model"
        return [Check("training", False, detail, "pip install 'asrprune[train]'", required=False)]
    torch = _torch()
    others = {name: module for name, module in EXTRAS["train"].items() if name not in ("torch", "torchaudio")}
    hardware = [_gpu(), _cpu(), _bf16()] if torch.ok else []
    return [torch, _torchaudio(), *(_package(name, module) for name, module in others.items()), *hardware]


def _torch() -> Check:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken library may raise any error
        return Check("torch", False, _why(error, "torch"), pair_command())
    return Check("torch", True, str(torch.__version__))


def _torchaudio() -> Check:
    try:
        return Check("torchaudio", True, str(import_torchaudio().__version__))
    except UserError as error:
        return Check("torchaudio", False, str(error), pair_command())


def _package(name: str, module: str, use: str = "") -> Check:
    """Check a package; ``use`` names the purpose of an optional package."""
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a broken package may raise any error; the report shows it
        only = f"; only needed for {use}" if use else ""
        return Check(name, False, _why(error, module) + only, f"pip install {name}", required=not use)
    libsndfile = getattr(imported, "__libsndfile_version__", "")
    return Check(name, True, installed_version(name) + (f" (libsndfile {libsndfile})" if libsndfile else ""), required=not use)


def _gpu() -> Check:
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    if found:
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return Check("GPU", True, ", ".join(f"{d.name}, {d.total_memory / _GIB:.0f} GiB" for d in devices), required=False)
    if said:
        fix = "update the GPU driver, or use the CPU"
        return Check("GPU", False, f"torch cannot use it ({first_line(said[0].message)})", fix, required=False)
    return Check("GPU", True, "none; the CPU is used", required=False)


def _cpu() -> Check:
    import torch

    return Check("CPU", True, f"cores: {usable_cores()}; threads of torch: {torch.get_num_threads()}")


def _bf16() -> Check:
    import torch

    from asrprune.runtime.hardware import has_fast_bf16

    native = has_fast_bf16(torch.device("cpu"))
    return Check("bfloat16 on CPU", True, "native: training is faster with it" if native else "not native: float32 is used")


def _memory() -> Check:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # the system does not offer these values
        return Check("memory", True, "unknown")
    return Check("memory", True, f"{total / _GIB:.1f} GiB{_available_memory()}")


def _shared_memory() -> list[Check]:
    """Check /dev/shm, through which worker processes send batches; with Docker it has 64 MB by default."""
    if not _SHM.is_dir():  # macOS
        return []
    total_gib = shutil.disk_usage(_SHM).total / _GIB
    fix = "docker run --shm-size=8g or --ipc=host, or train with train.num_workers=0"
    return [Check("shared memory", total_gib >= 1, f"{total_gib:.1f} GiB in {_SHM}", fix, required=False)]


def _available_memory() -> str:
    meminfo = Path("/proc/meminfo")  # Linux
    for line in meminfo.read_text(encoding="utf-8").splitlines() if meminfo.exists() else []:
        if line.startswith("MemAvailable:"):
            return f", {int(line.split()[1]) * 1024 / _GIB:.1f} GiB available"
    return ""


def _disk(directory: Path) -> Check:
    """Check that ``directory`` is writable and has enough free space."""
    free_gib = shutil.disk_usage(directory).free / _GIB
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        return Check(
            "disk", False, f"{directory} is not writable ({error.strerror})", "cd to a directory where you can write files"
        )
    fix = f"free {_MIN_DISK_GIB:.0f} GiB, or cd to a larger disk"
    return Check("disk", free_gib >= _MIN_DISK_GIB, f"{free_gib:.1f} GiB free, {directory} is writable", fix)


def _locale() -> Check:
    encoding = locale.getpreferredencoding(False)
    return Check("locale", encoding.lower().replace("-", "") == "utf8", encoding, "export PYTHONUTF8=1")


def _why(error: Exception, module: str) -> str:
    missing = isinstance(error, ModuleNotFoundError) and error.name == module
    return "not installed" if missing else f"does not import ({first_line(error)})"


if __name__ == "__main__":  # `python -m asrprune.runtime.doctor` also works where typer is missing
    _checks = diagnose()
    print(format_report(_checks))
    sys.exit(not doctor_ok(_checks))
