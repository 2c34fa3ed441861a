"""The file svcca/<set>.npz with the similarities and influence of the layers: its path and its content."""

from pathlib import Path

import numpy as np

from asrprune.config.schema import PruneConfig
from asrprune.runtime.errors import UserError, first_line
from asrprune.runtime.planted import inside, open_plain

_STAGE = "stage 6 (`asrprune svcca`)"
_OPTIONAL = {"pwcca", "influence"}  # older files lack them
_MOST_BYTES = 1 << 28  # of all arrays; those of a model of 1,000 layers have 24 million


def similarity_path(exp: Path, set_name: str) -> Path:
    """Return the path of the similarities of a set."""
    return inside(exp, "svcca", f"{set_name}.npz")


def settings_of(options: PruneConfig) -> str:
    """Return the numbers on which the measures depend, as text."""
    return f"prune.svcca_variance {options.svcca_variance:g}, prune.svcca_frames {options.svcca_frames}"


def read_matrices(path: Path) -> dict[str, np.ndarray]:
    """Read the file that ``measure_layers`` writes. Older files lack pwcca, influence or utterances.

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        with open_plain(path) as handle, np.load(handle, allow_pickle=False) as arrays:
            if sum(member.file_size for member in arrays.zip.infolist()) > _MOST_BYTES:
                raise ValueError("it is too large")
            stored = dict(arrays)
        stored["model_sha256"].item()  # an error unless it is a single value
        for name, shape in _shapes(stored["layers"].size).items():
            if name not in stored and name in _OPTIONAL:
                continue
            if name not in stored:
                raise ValueError(f"it lacks {name}")
            if stored[name].dtype.kind not in "fi" or stored[name].shape != shape:
                raise ValueError(f"{name} is no array of numbers of the shape {shape}")
        return stored
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {_STAGE} makes it") from None
    except Exception as error:  # numpy and zipfile stumble over damaged files in many ways
        raise UserError(f"{path}: not a complete .npz file ({first_line(error)}); {_STAGE} makes it again") from None


def _shapes(count: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each array; ``count`` is L + 1, the number of x_0 to x_L."""
    matrices = dict.fromkeys(("similarity", "pwcca", "cka"), (count, count))
    return {"layers": (count,), **matrices, "influence": (count - 1,), "frames": ()}
