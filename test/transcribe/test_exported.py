"""An exported file in a recogniser: what the experiment says at every depth, without torch, and from many threads."""

import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from commands import asrprune, refused
from experiments import talking
from rapidfuzz.distance import Levenshtein
from records import plan_of
from waiting import group_runs, has_lines, wait_for

from asrprune.config.schema import BeamConfig, FrontendConfig
from asrprune.data.dataset import Corpus
from asrprune.data.kaldi import read_data_dir
from asrprune.decode.choose import LM_WEIGHT, Tuned
from asrprune.decode.greedy import GREEDY
from asrprune.decode.threshold import EarlyExit
from asrprune.experiment.plan import Step
from asrprune.experiment.store import Experiment
from asrprune.export import assemble, build
from asrprune.export.build import Options, export, read_exported, set_depth
from asrprune.export.onnx_file import import_onnx, set_metadata
from asrprune.export.record import FACTS
from asrprune.export.session import Session
from asrprune.features.fbank import UNIT_SCALE, num_frames
from asrprune.infer.early_exit import confidence, run_until_sure
from asrprune.prune.find import find_plan
from asrprune.recognizer import Hypothesis, Recognizer
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.transcribe import listener
from asrprune.transcribe.exported import ExportedModel
from asrprune.transcribe.trained import TrainedModel

pytestmark = pytest.mark.slow

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'asrprune[export]'")

