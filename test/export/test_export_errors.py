"""What is wrong with a file, an option or a recording is said in one sentence, and nothing is left half-written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import asrprune

from asrprune.experiment.store import load
from asrprune.export import assemble
from asrprune.export.build import Options, export, set_depth
from asrprune.export.onnx_file import import_onnx
from asrprune.export.session import Session
from asrprune.prune.find import find_plan
from asrprune.recognizer import Recognizer
from asrprune.runtime.errors import UserError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "give either --to FILE.onnx or --web DIR"),
        (("--to", "a.onnx", "--web", "page"), "give either --to FILE.onnx or --web DIR"),
        (("--web", "page", "--form", "depth"), "--form and --input have no effect with --web"),
        (("--to", "a.onnx", "--form", "depth"), "give the depth, for example --depth 6"),
        (("--to", "a.onnx", "--form", "early-exit", "--depth", "2"), "each utterance has a depth of its own; remove --depth"),
        (("--to", "a.onnx", "--int8", "--fp16"), "give --int8 or --fp16, not both"),
        (("--to", "a.onnx", "--int8", "--max-loss", "0.2"), "--max-loss needs --int8 and --dev"),
        (("--to", "a.onnx", "--form", "required-keep", "--depth", "2"), "the program gives the layers in each call"),
        (("--to", "a.onnx", "--utterances", "9"), "--utterances has no effect without --dev"),
    ],
)
def test_options_that_contradict_each_other(options: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    done = asrprune("export", "--exp", tmp_path / "exp", *options)
    assert done.code == 1
    assert sentence in done.err


@pytest.mark.parametrize("options", [("--depth", "9"), ("--depth", "9", "--form", "depth")])
def test_a_depth_that_the_plan_lacks(page: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...]) -> None:
    done = asrprune("export", "--exp", page[1], "--to", tmp_path / "out" / "a.onnx", *options)
    assert done.code == 1
    assert "error: depth 9: the model has no such depth; it has 4, 3, 2, 1" in done.err
    assert not (tmp_path / "out").exists()


def test_a_dev_set_that_is_missing_is_told_before_the_tracing(
    page: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "any_depth", lambda *_: pytest.fail("it takes minutes"))
    done = asrprune("export", "--exp", page[1], "--to", tmp_path / "out" / "a.onnx", "--dev", tmp_path / "none")
    assert (done.code, "none: no such data directory; stage 1 (data) and stage 2 (fbank) make it" in done.err) == (1, True)
    assert not (tmp_path / "out").exists()


def test_text_units_of_another_model_are_kept(page: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tokens.txt belongs to all models of a folder; sherpa-onnx would write other words without an error."""
    monkeypatch.setattr(assemble, "any_depth", lambda *_: import_onnx().load(str(page[0] / "model.onnx")))
    tokens, experiment = tmp_path / "tokens.txt", load(page[1])
    (tmp_path / "first.onnx").touch()
    tokens.write_bytes(b"<blk> 0\n\xff 1\n")  # not UTF-8
    options = Options(form="required-keep", input="waveform")
    with pytest.raises(
        UserError, match=r"tokens\.txt: has the text units of first\.onnx, which are others; export into another"
    ):
        export(experiment, find_plan(experiment, None), tmp_path / "second.onnx", options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.onnx", "tokens.txt"]
    assert tokens.read_bytes() == b"<blk> 0\n\xff 1\n"
    (tmp_path / "first.onnx").rename(tmp_path / "second.onnx")  # a model that is exported again may have others
    export(experiment, find_plan(experiment, None), tmp_path / "second.onnx", options)
    assert tokens.read_text() == (page[0] / "tokens.txt").read_text()


@pytest.mark.parametrize("shape", [[], None, [1, "N"]], ids=["scalar", "unknown", "matrix"])
def test_a_model_of_another_kind(shape: Any, tmp_path: Path) -> None:
    onnx = import_onnx()
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), str(tmp_path / "other.onnx"))
    with pytest.raises(UserError, match=r"other\.onnx: not a model that `asrprune export` wrote"):
        Recognizer.load(tmp_path / "other.onnx")


def test_the_depth_of_the_json_beside_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx.json"
    path.write_text('{"format": 1}')
    with pytest.raises(UserError, match=r"model\.onnx\.json: not an ONNX file, or a truncated one"):
        set_depth(path, 2)


def without_opset(file: Any) -> None:
    del file.opset_import[:]


def of_another_program(file: Any) -> None:
    del file.metadata_props[:]


def of_a_later_onnx(file: Any) -> None:
    file.ir_version = 99


@pytest.mark.parametrize(
    ("change", "use", "sentence"),
    [
        (without_opset, Session, r"onnxruntime cannot load it \(Missing opset in the model\); export it again"),
        (of_a_later_onnx, Session, r"cannot load it \(Unsupported model IR version: 99.*\); .* install a newer onnxruntime"),
        (of_another_program, lambda path: set_depth(path, 2), "not a model that `asrprune export` wrote"),
    ],
)
def test_a_file_that_is_not_ours(
    page: tuple[Path, Path], tmp_path: Path, change: Callable[[Any], None], use: Callable[[Path], object], sentence: str
) -> None:
    file, path = import_onnx().load(str(page[0] / "model.onnx")), tmp_path / "model.onnx"
    change(file)
    path.write_bytes(file.SerializeToString())
    with pytest.raises(UserError, match=sentence):
        use(path)


def test_a_recording_that_is_none(page: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dev: Path) -> None:
    *others, last = (dev / "wav.scp").read_text().splitlines()  # the first one is read before the tracing
    (tmp_path / "noise.wav").write_text("no audio")
    name, _ = last.split(" ", 1)
    (dev / "wav.scp").write_text("\n".join([*others, f"{name} {tmp_path / 'noise.wav'}", ""]))
    traced = import_onnx().load(str(page[0] / "model.onnx"))
    monkeypatch.setattr(assemble, "any_depth", lambda *_: traced)
    experiment = load(page[1])
    with pytest.raises(UserError, match=rf"{name}: .*noise\.wav: is not audio"):
        export(experiment, find_plan(experiment, None), tmp_path / "out" / "a.onnx", Options(input="waveform", dev=dev))
    assert list((tmp_path / "out").iterdir()) == []
