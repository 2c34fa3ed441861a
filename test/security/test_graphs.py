"""ONNX files of a stranger: a graph reads no other file, and a graph of something else ends in a sentence."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from asrprune.export.session import Session
from asrprune.runtime.errors import UserError

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'asrprune[export]'")
FLOAT, INT64, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.UINT8
node, tensor, value = onnx.helper.make_node, onnx.helper.make_tensor, onnx.helper.make_tensor_value_info
INPUTS = (value("x", FLOAT, ["B", "T", 80]), value("x_lens", INT64, ["B"]))
OUTPUTS = (value("log_probs", FLOAT, None), value("log_probs_lens", INT64, None))
LENS = node("Identity", ["x_lens"], ["log_probs_lens"])
LARGE = tensor("", INT64, [1], [10**12])


def write(path: Path, nodes: Sequence[object], inputs: Sequence[object] = INPUTS, tensors: Sequence[object] = ()) -> Path:
    graph = onnx.helper.make_graph(nodes, "g", inputs, OUTPUTS, tensors)
    file = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(file.SerializeToString())
    return path


@pytest.mark.parametrize("place", ["/etc/hostname", "../home/canary", "link", "pipe", "device"])
def test_weights_are_in_no_other_file(place: str, tmp_path: Path) -> None:
    for folder in ("home", "model"):
        (tmp_path / folder).mkdir()
    (tmp_path / "home/canary").write_bytes(bytes(16))
    os.symlink("../home/canary", tmp_path / "model/link")
    os.symlink("/dev/zero", tmp_path / "model/device")
    os.mkfifo(tmp_path / "model/pipe")
    weight = tensor("w", FLOAT, [4], [0.0] * 4)
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", place), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=text)
    nodes = [node("ReduceSum", ["w"], ["s"], keepdims=0), node("Add", ["x", "s"], ["log_probs"]), LENS]
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime cannot load it \("):
        Session(write(tmp_path / "model/model.onnx", nodes, tensors=[weight]))


@pytest.mark.parametrize("inputs", [(), INPUTS[:1]])
def test_files_without_inputs(inputs: Sequence[object], tmp_path: Path) -> None:
    nodes = [
        node("Constant", [], [name], value=tensor("", kind, [1], [1]))
        for name, kind in (("log_probs", FLOAT), ("log_probs_lens", INT64))
    ]
    with pytest.raises(UserError, match=r"has no inputs for audio and its length"):
        Session(write(tmp_path / "model.onnx", nodes, inputs))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Constant", [], ["n"], value=LARGE), node("ConstantOfShape", ["n"], ["log_probs"]), LENS],  # 4 TB
        [node("Reshape", ["x", "x_lens"], ["log_probs"]), LENS],
    ],
)
def test_graphs_that_fail_when_they_run(nodes: Sequence[object], tmp_path: Path) -> None:
    session = Session(write(tmp_path / "model.onnx", nodes))
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime cannot run it \(.*\); export it again"):
        session.run(np.zeros((1, 9, 80), np.float32), np.array([9]))
