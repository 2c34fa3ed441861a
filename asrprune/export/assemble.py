"""Put the parts of a model together as one ONNX graph: for any depth, for one, or with early exit."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from torch import nn

from asrprune.config.lengths import min_frames
from asrprune.experiment.plan import Keep
from asrprune.export.graph import Condition, Exit, FrontEnd, Head, Step
from asrprune.export.onnx_file import quiet
from asrprune.export.parts import DOMAIN, OPSET, Example, Part, trace
from asrprune.export.session import INPUTS, KEEP, LAYERS, OUTPUTS, THRESHOLDS
from asrprune.export.waveform import Fbank
from asrprune.model.ctc_model import CtcModel

if TYPE_CHECKING:
    import onnx

_IR_VERSION = 10
_BATCH, _FRAMES = 2, 93  # of the examples; if another dimension had this size, the exporter would treat both as one


class _Nodes(ir.tape.Tape):
    """The nodes of a graph, or of one branch of an ``If``."""

    def add(self, operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Add a node with one output."""
        return self.op(operator, inputs, attributes)


def any_depth(model: CtcModel, fbank: Fbank | None = None) -> "onnx.ModelProto":
    """Make a graph of all layers, one ``If`` for each; the required input ``keep`` (L,) bool says which of them run.

    With ``fbank`` the file takes samples, else features.
    """
    graph = _Graph(model, fbank)
    x, lens, mask = graph.front_end()
    keep, tapped = graph.input(KEEP, ir.DataType.BOOL, [model.config.num_layers]), graph.constant(False)
    for layer in range(1, model.config.num_layers + 1):
        x, tapped = graph.step_if(graph.pick(keep, layer - 1), x, layer, mask, tapped)
    return graph.finish(x, lens)


def early_exit(model: CtcModel, exits: Sequence[int], fbank: Fbank | None = None) -> "onnx.ModelProto":
    """Make a graph in which the layers in ``keep`` run until each utterance has reached the threshold of an exit.

    An utterance that has ended keeps its stream, while the others of the batch go on. A threshold above 1 is never reached;
    its exit computes nothing. The last exit has no threshold: the input ``thresholds`` is (E - 1,). A third output (B,) is
    the number of layers that ran.
    """
    graph = _Graph(model, fbank)
    x, lens, mask = graph.front_end()
    keep, tapped = graph.input(KEEP, ir.DataType.BOOL, [model.config.num_layers]), graph.constant(False)
    thresholds = graph.input(THRESHOLDS, ir.DataType.FLOAT, [len(exits) - 1])
    add, to_int = graph.nodes.add, {"to": ir.DataType.INT64}
    done, ran = add("Less", lens, graph.constant(0)), add("Sub", lens, lens)  # no utterance, no layer
    for layer in range(1, exits[-1] + 1):
        kept, before = graph.pick(keep, layer - 1), x
        some_go_on = add("ReduceMax", add("Cast", add("Not", done), **to_int), keepdims=0)  # 0 or 1
        runs = add("And", kept, add("Cast", some_go_on, to=ir.DataType.BOOL))
        x, tapped = graph.step_if(runs, x, layer, mask, tapped)
        x = add("Where", add("Unsqueeze", done, graph.constant([1, 2])), before, x)
        ran = add("Add", ran, add("Cast", add("And", kept, add("Not", done)), **to_int))
        if layer in exits[:-1]:
            threshold = graph.pick(thresholds, exits.index(layer))
            asked = add("And", runs, add("LessOrEqual", threshold, graph.constant(1.0)))
            done = graph.exit_if(asked, x, lens, done, threshold)
    return graph.finish(x, lens, {LAYERS: ran})


def one_depth(model: CtcModel, keep: Keep, fbank: Fbank | None = None) -> "onnx.ModelProto":
    """Make a graph of the kept layers only."""
    graph = _Graph(model, fbank)
    (x, lens, mask), after = graph.front_end(), 0
    for layer in keep:
        if model.condition is not None and after in model.config.tap_layers:
            x = graph.condition(graph.nodes, x)
        x, after = graph.step(graph.nodes, x, layer, mask), layer
    return graph.finish(x, lens)