ROOT = Path(__file__).resolve().parents[2]
Expected = dict[tuple[Path, tuple[int, ...]], Hypothesis]  # by recording and layers
STEPS = (Step.of((1, 2, 3, 4), 5.0), Step.of((1, 3, 4), 6.0), Step.of((3,), 7.0))
WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchaudio", "sentencepiece", "matplotlib", "kaldiio", "yaml", "onnx", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
from asrprune.cli import main
main()
"""


@pytest.fixture(scope="module")
def experiment(tiny_experiment: Path) -> Experiment:
    """A model that says something. Read it only."""
    return talking(tiny_experiment)


@pytest.fixture(scope="module")
def file(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as an any-depth file. Read it only."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    plan = plan_of("iterative", 4, STEPS, experiment.record.model_sha256, metric="wer", dev_set="dev")
    export(experiment, plan, path, Options())
    return path


@pytest.fixture(scope="module")
def wavs(tiny_data: Path) -> list[Path]:
    return [Path(utterance.audio) for utterance in read_data_dir(tiny_data / "dev")]


@pytest.fixture(scope="module")
def expected(experiment: Experiment, wavs: list[Path]) -> Expected:
    """What torch says, by file and layers."""
    trained = Recognizer(TrainedModel(experiment))
    found = {(wav, step.keep): trained.transcribe(wav, layers=step.keep) for wav in wavs for step in STEPS}
    assert len({hypothesis.text for hypothesis in found.values()}) > len(wavs), "depths say different things"
    return found


def assert_same(found: Hypothesis, expected: Hypothesis) -> None:
    assert (found.text, found.layers) == (expected.text, expected.layers)
    assert [(word.start_s, word.end_s) for word in found.words] == [(word.start_s, word.end_s) for word in expected.words]
    np.testing.assert_allclose([w.confidence for w in found.words], [w.confidence for w in expected.words], atol=1e-3)


def test_it_says_what_the_experiment_says(file: Path, experiment: Experiment, expected: Expected) -> None:
    asr = Recognizer.load(file)
    for (wav, keep), hypothesis in expected.items():
        assert_same(asr.transcribe(wav, depth=len(keep)), hypothesis)
        assert_same(asr.transcribe(wav, layers=keep), hypothesis)
    noise = np.random.default_rng(0).normal(0.0, 0.05, 70 * 16000).astype(np.float32)  # three windows
    assert_same(asr.transcribe(noise, depth=3), Recognizer(TrainedModel(experiment)).transcribe(noise, layers=(1, 3, 4)))
    for samples in (noise[:0], noise[:500], np.zeros(32000, np.float32)):
        assert asr.transcribe(samples) == Hypothesis("", (), (1, 2, 3, 4))


def test_beam_search_finds_what_it_finds_in_torch(file: Path, experiment: Experiment, wavs: list[Path]) -> None:
    given = {"type": "beam", "width": 4, "context": ["three four"], "context_bonus": 3.0}
    model = TrainedModel(experiment)
    here, there = Recognizer.load(file, decoder=given), Recognizer(model, model.decoder(given))
    assert here.decoder.identity == there.decoder.identity
    for wav in wavs:
        assert_same(here.transcribe(wav), there.transcribe(wav))
    with pytest.raises(UserError, match="'six' cannot be written in the text units"):
        Recognizer.load(file, decoder={"type": "beam", "context": ["six"]})


def test_it_needs_no_torch(file: Path, wavs: list[Path], expected: Expected, tmp_path: Path) -> None:
    """The whole command, in a process that has neither torch nor the other packages of training."""
    alone = Path(shutil.copy(file, tmp_path / "model.onnx"))  # without the files beside it

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    done = run("transcribe", *wavs, "--model", alone, "--depth", 3, "--format", "json", "--decoder", "greedy")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["text"] for record in records] == [expected[wav, (1, 3, 4)].text for wav in wavs]
    failed = run("transcribe", wavs[0], "--exp", tmp_path)
    assert failed.returncode == 1
    assert failed.stderr == "asrprune transcribe: error: torch is missing; run: pip install 'asrprune[train]'\n"


def test_a_thousand_changes_of_depth_from_eight_threads(file: Path, wavs: list[Path], expected: Expected) -> None:
    """Each text is that of its depth, and memory does not grow."""
    asr, sound = Recognizer.load(file), {wav: soundfile.read(wav, dtype="float32")[0] for wav in wavs}

    def is_right(case: tuple[Path, tuple[int, ...]]) -> bool:
        return asr.transcribe(sound[case[0]], depth=len(case[1])).text == expected[case].text

    cases = random.Random(0).choices(list(expected), k=1000)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(is_right, cases[:200]))
        before = resident_mb()
        assert all(threads.map(is_right, cases[200:]))
    assert resident_mb() - before < 5.0


@pytest.fixture(scope="module")
def ending(tiny_experiment: Path, wavs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Experiment]:
    """The model as a file with early exit, and its experiment. At each of its exits some of the recordings end."""
    root = tmp_path_factory.mktemp("ending")
    own = talking(Path(shutil.copytree(tiny_experiment, root / "exp")))
    model = TrainedModel(own)
    thresholds = splitting(confidences(model, [features_of(model, wav) for wav in wavs]))
    made = {"model_sha256": own.record.model_sha256, "exits": (1, 2, 4), "thresholds": thresholds}
    EarlyExit(format=1, decoder="greedy", set="dev", margin=0.5, curves={}, **made).write(own.path / "early_exit.json")
    export(own, find_plan(own, None), root / "model.onnx", Options(form="early-exit"))
    return root / "model.onnx", own


def confidences(model: TrainedModel, features: list[np.ndarray]) -> np.ndarray:
    """How sure torch is of each utterance after layers 1 and 2: (U, 2)."""
    rows = []
    for each in features:
        made = model.runner.emissions(torch.from_numpy(each)[None], torch.tensor([len(each)]), [(1,), (1, 2)])
        rows.append([float(confidence(emissions)[0]) for _, emissions in made])
    return np.array(rows)


def features_of(model: TrainedModel, wav: Path) -> np.ndarray:
    samples = soundfile.read(wav, dtype="float32")[0]
    frames = num_frames(len(samples), model.frontend)
    return model.features(lambda start, count: samples[start : start + count], len(samples), 0, frames)


def splitting(sure: np.ndarray) -> tuple[float, float]:
    """Thresholds with which some utterances end at each exit, for ``confidences``."""
    first = between(sure[:, 0], 2 / 3)
    return first, between(sure[sure[:, 0] < first, 1], 1 / 2)


def between(values: np.ndarray, share: float) -> float:
    """A number that ``share`` of the values do not reach, in the middle between two of them."""
    ordered, place = np.sort(values), int(share * len(values))
    return float(ordered[place - 1] + ordered[place]) / 2


def test_early_exit_ends_where_it_ends_in_torch(ending: tuple[Path, Experiment], wavs: list[Path]) -> None:
    here, there = Recognizer.load(ending[0]), Recognizer(TrainedModel(ending[1]))
    found = [here.transcribe(wav, depth="auto") for wav in wavs]
    for wav, hypothesis in zip(wavs, found, strict=True):
        assert_same(hypothesis, there.transcribe(wav, depth="auto"))
    assert {len(hypothesis.layers) for hypothesis in found} == {1, 2, 4}
    for threshold in (0.0, 0.45, 1.1):
        assert_same(*(asr.transcribe(wavs[0], depth="auto", exit_threshold=threshold) for asr in (here, there)))
    for layers in ((1, 2, 3, 4), (1, 3), (2,)):
        assert_same(here.transcribe(wavs[0], layers=layers), there.transcribe(wavs[0], layers=layers))
    assert here.transcribe(np.zeros(16000, np.float32), depth="auto") == Hypothesis("", (), ())
    done = asrprune("transcribe", *wavs, "--model", ending[0], "--early-exit", "--words")
    assert [json.loads(line)["layers"] for line in done.out.splitlines()] == [list(hypothesis.layers) for hypothesis in found]


def test_thresholds_of_another_decoder_are_told_once(
    ending: tuple[Path, Experiment], wavs: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    Recognizer.load(ending[0]).transcribe(wavs[0], depth="auto")
    assert "the thresholds were chosen with" not in caplog.text
    beam = Recognizer.load(ending[0], decoder={"type": "beam"})
    for _ in range(2):
        beam.transcribe(wavs[0], depth="auto")
    assert caplog.text.count("the thresholds were chosen with the decoder greedy, not with beam") == 1


def test_early_exit_of_a_file_that_takes_samples(ending: tuple[Path, Experiment], wavs: list[Path], tmp_path: Path) -> None:
    export(ending[1], find_plan(ending[1], None), tmp_path / "model.onnx", Options(form="early-exit", input="waveform"))
    here, there = Recognizer.load(tmp_path / "model.onnx"), Recognizer(TrainedModel(ending[1]))
    found = [here.transcribe(wav, depth="auto") for wav in wavs]
    for wav, hypothesis in zip(wavs, found, strict=True):
        assert_same(hypothesis, there.transcribe(wav, depth="auto"))
    assert {len(hypothesis.layers) for hypothesis in found} == {1, 2, 4}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_what_early_exit_costs_is_measured(
    precision: str,
    ending: tuple[Path, Experiment],
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, path, dev, exits = TrainedModel(ending[1]), tmp_path / "model.onnx", tiny_data / "dev", (1, 2, 4)
    corpus, units, traced = Corpus(dev, None), ending[1].tokenizer, import_onnx().load(str(ending[0]))
    features = [batch.features[0].numpy() for batch in corpus.loader([np.array([number]) for number in range(len(corpus))])]
    thresholds = splitting(confidences(model, features))
    monkeypatch.setattr(assemble, "early_exit", lambda *_: traced)
    monkeypatch.setattr(build, "_exits", lambda _: (exits, thresholds, "greedy"))
    with caplog.at_level("INFO"):
        options = Options(form="early-exit", precision=precision, dev=dev)
        found = export(ending[1], find_plan(ending[1], None), path, options).ended
    session, ran, said = Session(path), np.zeros((2, len(features)), int), []
    for number, each in enumerate(features):
        log_probs, frames, layers = session.run_until_sure(
            (each - np.float32(UNIT_SCALE))[None], np.array([len(each)]), thresholds
        )
        depth, emissions = run_until_sure(model.runner, torch.from_numpy(each), exits, thresholds)
        ran[:, number] = layers[0], depth
        (here,), (there,) = GREEDY.decode(log_probs, frames), GREEDY.decode(emissions.log_probs, emissions.lens)
        said.append((units.decode(here.labels), units.decode(there.labels)))
    assert (found.set, found.utterances) == ("dev", len(features))
    assert set(ran[1].tolist()) == set(exits)
    assert [found.layers, found.layers_float32] == pytest.approx(ran.mean(axis=1).tolist())
    assert found.changed == sum(one != other for one, other in said)
    words = sum(len(text.split()) for text in corpus.texts)
    for place, wer in enumerate((found.wer, found.wer_float32)):
        errors = [Levenshtein.distance(text.split(), one[place].split()) for text, one in zip(corpus.texts, said, strict=True)]
        assert wer == pytest.approx(100 * sum(errors) / words)
    assert found.rtf > 0
    sentence = f"Early exit on {len(features)} utterances of dev: {found.layers:.2f} layers on average (torch in float32:"
    assert sentence in path.with_name("README.md").read_text(encoding="utf-8")
    assert sentence in caplog.text


def test_each_utterance_of_a_batch_ends_where_it_ends_alone(ending: tuple[Path, Experiment], wavs: list[Path]) -> None:
    """By default the file itself does so, with its own thresholds: programs that know two inputs get early exit."""
    import onnxruntime

    session, thresholds = Session(ending[0]), ExportedModel(ending[0]).record.thresholds
    assert thresholds == EarlyExit.read(ending[1].path / "early_exit.json").thresholds
    batch = [features_of(TrainedModel(ending[1]), wav) - np.float32(UNIT_SCALE) for wav in wavs]
    lens = np.array([len(features) for features in batch])
    x = np.stack([np.pad(features, ((0, lens.max() - len(features)), (0, 0))) for features in batch])
    both = session.run_until_sure(x, lens, thresholds)
    assert set(both[2].tolist()) == {1, 2, 4}
    for number, length in enumerate(lens):
        alone = session.run_until_sure(x[number : number + 1, :length], lens[number : number + 1], thresholds)
        assert alone[2] == both[2][number]
        np.testing.assert_allclose(alone[0][0], both[0][number, : alone[1][0]], atol=1e-4)
    plain = onnxruntime.InferenceSession(str(ending[0]))
    assert [entry.name for entry in plain.get_inputs()] == ["x", "x_lens"]
    np.testing.assert_array_equal(plain.run(["layers"], {"x": x, "x_lens": lens})[0], both[2])


def test_sherpa_onnx_loads_a_file_with_early_exit_unchanged(ending: tuple[Path, Experiment], wavs: list[Path]) -> None:
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed")
    tokens, asr = ending[0].with_name("tokens.txt"), Recognizer.load(ending[0])
    recognizer = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(str(ending[0]), str(tokens), num_threads=1)
    depths = set()
    for wav in wavs:
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, soundfile.read(wav, dtype="float32")[0])
        recognizer.decode_stream(stream)
        expected = asr.transcribe(wav, depth="auto")
        assert stream.result.text.split() == expected.text.split()
        depths.add(len(expected.layers))
    assert len(depths) > 1


def test_early_exit_needs_its_own_form(file: Path, ending: tuple[Path, Experiment], experiment: Experiment) -> None:
    with pytest.raises(UserError, match=r"has no early exit; export it with --form early-exit, or choose a depth"):
        Recognizer.load(file).transcribe(np.zeros(16000, np.float32), depth="auto")
    with pytest.raises(UserError, match=r"early_exit\.json: is missing; run `asrprune early-exit` on a dev set before --form"):
        export(experiment, find_plan(experiment, None), file.with_name("none.onnx"), Options(form="early-exit"))
    with pytest.raises(UserError, match=r"has no default depth, each utterance has a depth of its own"):
        set_depth(ending[0], 2)
    assert "it may end after layer 1, 2, 4." in ending[0].with_name("README.md").read_text(encoding="utf-8")


def test_several_processes_say_the_same_in_the_same_order(
    ending: tuple[Path, Experiment], wavs: list[Path], tmp_path: Path
) -> None:
    given = [*wavs[:3], tmp_path / "none.wav", *wavs[3:], *wavs, "--model", ending[0], "--depth", 3, "--words"]
    one, two = asrprune("transcribe", *given), asrprune("transcribe", *given, "--nj", 2)
    assert (one.code, two.code) == (1, 1)
    assert len(one.out.splitlines()) == 2 * len(wavs)
    assert [without_confidence(line) for line in two.out.splitlines()] == [without_confidence(s) for s in one.out.splitlines()]
    assert two.err.splitlines()[-1] == one.err.splitlines()[-1]
    assert "none.wav: cannot be read" in one.err
    done = asrprune("transcribe", wavs[0], "-", "--model", ending[0], "--nj", 2)
    assert done.err.splitlines()[-1].endswith("error: --nj 2: only one process can read standard input; remove --nj")


def test_several_processes_say_once_what_is_resampled(ending: tuple[Path, Experiment], tmp_path: Path) -> None:
    for name in "abcd":
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(0).normal(0.0, 0.1, 8000), 8000)
    listener.told.clear()
    done = asrprune("transcribe", tmp_path, "--model", ending[0], "--nj", 2)
    assert done.err.count("recordings with 8000 Hz and 1 channels: 8000 Hz are resampled to 16000 Hz") == 1, done.err


def without_confidence(line: str) -> dict[str, Any]:
    """A record without the numbers whose last bits depend on the batch."""
    record = json.loads(line)
    return {**record, "words": [{key: word[key] for key in ("text", "start_s", "end_s")} for word in record["words"]]}


def test_control_c_ends_all_processes(ending: tuple[Path, Experiment], wavs: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asrprune.cli", "transcribe", *map(str, wavs * 500)]
    command += ["--model", str(ending[0]), "--nj", "2"]
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell ignore it
    out, environment = tmp_path / "out", {**os.environ, "PYTHONPATH": str(ROOT)}
    with out.open("w") as stdout:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
            preexec_fn=listen,
        )  # fmt: skip
    wait_for(lambda: has_lines(out, 1) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("asrprune transcribe: error: interrupted")
    assert "Traceback" not in err
    assert len(out.read_text().splitlines()) < 500 * len(wavs)
    wait_for(lambda: not group_runs(process.pid))


def resident_mb() -> float:
    """The memory of this process."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell the memory of a process")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_low_memory_gives_the_same_texts_and_can_be_pickled(file: Path, expected: Expected) -> None:
    asr = pickle.loads(pickle.dumps(Recognizer.load(file, low_memory=True)))
    session = asr.model._session._session
    assert session.get_session_options().get_session_config_entry("session.disable_prepacking") == "1"
    for (wav, keep), hypothesis in expected.items():
        assert_same(asr.transcribe(wav, layers=keep), hypothesis)


