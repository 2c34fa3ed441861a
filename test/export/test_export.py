"""Exported files, run by onnxruntime and by sherpa-onnx: the numbers and texts of torch at every depth."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiments import with_numbers
from onnx_graphs import branches, integer_products

import asrprune
from asrprune.config.schema import BeamConfig, GreedyConfig, ModelConfig, ScoringConfig
from asrprune.decode.benchmark import Bench, Timed
from asrprune.decode.choose import Tuned, Weights
from asrprune.decode.threshold import EarlyExit
from asrprune.experiment.store import Experiment
from asrprune.export import assemble, build, card, quantise
from asrprune.export.assemble import any_depth, early_exit
from asrprune.export.build import Options, export, set_depth
from asrprune.export.check import Comparison, Texts
from asrprune.export.cost import with_cost
from asrprune.export.onnx_file import import_onnx
from asrprune.export.record import Exported
from asrprune.export.session import Session
from asrprune.features.fbank import UNIT_SCALE
from asrprune.infer.early_exit import confidence, run_until_sure
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import CtcModel
from asrprune.prune.find import find_plan
from asrprune.recognizer import Recognizer
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.transcribe.trained import TrainedModel

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'asrprune[export]'")


@pytest.fixture(scope="module")
def exported(tiny_experiment: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment as an any-depth file. Read it only."""
    from asrprune.experiment.store import load

    experiment = load(tiny_experiment)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(experiment, find_plan(experiment, None), path, Options(dev=tiny_data / "dev"))
    return path


