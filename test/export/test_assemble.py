from collections import Counter

import pytest
from onnx_graphs import graphs_of

from asrprune.config.schema import ModelConfig
from asrprune.export import assemble
from asrprune.model.ctc_model import CtcModel


def test_a_layer_is_traced_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Tracing a Conformer's layer takes 10 s, and a model may have 24 of them."""
    caplog.set_level("INFO")
    traced, trace = Counter[str](), assemble.trace

    def counting(module, *arguments):  # type: ignore[no-untyped-def]
        traced[type(module).__name__] += 1
        return trace(module, *arguments)

    monkeypatch.setattr(assemble, "trace", counting)
    model = CtcModel(ModelConfig(num_layers=4, dim=16, heads=2, ffn=16, taps=(2,)), 80, 12).eval()
    file = assemble.any_depth(model)
    assert traced == {"FrontEnd": 1, "Step": 1, "Head": 1}
    assert caplog.messages == [], "the user sees none of torch's and onnxscript's messages"
    sizes = [tuple(tensor.dims) for tensor in file.graph.initializer]
    assert sizes.count((16, 48)) == 4, "each layer has weights of its own"
    used = {name for graph in graphs_of(file.graph) for node in graph.node for name in node.input}
    assert {tensor.name for tensor in file.graph.initializer} <= used, "onnxruntime would warn of the others"
