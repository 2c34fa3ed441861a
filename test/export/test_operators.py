"""Our translations of operators give the numbers of torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'asrprune[export]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'asrprune[export]'")

from asrprune.export.operators import translations  # noqa: E402  # needs onnxscript


def traced(module: nn.Module, path: Path) -> Any:
    """Export a convolution of (B, C, T) with any B and T to ``path``."""
    dim = torch.export.Dim
    program = torch.onnx.export(
        module.eval(), (torch.randn(2, module.in_channels, 41),), dynamo=True, opset_version=18, verbose=False,
        dynamic_shapes=({0: dim("batch"), 2: dim("length", min=3)},), custom_translation_table=translations(),
    )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)
    return program.model_proto


@pytest.mark.parametrize(
    ("options", "operator"),
    [
        ({"stride": 2}, "MatMul"),
        ({"stride": 2, "bias": False}, "MatMul"),
        ({"stride": 1}, "Conv"),
        ({"stride": 2, "padding": 1}, "Conv"),
        ({"stride": 2, "dilation": 2, "padding": 1}, "Conv"),
        ({"stride": 2, "groups": 4}, "Conv"),
    ],
    ids=str,
)
def test_convolutions(options: dict[str, Any], operator: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Conv1d(4, 8, 3, **options)
    file = traced(module, tmp_path / "conv.onnx")
    assert {node.op_type for node in file.graph.node} & {"MatMul", "Conv"} == {operator}
    session = onnxruntime.InferenceSession(str(tmp_path / "conv.onnx"), providers=["CPUExecutionProvider"])
    for frames in (3, 4, 5, 6, 7, 100, 101):
        x = torch.randn(3, 4, frames)
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        with torch.no_grad():
            np.testing.assert_allclose(got, module(x).numpy(), atol=1e-5)
