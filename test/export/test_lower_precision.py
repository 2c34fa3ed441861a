"""Files of a lower precision: smaller, nearly the same numbers, and their cost in the record and the card."""

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_graphs import graphs_of, integer_products

from asrprune.config.schema import Config
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import load
from asrprune.export import assemble, build, quantise
from asrprune.export.assemble import one_depth
from asrprune.export.build import Options, export, set_depth
from asrprune.export.mixture import Loss, smallest_mixture
from asrprune.export.onnx_file import import_onnx
from asrprune.export.record import Compared, Exported
from asrprune.export.session import Session
from asrprune.model.ctc_model import CtcModel
from asrprune.prune.find import find_plan
from asrprune.runtime.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def lowered(
    page: tuple[Path, Path], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Options], tuple[Path, Exported]]:
    """Export the model of ``page`` again, without tracing it."""
    traced = import_onnx().load(str(page[0] / "model.onnx"))
    monkeypatch.setattr(assemble, "any_depth", lambda *_: traced)
    experiment = load(page[1])

    def run(options: Options) -> tuple[Path, Exported]:
        path = tmp_path / f"{options.precision}.onnx"
        return path, export(experiment, find_plan(experiment, None), path, options)

    return run


def difference(page: Path, path: Path) -> float:
    samples = np.random.default_rng(0).normal(0.0, 0.1, (1, 24000)).astype(np.float32)
    ours, theirs = (Session(file).run(samples, np.array([24000]), (1, 2, 4))[0] for file in (page, path))
    return float(np.abs(ours - theirs).max())


@pytest.mark.parametrize(("precision", "least", "most"), [("int8", 1e-3, 0.3), ("fp16", 1e-5, 0.03)])
def test_numbers_are_nearly_the_same(
    page: tuple[Path, Path], lowered: Callable[..., tuple[Path, Exported]], precision: str, least: float, most: float
) -> None:
    path, _ = lowered(Options(form="required-keep", input="waveform", precision=precision))
    assert least < difference(page[0] / "model.onnx", path) < most
    assert path.stat().st_size < (page[0] / "model.onnx").stat().st_size
    import_onnx().checker.check_model(str(path), full_check=True)


def test_weights_of_layers_are_integers_and_those_of_features_are_not(page: tuple[Path, Path]) -> None:
    onnx = import_onnx()
    small = quantise.int8(onnx.load(str(page[0] / "model.onnx")))
    left = [name for graph in graphs_of(small.graph) for node in graph.node if node.op_type == "MatMul" for name in node.input]
    weights = {tensor.name for tensor in small.graph.initializer}
    assert [name for name in left if name in weights] == ["fbank.dft", "fbank.mel"]
    kinds = {tensor.name: tensor.data_type for tensor in small.graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for kind in kinds.values()) >= 2 * (4 * 4 + 2)  # weights and their zeros


@pytest.mark.parametrize("factor", [4, 8])
def test_a_front_end_over_time_is_made_of_integers(factor: int, tiny_config_with: Callable[..., Config]) -> None:
    options = ["subsampling.type=conv1d", f"subsampling.factor={factor}", "subsampling.channels=16", "num_layers=4"]
    model = CtcModel(tiny_config_with(*(f"model.{option}" for option in options)).model, 80, 7).eval()
    kinds = [node.op_type for node in quantise.int8(one_depth(model, (1,))).graph.node]
    layer = {"qkv", "project", "expand", "contract"}
    assert kinds.count("MatMulInteger") == {4: 2, 8: 3}[factor] + len({"linear", "head"} | layer)
    assert "Conv" not in kinds