LAYERS: dict[str, dict[str, Any]] = {
    "conformer": {"layer": {"type": "conformer", "kernel": 3}, "subsampling": {"type": "conv1d", "factor": 8}},
    "ebranchformer": {
        "layer": {"type": "ebranchformer", "kernel": 3, "merge_kernel": 3},
        "subsampling": {"type": "conv2d", "channels": 4},
    },
    "self-conditioning": {"self_conditioning": True, "taps": [1, 2], "subsampling": {"type": "conv1d"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYERS)
def test_every_choice_of_layers_gives_the_numbers_of_torch(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"num_layers": 3, "dim": 16, "heads": 2, "ffn": 16, "taps": [1]}
    model = CtcModel(ModelConfig.model_validate({**shape, **LAYERS[kind]}), 80, 12).eval()
    path = tmp_path / "model.onnx"
    file = any_depth(model)
    path.write_bytes(file.SerializeToString())
    session, runner = Session(path), Runner(model, torch.device("cpu"), "float32")
    keeps = [(1, 2, 3), (1, 2), (1, 3), (2, 3), (2,), (3,)]
    for frames in (3, 40, 93, 151):
        features, lens = torch.randn(2, frames, 80), torch.tensor([frames, max(1, frames - 20)])
        for keep, emissions in runner.emissions(features, lens, keeps):
            log_probs, found = session.run((features - UNIT_SCALE).numpy(), lens.numpy(), keep)
            assert found.tolist() == emissions.lens.tolist()
            for row, length in enumerate(found):
                np.testing.assert_allclose(log_probs[row, :length], emissions.log_probs[row, :length].numpy(), atol=1e-4)
    small = quantise.int8(file, (2,))
    import_onnx().checker.check_model(small)
    products = integer_products(small)
    assert [bool(count) for count in products[len(products) // 3 - 1 :: len(products) // 3]] == [True, False, True]


@pytest.mark.slow
def test_early_exit_with_self_conditioning(tmp_path: Path) -> None:
    """Exits, self-conditioning and padding together, for utterances that end at different exits."""
    torch.manual_seed(0)
    shape = {"num_layers": 3, "dim": 16, "heads": 2, "ffn": 16, **LAYERS["self-conditioning"]}
    model = CtcModel(ModelConfig.model_validate(shape), 80, 12).eval()
    path, exits = tmp_path / "model.onnx", (1, 2, 3)
    file = early_exit(model, exits)
    path.write_bytes(file.SerializeToString())
    session, runner = Session(path), Runner(model, torch.device("cpu"), "float32")
    features, lens = torch.randn(16, 120, 80), torch.linspace(120, 40, 16).long()
    sure = [confidence(made) for _, made in runner.emissions(features, lens, [(1,), (1, 2)])]
    thresholds = [float(values.sort().values[8:10].mean()) for values in sure]
    log_probs, frames, layers = session.run_until_sure((features - UNIT_SCALE).numpy(), lens.numpy(), thresholds)
    assert set(layers.tolist()) == set(exits)
    for number, length in enumerate(lens.tolist()):
        depth, made = run_until_sure(runner, features[number, :length], exits, thresholds)
        assert layers[number] == depth
        np.testing.assert_allclose(log_probs[number, : frames[number]], made.log_probs[0].numpy(), atol=1e-4)
    small = quantise.int8(file, (2,))
    import_onnx().checker.check_model(small)
    assert [bool(count) for count in integer_products(small)] == [True] * 4 + [False] + [True] * 3, "the second layer"


def test_an_utterance_without_frames_gives_numbers_and_does_not_change_the_others(exported: Path) -> None:
    features = np.random.default_rng(0).normal(size=(2, 90, 80)).astype(np.float32)
    both, lens = Session(exported).run(features, np.array([90, 0]))
    alone, _ = Session(exported).run(features[:1], np.array([90]))
    assert lens.tolist() == [21, 0]
    assert np.isfinite(both).all()
    np.testing.assert_allclose(both[0], alone[0], atol=1e-4)


def test_attention_takes_few_operators(exported: Path) -> None:
    operators = Counter(operator for branch in branches(import_onnx().load(exported)) for operator in branch)
    assert operators["Softmax"] == 4, "one for each layer"
    assert operators["IsNaN"] == 0, "torch's own translation looks for NaN in each layer"


def test_the_file_holds_no_lines_of_source_and_no_paths(exported: Path) -> None:
    assert str(Path(asrprune.__file__).parent).encode() not in exported.read_bytes()
    assert b"stack_trace" not in exported.read_bytes()


def test_the_file_says_what_it_holds(exported: Path) -> None:
    record = Exported.read(exported.with_name("model.onnx.json"))
    assert [row.depth for row in record.depths] == [4, 3, 2, 1]
    assert json.loads(Session(exported).metadata["asrprune"]) == record.plain()
    tokens = [line.split() for line in exported.with_name("tokens.txt").read_text(encoding="utf-8").splitlines()]
    assert tokens[0] == ["<blk>", "0"]
    assert len(tokens) == record.vocab_size


def test_a_model_of_phones_has_phone_error_rates(exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = Exported.read(exported.with_name("model.onnx.json"))
    phones = record.model_copy(update={"scoring": ScoringConfig(unit="phone"), "precision": "int8"})
    found = Comparison({row.keep: Texts(errors=3, errors_float32=1) for row in record.depths}, utterances=2, words=10)
    with caplog.at_level("INFO"):
        compared = with_cost(phones, found, Path("dev"))
    assert caplog.messages[0] == "4 layers: int8 changes 0 of 2 texts; PER 30.00 % instead of 10.00 %"
    text = card.markdown(exported, compared, "mark")
    assert "| PER int8 | PER float32 | texts that differ | dev PER |" in text
    assert "WER" not in text
    assert "PER" not in card.markdown(exported, record, "mark")


def test_thresholds_of_another_decoder_are_told(own: Experiment, tiny_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = EarlyExit(
        format=1, model_sha256=own.record.model_sha256, decoder="greedy", exits=(1, 2, 4), set="dev", margin=0.5,
        thresholds=(0.5, 0.5), curves={},
    )  # fmt: skip
    made.write(own.path / "early_exit.json")
    for decoder, told in ((GreedyConfig(), False), (BeamConfig(), True)):
        assert build._exits(with_numbers(own, "decode", decoder=decoder)) == ((1, 2, 4), (0.5, 0.5), "greedy")
        assert ("the thresholds were chosen with the decoder greedy, not with beam" in caplog.text) == told


def test_the_speed_on_a_gpu_is_not_that_of_a_file(own: Experiment) -> None:
    row = Timed(depth=4, keep=(1, 2, 3, 4), params_m=1.0, rtf=0.001, rtf_min=0.001, rtf_max=0.001)
    for device, known in (("cpu", {4: 0.001}), ("cuda", {})):
        Bench(
            format=1, set="dev", utterances=2, audio_s=9.0, threads=1, batch=1, dtype="float32", repeats=1, device=device,
            features_rtf=0.1, model_sha256=own.record.model_sha256, environment={}, rows=(row,),
        ).write(own.path / "bench.json")  # fmt: skip
        assert build._rtf(own) == known


def test_the_language_model_is_known_by_its_hash(own: Experiment, tmp_path: Path) -> None:
    lm = tmp_path / "own.arpa"
    lm.write_text("\\data\\")
    decoder, digest, tuned = build._decoder(with_numbers(own, "decode", decoder=BeamConfig(lm=str(lm))))
    assert (decoder, digest, tuned) == (BeamConfig(lm="own.arpa"), sha256_of(lm), None)


def test_tuned_weights_go_with_a_file_whose_config_has_no_language_model(own: Experiment) -> None:
    """Otherwise `--lm FILE` would give other texts with the file than with the experiment."""
    made = Tuned(
        format=1, lm_weight=0.8, word_bonus=1.0, wer=5.0, model_sha256=own.record.model_sha256, lm_sha256="0", set="dev",
        width=8, tried=(Weights(lm_weight=0.8, word_bonus=1.0, wer=5.0),),
    )  # fmt: skip
    made.write(own.path / "decoder.json")
    assert build._decoder(own) == (own.config.decode.decoder, None, made.model_copy(update={"tried": ()}))
    made.model_copy(update={"model_sha256": "0"}).write(own.path / "decoder.json")
    assert build._decoder(own)[2] is None


def test_the_default_depth_changes_without_a_new_export(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.read_bytes())
    rng = np.random.default_rng(0)
    features, lens = rng.normal(size=(1, 120, 80)).astype(np.float32), np.array([120])
    full = Session(path).run(features, lens)[0]
    np.testing.assert_array_equal(full, Session(path).run(features, lens, (1, 2, 3, 4))[0])
    assert set_depth(path, 2).depth == 2
    session = Session(path)
    np.testing.assert_array_equal(session.run(features, lens)[0], session.run(features, lens, (1, 2))[0])
    assert np.abs(session.run(features, lens)[0] - full).max() > 1e-3
    with pytest.raises(UserError, match="no such depth; it has 4, 3, 2, 1"):
        set_depth(path, 9)


def test_one_depth_has_only_its_layers(own: Experiment, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    export(own, find_plan(own, None), path, Options(form="depth", depth=2))
    assert path.stat().st_size < 0.8 * exported.stat().st_size
    features, lens = np.random.default_rng(0).normal(size=(2, 90, 80)).astype(np.float32), np.array([90, 60])
    np.testing.assert_allclose(
        Session(path).run(features, lens)[0][0], Session(exported).run(features, lens, (1, 2))[0][0], atol=1e-4
    )
    with pytest.raises(UserError, match="one depth only"):
        set_depth(path, 1)


def test_sherpa_onnx_loads_the_file_unchanged(exported: Path, own: Experiment) -> None:
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed")
    recognizer = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        str(exported), str(exported.with_name("tokens.txt")), num_threads=1
    )
    ours, rng = Recognizer(TrainedModel(own)), np.random.default_rng(0)
    for seconds in (0.5, 1.0, 2.3):
        samples = rng.normal(0.0, 0.1, int(16000 * seconds)).astype(np.float32)
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, samples)
        recognizer.decode_stream(stream)
        assert stream.result.text.split() == ours.transcribe(samples).text.split()


def test_a_file_with_other_numbers_is_not_written(
    own: Experiment, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = import_onnx()
    damaged = onnx.load(str(exported))
    (bias,) = (tensor for tensor in damaged.graph.initializer if tensor.name.endswith("head.project.bias"))
    values = onnx.numpy_helper.to_array(bias)
    bias.CopyFrom(onnx.numpy_helper.from_array(values + 0.1 * np.arange(len(values), dtype=np.float32), bias.name))
    monkeypatch.setattr(assemble, "any_depth", lambda *_: damaged)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"differ from those of torch by up to .*; nothing is written"):
        export(own, find_plan(own, None), tmp_path / "out" / "model.onnx", Options())
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a model that `asrprune export` wrote"),
        (b"\x08\x07garbage", "not an ONNX file"),
        (None, "no such file"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        set_depth(path, 2)


def test_a_truncated_file_is_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.read_bytes()[:-1000])
    with pytest.raises(UserError, match="truncated"):
        set_depth(path, 2)
    with pytest.raises(UserError, match="cannot load it"):
        Session(path)
