"""A part of the model as an ONNX function. A layer is traced once; all layers are that function with weights of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from asrprune.export.onnx_file import quiet
from asrprune.export.operators import translations

OPSET = 18
DOMAIN = "asrprune"


@dataclass(frozen=True)
class Example:
    """An input that a part is traced with."""

    value: Tensor
    any_size: Mapping[int, Any]  # position -> ``torch.export.Dim`` of a dimension that may have any size


@dataclass(frozen=True)
class Part:
    """An ONNX function. Its inputs are those of the module, then its weights."""

    function: ir.Function
    weights: Mapping[str, ir.TensorProtocol]  # name in the module -> the values that were traced


def trace(module: nn.Module, inputs: Mapping[str, Example], outputs: int = 1) -> Part:
    """Trace a module of ``graph``; the function gets the name of its class.

    Args:
        module: the module.
        inputs: names and examples of the arguments of ``forward``.
        outputs: number of outputs.
    """
    with quiet():
        program = torch.onnx.export(
            module.eval(), tuple(each.value for each in inputs.values()), dynamo=True, opset_version=OPSET, optimize=False,
            external_data=False, input_names=[*inputs], output_names=[f"output_{n}" for n in range(outputs)], verbose=False,
            dynamic_shapes=tuple(dict(each.any_size) for each in inputs.values()), custom_translation_table=translations(),
        )  # fmt: skip
    assert program is not None
    graph = program.model.graph
    used = {name: value for name, value in graph.initializers.items() if value.uses()}
    weights = {name: value.const_value for name, value in used.items() if value.const_value is not None}
    graph.initializers.clear()
    graph.inputs.extend(used.values())
    return Part(ir.Function(DOMAIN, type(module).__name__, graph=graph, attributes=()), weights)