def test_int8_removes_what_a_killed_run_left(page: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = import_onnx().load(str(page[0] / "model.onnx"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not (pid := os.fork()):
        try:
            monkeypatch.setattr("onnx.save", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            quantise.int8(file)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    assert len(list(tmp_path.iterdir())) == 1
    quantise.int8(file)
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_float16_are_refused(page: tuple[Path, Path]) -> None:
    onnx = import_onnx()
    file = onnx.load(str(page[0] / "model.onnx"))
    large = [each for each in file.graph.initializer if each.data_type == onnx.TensorProto.FLOAT and np.prod(each.dims) > 255]
    tensor = next(each for each in large if not each.name.startswith("fbank."))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] = -1e5
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(UserError, match=r"has the weight 100000, and float16 ends at 65504; export it without --fp16"):
        quantise.fp16(file)


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_file_whose_numbers_are_not_finite_is_refused(
    lowered: Callable[..., tuple[Path, Exported]], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = getattr(quantise, precision)

    def broken(file: Any, *layers: Any) -> Any:
        made = change(file, *layers)
        for tensor in made.graph.initializer:
            if tensor.name.endswith("bias"):
                tensor.CopyFrom(import_onnx().numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))
        return made

    monkeypatch.setattr(quantise, precision, broken)
    with pytest.raises(UserError, match=r"log-probabilities are not finite; nothing is written; .*, or export it in float32"):
        lowered(Options(form="required-keep", input="waveform", precision=precision))


def test_the_cost_is_recorded(lowered: Callable[..., tuple[Path, Exported]], tiny_data: Path) -> None:
    options = Options(form="required-keep", input="waveform", precision="int8", dev=tiny_data / "dev", utterances=4)
    path, record = lowered(options)
    assert record.compared == Compared(set="dev", utterances=4)
    assert Exported.read(path.with_name("int8.onnx.json")) == record
    for row in record.depths:
        assert row.changed is not None
        assert row.wer is not None
        assert row.changed > 0 or row.wer == row.wer_float32
    table = path.with_name("README.md").read_text(encoding="utf-8")
    assert "| depth | layers | parameters | WER int8 | WER float32 | texts that differ | dev WER | RTF |" in table
    assert f"| {record.depths[0].wer:.2f} | {record.depths[0].wer_float32:.2f} | {record.depths[0].changed} |" in table


def test_a_lower_precision_keeps_its_default_depth(lowered: Callable[..., tuple[Path, Exported]]) -> None:
    path, _ = lowered(Options(input="waveform", precision="int8"))
    set_depth(path, 2)
    samples, lens = np.random.default_rng(0).normal(0.0, 0.1, (1, 9000)).astype(np.float32), np.array([9000])
    np.testing.assert_array_equal(Session(path).run(samples, lens)[0], Session(path).run(samples, lens, (1, 2))[0])


def test_layers_that_stay_in_float32_have_their_numbers(page: tuple[Path, Path]) -> None:
    onnx = import_onnx()
    small = quantise.int8(onnx.load(str(page[0] / "model.onnx")), (2, 3))
    assert integer_products(small) == [4, 0, 0, 4]


LOSSES = {(): 0.5, (1,): 0.4, (2,): 0.3, (3,): 0.4, (4,): 0.5, (1, 2): 0.25, (2, 3): 0.15, (2, 4): 0.3}


def test_the_mixture_is_that_of_a_search_that_measures_everything() -> None:
    """With fewer measurements: a layer that a depth does not run changes nothing, and the worst depths come first."""
    keeps = [tuple(range(1, depth + 1)) for depth in range(8, 0, -1)]
    for seed in range(20):
        rng, measured = np.random.default_rng(seed), []
        costs = {keep: rng.exponential(0.1, 8) * np.isin(np.arange(1, 9), keep) for keep in keeps}

        def loss(left: Keep, keep: Keep, costs=costs, measured=measured) -> float:  # type: ignore[no-untyped-def]
            measured.append((left, keep))
            return float(sum(cost for layer, cost in enumerate(costs[keep], start=1) if layer not in left))

        def largest(left: Keep, loss=loss) -> float:  # type: ignore[no-untyped-def]
            return max(loss(left, keep) for keep in keeps)

        found = smallest_mixture(8, keeps, loss, 0.3)
        few, left, everything = len(measured), (), 0
        while largest(left) > 0.3:
            tried = [tuple(sorted({*left, layer})) for layer in range(1, 9) if layer not in left]
            left, everything = min(tried, key=largest), everything + len(tried) * len(keeps)
        assert len(found) == len(left)
        assert largest(found) <= 0.3
        assert few < max(9, 0.6 * everything)


def test_a_limit_that_no_mixture_holds_is_told_with_the_way_out(caplog: pytest.LogCaptureFixture) -> None:
    assert smallest_mixture(2, [(1, 2)], lambda left, keep: 0.5, 0.2) == (1, 2)
    assert "int8 still loses 0.50 points with all layers in float32, more than --max-loss 0.2; compare more" in caplog.text


def test_a_mixture_that_holds_the_limit_is_recorded(
    lowered: Callable[..., tuple[Path, Exported]], tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def searched(num_layers: int, keeps: list[Keep], loss: Loss, limit: float) -> Keep:
        seen.extend(loss(left, keep) for left in ((), (1, 2, 3, 4)) for keep in keeps)
        return smallest_mixture(num_layers, keeps, lambda left, keep: LOSSES[left] if len(keep) == 4 else 0.0, limit)

    monkeypatch.setattr(build, "smallest_mixture", searched)
    dev = {"dev": tiny_data / "dev", "utterances": 3}
    path, record = lowered(Options(form="required-keep", input="waveform", precision="int8", max_loss=0.2, **dev))
    assert record.float32_layers == (2, 3)
    assert "and in the layers 2, 3" in path.with_name("README.md").read_text(encoding="utf-8")
    assert all(np.isfinite(seen))
