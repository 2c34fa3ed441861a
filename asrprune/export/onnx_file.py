"""The ONNX file: tracing, default depth, metadata. If its input is features, sherpa-onnx can load it."""

import contextlib
import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asrprune.config.lengths import min_frames
from asrprune.experiment.plan import Keep
from asrprune.export.graph import AnyDepth, EarlyExit, OneDepth
from asrprune.export.operators import translations
from asrprune.export.session import INPUTS, KEEP, LAYERS, OUTPUTS, THRESHOLDS
from asrprune.export.waveform import Fbank
from asrprune.model.ctc_model import CtcModel
from asrprune.runtime.errors import UserError

if TYPE_CHECKING:
    import onnx
    import onnx_ir

OPSET = 18
_FRAMES = 93  # of the traced batch; if another dimension had this size, the exporter would treat both as one


def any_depth(model: CtcModel, fbank: Fbank | None = None) -> "onnx.ModelProto":
    """Trace all layers, one ``If`` for each; the required input ``keep`` (L,) bool says which of them run.

    With ``fbank`` the file takes samples, else features.
    """
    return _trace(AnyDepth(model, fbank), {KEEP: _all_layers(model)})


def early_exit(model: CtcModel, exits: Sequence[int], fbank: Fbank | None = None) -> "onnx.ModelProto":
    """Trace all layers with their exits; see ``graph.EarlyExit``."""
    choice = {KEEP: _all_layers(model), THRESHOLDS: torch.full([len(exits) - 1], 0.5)}
    return _trace(EarlyExit(model, exits, fbank), choice, [LAYERS])


def one_depth(model: CtcModel, keep: Keep, fbank: Fbank | None = None) -> "onnx.ModelProto":
    """Trace the kept layers only."""
    return _trace(OneDepth(model, keep, fbank), {})


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


def _all_layers(model: CtcModel) -> torch.Tensor:
    return torch.ones(model.config.num_layers, dtype=torch.bool)


def _trace(graph: AnyDepth | OneDepth, choice: Mapping[str, torch.Tensor], outputs: Sequence[str] = ()) -> "onnx.ModelProto":
    """Trace a graph; ``choice``: its inputs that say what runs; ``outputs``: names of outputs beside ``OUTPUTS``."""
    import_onnx()
    dim = torch.export.Dim
    names = INPUTS["waveform" if graph.fbank else "features"]
    # The convolutions need so many frames. If this is not said, torch finds it out by tracing, and then traces once more.
    shortest = 0 if graph.fbank else min_frames(graph.factor)
    with quiet():
        program = torch.onnx.export(
            graph.eval(),
            (*_example(graph), *choice.values()),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=[*names, *choice],
            output_names=[*OUTPUTS, *outputs],
            dynamic_shapes=({0: dim("batch"), 1: dim("length", min=shortest)}, {0: dim("batch")}, *(None for _ in choice)),
            verbose=False,
            custom_translation_table=translations(),
        )
        assert program is not None
        _fold_weights(program.model)
    file = program.model_proto
    _forget_source(file.graph)
    return file


def _fold_weights(model: "onnx_ir.Model") -> None:
    """Reshape weights now instead of in each call: the quantiser takes weights only, not what is computed from them."""
    from onnxscript.optimizer import fold_constants

    most = sys.maxsize
    fold_constants(
        model, input_size_limit=most, output_size_limit=most, should_fold=lambda node: node.op_type == "Reshape" or None
    )  # fmt: skip


def _forget_source(graph: "onnx.GraphProto") -> None:
    """Remove the exporter's notes on each node: lines of Python, with paths of this machine. They take 6 of 11 MB with int8."""
    for entry in [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_source(attribute.g)


def _example(graph: AnyDepth | OneDepth) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an input of two utterances, and their lengths."""
    frames = max(_FRAMES, 2 * min_frames(graph.factor) + 1)
    if graph.fbank:
        samples = frames * graph.fbank.shift
        return 0.1 * torch.randn(2, samples), torch.tensor([samples, samples - 700])
    return torch.randn(2, frames, len(graph.model.cmvn_mean)), torch.tensor([frames, frames - 7])


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
