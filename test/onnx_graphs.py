"""What tests count in ONNX graphs."""

from collections.abc import Iterator
from typing import Any


def graphs_of(graph: Any) -> Iterator[Any]:
    """Yield a graph and its branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)


def branches(file: Any) -> list[list[str]]:
    """Return the operators in the branches of each ``If``."""
    choices = [[inner.op_type for attribute in node.attribute for inner in attribute.g.node] for node in file.graph.node]
    return [operators for operators in choices if operators]


def integer_products(file: Any) -> list[int]:
    """Return the number of products of integers in the branches of each ``If``."""
    return [operators.count("MatMulInteger") for operators in branches(file)]