def test_fit_by_parameters_and_by_memory(file: Path, experiment: Experiment) -> None:
    asr, whole = Recognizer.load(file), TrainedModel(experiment).params_m((1, 2, 3, 4))
    assert asr.fit(params_m=whole) == 4
    assert asr.fit(params_m=0.9999 * whole) == 3
    assert asr.fit(memory_mb=file.stat().st_size / 1e6) == 4
    assert asr.fit(memory_mb=0.9999 * file.stat().st_size / 1e6) == 3
    assert asr.layers == (1, 3, 4)
    assert asr.fit(rtf=1000.0, seconds=0.5) == 4


def test_what_it_cannot_do_is_refused(file: Path, wavs: list[Path], tmp_path: Path) -> None:
    asr = Recognizer.load(file)
    mistakes: list[tuple[str, Callable[[], Any]]] = [
        ("plan iterative has no depth 2; it has 4, 3, 1", lambda: asr.transcribe(wavs[0], depth=2)),
        (r"layers must ascend and lie in 1\.\.4, got \[5\]", lambda: asr.transcribe(wavs[0], layers=[5])),
        ("has a plan of its own", lambda: Recognizer.load(file, plan="svcca")),
        ("runs on the CPU, not on cuda", lambda: Recognizer.load(file, device="cuda")),
        (r"none\.onnx: no such file; `asrprune export` makes it", lambda: Recognizer.load(tmp_path / "none.onnx")),
    ]
    for sentence, call in mistakes:
        with pytest.raises(UserError, match=sentence):
            call()


