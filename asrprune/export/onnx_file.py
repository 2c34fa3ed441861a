"""The ONNX file: default depth and metadata. If its input is features, sherpa-onnx can load it."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from asrprune.export.session import KEEP
from asrprune.runtime.errors import UserError

if TYPE_CHECKING:
    import onnx


def set_default(file: "onnx.ModelProto", values: np.ndarray, name: str = KEEP) -> None:
    """Set the default of an input, such as the layers (L,) bool that run.

    In ONNX an initialiser with the name of an input is its default value. onnxruntime shows such an input as optional, so
    programs that give two inputs only can load the file.
    """
    onnx = import_onnx()
    found = [tensor for tensor in file.graph.initializer if tensor.name == name]
    for tensor in found or [file.graph.initializer.add()]:
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))


def default_keep(file: "onnx.ModelProto") -> np.ndarray | None:
    """Return the layers (L,) bool that run by default; None: the file has one depth, or no default."""
    values = [tensor for tensor in file.graph.initializer if tensor.name == KEEP]
    return import_onnx().numpy_helper.to_array(values[0]) if values else None


def metadata(file: "onnx.ModelProto") -> dict[str, str]:
    """Return the metadata of a file."""
    return {entry.key: entry.value for entry in file.metadata_props}


def set_metadata(file: "onnx.ModelProto", facts: dict[str, Any]) -> None:
    """Write facts into the metadata; values other than strings are written as JSON."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    import_onnx().helper.set_model_props(file, {**metadata(file), **texts})


def import_onnx() -> ModuleType:
    """Import onnx; raise a ``UserError`` that says how to install it."""
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise UserError(f"{error.name} is missing; run: pip install 'asrprune[export]'") from None
    return onnx


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide messages of exporter and quantiser: of packages they could use, names of dimensions, merged constants."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("torch.onnx", "onnxscript", "onnx_ir", "root"))}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def write(file: "onnx.ModelProto", path: Path) -> None:
    """Write a file to a path that ``atomic_path`` gave."""
    import_onnx().save(file, str(path))