class _Graph:
    """A graph in the making. The methods add nodes to it, or to one of its branches."""

    def __init__(self, model: CtcModel, fbank: Fbank | None) -> None:
        self.model, self.fbank = model, fbank
        self.nodes = _Nodes()
        self.inputs: list[ir.Value] = []
        self.weights: dict[str, ir.Value] = {}
        self.parts: dict[str, Part] = {}
        self.examples = _examples(model, fbank)

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Add an input."""
        self.inputs.append(ir.val(name, dtype=dtype, shape=shape))
        return self.inputs[-1]

    def constant(self, value: bool | float | Sequence[int]) -> ir.Value:
        """Add a constant: bool, int64 or float32."""
        return self.nodes.add("Constant", value=ir.tensor(value))

    def pick(self, values: ir.Value, position: int) -> ir.Value:
        """Add the node that takes one of several values as a scalar."""
        return self.nodes.add("Gather", values, self.constant(position), axis=0)

    def front_end(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Add the first two inputs and all before the first layer; return x_0, its lengths and the mask."""
        names = INPUTS["waveform" if self.fbank else "features"]
        inputs = {
            "input": self.input(names[0], ir.DataType.FLOAT, ["batch", "length", *self.examples["input"].value.shape[2:]]),
            "input_lens": self.input(names[1], ir.DataType.INT64, ["batch"]),
        }
        x, lens, mask = self._add(self.nodes, FrontEnd(self.model, self.fbank), inputs, outputs=3)
        return x, lens, mask

    def step(self, nodes: _Nodes, x: ir.Value, layer: int, mask: ir.Value) -> ir.Value:
        """Add a layer."""
        module = Step(self.model.layers[layer - 1])
        return self._add(nodes, module, {"x": x, "mask": mask}, f"model.encoder.layers.{layer - 1}.")[0]

    def condition(self, nodes: _Nodes, x: ir.Value) -> ir.Value:
        """Add self-conditioning."""
        return self._add(nodes, Condition(self.model), {"x": x})[0]

    def step_if(self, runs: ir.Value, x: ir.Value, layer: int, mask: ir.Value, tapped: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Add a layer that runs if ``runs`` () bool; return the stream, and ``tapped`` after this layer.

        ``tapped`` () bool: whether the last layer that ran is a tap, for self-conditioning.
        """
        add = self.nodes.add
        if self.model.condition is not None:
            x = self._if(add("And", runs, tapped), x, lambda nodes: self.condition(nodes, x))
            is_tap = self.constant(layer in self.model.config.tap_layers)
            tapped = add("Or", add("And", runs, is_tap), add("And", add("Not", runs), tapped))
        before = x
        return self._if(runs, before, lambda nodes: self.step(nodes, before, layer, mask)), tapped

    def exit_if(self, asked: ir.Value, x: ir.Value, lens: ir.Value, done: ir.Value, threshold: ir.Value) -> ir.Value:
        """Add an exit that is computed if ``asked`` () bool; return which utterances have ended (B,)."""
        inputs = {"x": x, "lens": lens, "done": done, "threshold": threshold}
        return self._if(asked, done, lambda nodes: self._add(nodes, Exit(self.model), inputs)[0])

    def finish(self, x: ir.Value, lens: ir.Value, others: Mapping[str, ir.Value] | None = None) -> "onnx.ModelProto":
        """Add the head; return the file. ``others``: outputs beside the log-probabilities and their lengths."""
        log_probs = self._add(self.nodes, Head(self.model), {"x": x})[0]
        outputs = [*zip(OUTPUTS, (log_probs, lens), strict=True), *(others or {}).items()]
        for name, value in outputs:
            value.name = name
        graph = ir.Graph(
            self.inputs, [value for _, value in outputs], nodes=self.nodes.nodes, initializers=list(self.weights.values()),
            opset_imports={"": OPSET, DOMAIN: 1}, name="asrprune",
        )  # fmt: skip
        functions = [part.function for part in self.parts.values()]
        model = ir.Model(graph, ir_version=_IR_VERSION, producer_name="asrprune", functions=functions)
        with quiet():
            _optimise(model)
        return ir.to_proto(model)

    def _if(self, condition: ir.Value, otherwise: ir.Value, then: Callable[[_Nodes], ir.Value]) -> ir.Value:
        """Add an ``If``: what ``then`` makes, or else a value that exists."""
        branches = []
        for make in (then, lambda nodes: nodes.add("Identity", otherwise)):
            nodes = _Nodes()
            made = make(nodes)
            branches.append(ir.Graph([], [made], nodes=nodes.nodes, name="branch"))
        return self.nodes.add("If", condition, then_branch=branches[0], else_branch=branches[1])

    def _add(
        self, nodes: _Nodes, module: nn.Module, inputs: Mapping[str, ir.Value], prefix: str | None = None, outputs: int = 1
    ) -> Sequence[ir.Value]:
        """Add a part of the model; ``prefix``: what its weights are called in the model, instead of ``layer.``."""
        name = type(module).__name__
        if name not in self.parts:
            self.parts[name] = trace(module, {each: self.examples[each] for each in inputs}, outputs)
        own, part = module.state_dict(), self.parts[name]
        weights = []
        for key, traced in part.weights.items():
            known, values = f"{name}.{key}", traced  # a constant that tracing made
            if key in own:
                known = key if prefix is None else key.replace("layer.", prefix, 1)
                values = ir.tensor(own[key].numpy(), name=known)
            weights.append(self.weights.setdefault(known, ir.val(known, const_value=values)))
        return nodes.op_multi_out(name, [*inputs.values(), *weights], domain=DOMAIN, num_outputs=outputs)


def _examples(model: CtcModel, fbank: Fbank | None) -> dict[str, Example]:
    """Return an example of each input of a part."""
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("frames")
    # The convolutions need so many frames. If this is not said, torch finds it out by tracing, and then traces once more.
    shortest = min_frames(model.config.subsampling.factor)
    length = torch.export.Dim("length", min=0 if fbank else shortest)
    size = max(_FRAMES, 2 * shortest + 1) * (fbank.shift if fbank else 1)
    bins = [] if fbank else [len(model.cmvn_mean)]
    real = torch.ones(_BATCH, dtype=torch.bool)
    return {
        "input": Example(0.1 * torch.randn(_BATCH, size, *bins), {0: batch, 1: length}),
        "input_lens": Example(torch.full([_BATCH], size), {0: batch}),
        "x": Example(torch.randn(_BATCH, _FRAMES, model.config.dim), {0: batch, 1: frames}),
        "mask": Example(real[:, None, None, None].expand(-1, 1, 1, _FRAMES), {0: batch, 3: frames}),
        "lens": Example(torch.full([_BATCH], _FRAMES), {0: batch}),
        "done": Example(~real, {0: batch}),
        "threshold": Example(torch.tensor(0.5), {}),
    }


def _optimise(model: ir.Model) -> None:
    """Inline the parts, simplify, and forget the exporter's notes: lines of Python, with paths of this machine.

    Weights are reshaped now instead of in each call: the quantiser takes weights only, not what is computed from them.
    """
    optimizer.optimize_ir(model)
    optimizer.fold_constants(
        model, input_size_limit=sys.maxsize, output_size_limit=sys.maxsize,
        should_fold=lambda node: node.op_type == "Reshape" or None,
    )  # fmt: skip
    passes.ClearMetadataAndDocStringPass()(model)
    passes.NameFixPass()(model)
    passes.RemoveUnusedNodesPass()(model)  # onnxruntime warns of weights that no node uses