def with_facts(file: Path, path: Path, **changes: Any) -> Path:
    """A copy of the file that says something else of itself; None removes a fact."""
    model, exported = read_exported(file)
    facts = {**exported.plain(), **changes}
    set_metadata(model, {FACTS: {name: value for name, value in facts.items() if value is not None}})
    path.write_bytes(model.SerializeToString())
    return path


WINDOWS = {"one_piece_s": 60.0, "window_s": 30.0, "overlap_s": 4.0}
FRONTEND = FrontendConfig().model_dump()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"windows": {**WINDOWS, "overlap_s": 30.0}}, "the windows are not longer than their overlap"),
        ({"windows": {**WINDOWS, "window_s": 0.03, "overlap_s": 0.0}}, "the windows are not longer than their overlap"),
        ({"windows": {**WINDOWS, "overlap_s": 0.04}}, "the windows do not overlap by a frame of the output"),
        ({"windows": {**WINDOWS, "window_s": float("nan")}}, "windows.window_s: input should be a finite number"),
        ({"windows": {**WINDOWS, "one_piece_s": 1e308}}, "windows.one_piece_s: input should be less than"),
        ({"factor": 0}, "factor: input should be 4 or 8, got 0"),
        ({"frontend": {**FRONTEND, "frame_shift_ms": 1e-300}}, "frame_shift_ms must not be shorter than a sample"),
        ({"frontend": {**FRONTEND, "num_mels": 20}}, "its metadata say 20 mel filters, but its graph has 80"),
        ({"input": "waveform"}, "its metadata say 0 mel filters, but its graph has 80"),
        ({"units": ["<blk>", "<unk>"], "vocab_size": 2}, "its metadata say 2 text units, but its graph has 7"),
        ({"num_layers": 5}, "its metadata say 5 layers, but its graph has 4"),
        ({"num_layers": 2**40}, "num_layers: input should be less than or equal to 1000"),
        ({"num_layers": 3}, "depth 4: layers must ascend and lie in 1..3"),
        ({"exits": [1, 4], "thresholds": []}, "2 exits have 0 thresholds"),
        ({"form": "early-exit", "exits": [1, 4], "thresholds": [0.5]}, "its metadata say 1 thresholds, but its graph has 0"),
        ({"form": "early-exit", "exits": [1, 99], "thresholds": [0.5]}, "exits: layers must ascend and lie in 1..4"),
    ],
)
def test_facts_that_do_not_fit_the_file(
    changes: dict[str, Any], says: str, file: Path, wavs: list[Path], tmp_path: Path
) -> None:
    path = with_facts(file, tmp_path / "other.onnx", **changes)
    refused(asrprune("transcribe", wavs[0], "--model", path), "transcribe", "other.onnx: ", says, "; export it again")


