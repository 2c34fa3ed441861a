"""The import of torchaudio, which must be of the same build as torch."""

from __future__ import annotations  # a Python that is too old must get far enough to be told so

import importlib
import importlib.metadata
from types import ModuleType

from asrprune.runtime.errors import UserError

TORCH_PAIR = "pip install torch==2.14.1 torchaudio==2.11.0"


def import_torchaudio() -> ModuleType:
    """Import torchaudio; if it does not fit the installed torch, the ``UserError`` names the pair that works."""
    try:
        return importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:  # missing; libc10_cuda.so not found; another CUDA than torch's
        raise UserError(
            f"torchaudio {installed_version('torchaudio')} does not import beside torch {installed_version('torch')}"
            f" ({first_line(error)}): "
            f"the two must be of one build; mend it with `{pair_command()}`"
        ) from error


def installed_version(distribution: str) -> str:
    """The version of an installed package, or ``(not installed)``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def pair_command() -> str:
    """The command that installs the pair.

    A build such as 2.14.1+cpu satisfies ``==2.14.1``, so pip would leave it: it has to go first.
    """
    return f"pip uninstall -y torch torchaudio && {TORCH_PAIR}" if "+" in installed_version("torch") else TORCH_PAIR


def first_line(error: object) -> str:
    """The first line of what an error says, or its type if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
