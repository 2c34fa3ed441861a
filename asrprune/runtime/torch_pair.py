"""The import of torchaudio, which must be of the same build as torch."""

from __future__ import annotations  # an old Python must be able to import this file and report its version

import importlib
import importlib.metadata
from types import ModuleType

from asrprune.runtime.errors import UserError, first_line

TORCH_PAIR = "pip install torch==2.14.1 torchaudio==2.11.0"
NOT_INSTALLED = "(not installed)"


def import_torchaudio() -> ModuleType:
    """Import torchaudio; raise a ``UserError`` with the fix if it does not match the installed torch."""
    try:
        return importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:  # e.g. torchaudio is missing, or built for another CUDA version
        raise UserError(
            f"torchaudio {installed_version('torchaudio')} cannot be imported with torch {installed_version('torch')}"
            f" ({first_line(error)}): "
            f"both must be of the same build; run `{pair_command()}`"
        ) from error


def installed_version(distribution: str) -> str:
    """Return the version of an installed package, or ``NOT_INSTALLED``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def pair_command() -> str:
    """Return the command that installs torch and torchaudio.

    pip would keep a build such as 2.14.1+cpu, because it satisfies ``==2.14.1``; so it is uninstalled first.
    """
    return f"pip uninstall -y torch torchaudio && {TORCH_PAIR}" if "+" in installed_version("torch") else TORCH_PAIR
