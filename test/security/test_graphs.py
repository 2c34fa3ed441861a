"""ONNX files of a stranger: a graph reads no other file, and a graph of something else ends in a sentence."""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from asrprune.export import card
from asrprune.export.record import Exported
from asrprune.export.session import Session
from asrprune.recognizer import Recognizer
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


FACTS = {
    "format": 1, "form": "any-depth", "depth": 2, "depths": [{"depth": 2, "keep": [1, 2], "score": None, "params_m": 0.1}],
    "num_layers": 2, "strategy": "every", "metric": None, "dev_set": None, "factor": 4, "frontend": {}, "vocab_size": 2,
    "units": ["<blk>", "a"], "windows": {"one_piece_s": 60.0, "window_s": 30.0, "overlap_s": 4.0}, "word_tail_s": 0.25,
    "decoder": {"type": "greedy"}, "model_sha256": "0", "asrprune": "0.1.0",
}  # fmt: skip
NOISE = np.random.default_rng(0).normal(0.0, 0.1, 16000).astype(np.float32)


def exported(path: Path, log_probs: np.ndarray, lens: np.ndarray, layers: object = 2, **facts: object) -> Path:
    """A file with the facts of an export, whose graph gives these outputs, whatever the input."""
    outputs, nodes = {"log_probs": log_probs, "log_probs_lens": lens}, [node("Sub", ["x_lens", "x_lens"], ["zero"])]
    for name, given in outputs.items():  # of shapes that are known only when it runs
        for place, array in ((f"{name}_", given), (f"{name}_shape", np.array(given.shape, np.int64))):
            nodes.append(node("Constant", [], [place], value=onnx.numpy_helper.from_array(array)))
        nodes.append(node("Add", [f"{name}_shape", "zero"], [f"{name}_now"]))
        nodes.append(node("Reshape", [f"{name}_", f"{name}_now"], [name], allowzero=1))
    inputs = [*INPUTS, value("keep", onnx.TensorProto.BOOL, [layers])]
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(each.dtype) for each in outputs.values()]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [value(*each, None) for each in zip(outputs, kinds, strict=True)])
    file = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(file, {"asrprune": json.dumps({**FACTS, **facts})})
    path.write_bytes(file.SerializeToString())
    return path


GOOD = np.log(np.full((1, 25, 2), 0.5, np.float32))


@pytest.mark.parametrize(
    ("log_probs", "lens"),
    [
        (np.log(np.float32([[[0.1, 0.1, 0.8]]])), [1]),  # a unit that the model does not have
        (GOOD[:, :, :1], [25]),
        (GOOD[0], [25]),
        (GOOD[:0], [25]),
        (GOOD, [26]),
        (GOOD, [-1]),
        (GOOD, [[25]]),
        (GOOD, []),
        (GOOD, np.float32([25])),
        (GOOD.astype(np.float64), [25]),
        (GOOD * np.float32("nan"), [25]),
        (GOOD + 1, [25]),
    ],
)
def test_outputs_are_not_believed(log_probs: np.ndarray, lens: object, tmp_path: Path) -> None:
    lens = lens if isinstance(lens, np.ndarray) else np.array(lens, np.int64)
    recognizer = Recognizer.load(exported(tmp_path / "a.onnx", log_probs, lens))
    with pytest.raises(UserError, match=r"a\.onnx: its outputs are not log-probabilities of 2 text units"):
        recognizer.transcribe(NOISE)
    assert Recognizer.load(exported(tmp_path / "b.onnx", GOOD, np.array([25]))).transcribe(NOISE).text == ""


@pytest.mark.parametrize(
    ("layers", "facts", "why"),
    [
        ("N", {}, "2 layers, but its graph has N"),
        (10**12, {"num_layers": 10**12}, "num_layers: input should be less than or equal to 1000"),
        (2, {"depths": []}, "depths: tuple should have at least 1 item"),
        (2, {"units": ["<blk>", "a 5\nb"]}, "a text unit holds a blank"),
    ],
)
def test_facts_are_not_believed(layers: object, facts: dict[str, object], why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        Recognizer.load(exported(tmp_path / "a.onnx", GOOD, np.array([25]), layers, **facts))


def test_a_card_is_neither_html_nor_links() -> None:
    evil = "<script>alert(1)</script> [a](javascript:b) ![c](http://d) | `e` \n# f"
    facts = {**FACTS, "strategy": evil, "dev_set": evil, "licence": evil, "data_licence": evil, "asrprune": evil}
    page = card.markdown(Path(__file__), Exported.model_validate(facts), "mark")
    assert page.count("&lt;script&gt;alert(1)") == 5
    assert "<script" not in page
    assert page.count(r"\[a\](javascript:b) !\[c\](http://d) \| \`e\` # f") == 5


def test_a_loop_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrprune.export.session._LONGEST_RUN_S", 1.0)
    scalar = partial(value, elem_type=FLOAT, shape=[])
    names = {"i": INT64, "on": onnx.TensorProto.BOOL, "sum": FLOAT}
    inner = [value(name, kind, []) for name, kind in names.items()]
    body = [node("Identity", ["on"], ["on_"]), node("Add", ["sum", "sum"], ["sum_"])]
    loop = onnx.helper.make_graph(body, "body", inner, [value("on_", onnx.TensorProto.BOOL, []), scalar("sum_")])
    nodes = [
        node("ReduceSum", ["x"], ["begin"], keepdims=0),
        node("Loop", ["", "yes", "begin"], ["end"], body=loop),
        node("Add", ["x", "end"], ["log_probs"]),
        LENS,
    ]
    session = Session(write(tmp_path / "model.onnx", nodes, tensors=[tensor("yes", onnx.TensorProto.BOOL, [], [True])]))
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime cannot run it \(no end in 1 s\)"):
        session.run(np.zeros((1, 9, 80), np.float32), np.array([9]))
