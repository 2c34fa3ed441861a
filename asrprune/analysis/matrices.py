"""The file svcca/<set>.npz with the similarities and influence of the layers: its path and its content."""

import zipfile
from pathlib import Path

import numpy as np

from asrprune.runtime.errors import UserError

_STAGE = "stage 6 (`asrprune svcca`)"


def similarity_path(exp: Path, set_name: str) -> Path:
    """Return the path of the similarities of a set."""
    return exp / "svcca" / f"{set_name}.npz"


def read_matrices(path: Path) -> dict[str, np.ndarray]:
    """Read the file of ``measure_layers``: matrices, influence (older files lack it), layers, frames, model_sha256.

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {_STAGE} makes it") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a complete .npz file ({error}); {_STAGE} makes it again") from None
