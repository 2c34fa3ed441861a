"""What tests count in ONNX graphs."""

from typing import Any


def integer_products(file: Any) -> list[int]:
    """Return the number of products of integers in the branches of each ``If``."""
    choices = [[inner for attribute in node.attribute for inner in attribute.g.node] for node in file.graph.node]
    return [sum(inner.op_type == "MatMulInteger" for inner in nodes) for nodes in choices if nodes]