def test_its_default_depth_and_its_own_facts_count(file: Path, tmp_path: Path) -> None:
    assert Recognizer.load(with_facts(file, tmp_path / "three.onnx", depth=3)).layers == (1, 3, 4)
    one = Recognizer.load(with_facts(file, tmp_path / "one.onnx", form="depth"))
    with pytest.raises(UserError, match="has the layers 1,2,3,4 only; export it with --form any-depth"):
        one.layers_of(layers=(1, 2))
    with pytest.raises(UserError, match=r"old\.onnx: not a model that `asrprune export` wrote .*; export it again"):
        ExportedModel(with_facts(file, tmp_path / "old.onnx", units=None))


def test_the_language_model_of_the_config_is_a_file_beside_it(
    file: Path, experiment: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lm, words = tmp_path / "3gram.arpa", {"a": "one", "b": "two", "ac": "three"}
    text = (ROOT / "test/fixtures/ctc_beam_decoder/tiny.arpa").read_text()
    lm.write_text(re.sub(r"\b(ac|a|b)\b", lambda match: words[match[0]], text))
    of = {"model_sha256": "", "lm_sha256": sha256_of(lm), "set": "dev", "width": 8, "tried": ()}
    tuned = Tuned(format=1, lm_weight=0.75, word_bonus=1.0, wer=5.0, **of)
    options = BeamConfig(width=3, lm="3gram.arpa").model_dump(mode="json")
    changes = {"decoder": options, "lm_sha256": sha256_of(lm), "tuned": tuned.plain()}
    path = with_facts(file, tmp_path / "model.onnx", **changes)
    assert "width=3" in (identity := Recognizer.load(path).decoder.identity)
    assert f"lm={sha256_of(lm)[:16]} lm_weight=0.75" in identity
    assert "word_bonus=1.0" in identity
    other = tmp_path / "other.arpa"
    other.write_text("\n" + lm.read_text())
    assert not caplog.text
    assert f"lm_weight={LM_WEIGHT}" in Recognizer.load(path, decoder={"lm": str(other)}).decoder.identity
    assert "other.arpa: the weights in" in caplog.text
    assert "were tuned for another language model and are ignored" in caplog.text
    lm.write_text("\n" + lm.read_text())  # that of another model, which has the same name
    with pytest.raises(UserError, match=r"3gram\.arpa: is another language model than that of .*; copy that one from the lang"):
        Recognizer.load(path)
    assert f"lm={sha256_of(lm)[:16]}" in Recognizer.load(path, decoder={"lm": str(lm)}).decoder.identity
    lm.unlink()
    with pytest.raises(UserError, match=r"decodes with the language model 3gram\.arpa, which is not beside it; copy it there"):
        Recognizer.load(path)
    assert Recognizer.load(path, decoder={"type": "greedy"}).decoder.identity == "greedy"
