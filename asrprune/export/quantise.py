"""Smaller files: weights as 8-bit integers, with which matrix products are computed, or as 16-bit floating-point numbers."""

import tempfile
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asrprune.experiment.plan import Keep
from asrprune.export.onnx_file import import_onnx, quiet
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import temporary_directory

if TYPE_CHECKING:
    import onnx

_SMALLEST = 256  # numbers in a tensor; smaller ones save less than the node that converts them takes


def int8(file: "onnx.ModelProto", float32_layers: Keep = ()) -> "onnx.ModelProto":
    """Return a file that multiplies 8-bit integers in linear layers; the inputs of each product are scaled when it runs.

    Each column of a weight has its own scale. Weights have 7 bits, so that sums cannot overflow on x86 processors without
    VNNI: each processor gives the same numbers as the one on which the file was checked. Features stay in float32, and so do
    the convolutions of Conformers and conv2d, and ``float32_layers``; these can be given only if the file has all
    layers, each as an ``If``.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx = import_onnx()
    with temporary_directory(Path(tempfile.gettempdir()), "asrprune_int8") as folder, quiet():
        excluded = [node.name for node in file.graph.node if _of_features(node.input)]
        excluded += [name for layer in float32_layers for name in _nodes_of(file, layer)]
        before, after = folder / "float32.onnx", folder / "int8.onnx"
        onnx.save(file, str(before))
        quantize_dynamic(
            before, after, op_types_to_quantize=["MatMul"], nodes_to_exclude=excluded, per_channel=True, reduce_range=True,
            weight_type=QuantType.QInt8, extra_options={"EnableSubgraph": True},
        )  # fmt: skip
        small = onnx.load(str(after))
    _sort(small.graph)
    return small


def fp16(file: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a file of half the size, with weights as 16-bit floating-point numbers. It computes in float32.

    onnxruntime converts the weights once, when it loads the file. Products of 16-bit numbers would be slower on most CPUs.

    Raises:
        UserError: a weight is too large.
    """
    onnx = import_onnx()
    half = onnx.ModelProto()
    half.CopyFrom(file)
    casts = []
    for tensor in half.graph.initializer:
        name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= _SMALLEST and not _of_features([name]):
            if (largest := np.abs(values).max()) > np.finfo(np.float16).max:
                raise UserError(
                    f"--fp16: {name} has the weight {largest:g}, and float16 ends at 65504; export it without --fp16"
                )
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    for position, cast in enumerate(casts):  # nodes must follow those that make their inputs
        half.graph.node.insert(position, cast)
    return half


def _nodes_of(file: "onnx.ModelProto", layer: int) -> list[str]:
    """Return the names of the nodes of a layer. Each layer is a branch with attention; other branches belong to exits."""
    branches = [attribute.g.node for node in file.graph.node for attribute in node.attribute if attribute.HasField("g")]
    layers = [nodes for nodes in branches if any(node.op_type == "Softmax" for node in nodes)]
    names = [node.name for node in layers[layer - 1]]
    return [*names, *(f"{name}_MatMul" for name in names)]  # onnxruntime first replaces a Gemm by a MatMul of that name


def _sort(graph: "onnx.GraphProto") -> None:
    """Put each node behind those that it needs, as ONNX demands. onnxruntime's quantiser overlooks needs of branches."""
    nodes = list(graph.node)
    maker = {name: position for position, node in enumerate(nodes) for name in node.output}
    needs = {position: {maker[name] for name in _needs(node) if name in maker} for position, node in enumerate(nodes)}
    del graph.node[:]
    graph.node.extend(nodes[position] for position in TopologicalSorter(needs).static_order())


def _needs(node: "onnx.NodeProto") -> Iterator[str]:
    """Yield the names that a node and its branches use."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _needs(inner)


def _of_features(names: Iterable[str]) -> bool:
    """Return whether a name is of the log-mel front end, whose energies span a factor of 10^10: too much for few bits."""
    return any(name.startswith("fbank.") for name in names)
