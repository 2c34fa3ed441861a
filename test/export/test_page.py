"""The folder of `asrprune export --web`: its model, with a required choice of layers and the waveform as input; its card."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrprune.data.kaldi import read_data_dir
from asrprune.experiment.store import load
from asrprune.export import assemble, build, card
from asrprune.export.build import Options, export, set_depth
from asrprune.export.onnx_file import import_onnx
from asrprune.export.page import export_page
from asrprune.export.record import Exported
from asrprune.export.session import Session
from asrprune.features.fbank import num_frames
from asrprune.prune.find import find_plan
from asrprune.recognizer import Recognizer
from asrprune.runtime.errors import UserError

SOURCES = Path(card.__file__).parent / "web"


def test_the_folder_has_the_page_the_model_and_its_card(page: tuple[Path, Path]) -> None:
    folder, _ = page
    made = {"model.onnx", "model.onnx.json", "tokens.txt", "README.md"}
    assert {path.name for path in folder.iterdir()} == made | {path.name for path in SOURCES.iterdir()}
    record = Exported.read(folder / "model.onnx.json")
    assert (record.form, record.input) == ("required-keep", "waveform")


def test_the_page_asks_no_other_machine(page: tuple[Path, Path]) -> None:
    for path in SOURCES.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "").replace("//\n", ""), path


def test_keep_is_required(page: tuple[Path, Path]) -> None:
    path = page[0] / "model.onnx"
    names = [entry.name for entry in import_onnx().load(str(path)).graph.input]
    assert names == ["waveform", "waveform_lens", "keep"]
    assert Session(path).num_layers == 4
    with pytest.raises(UserError, match="has no default depth"):
        set_depth(path, 2)


def test_a_recogniser_says_with_it_what_it_says_in_torch(page: tuple[Path, Path], tiny_data: Path) -> None:
    """With its input, samples, instead of features: batches, ends of all lengths, windows, silence."""
    here, there, rng = Recognizer.load(page[0] / "model.onnx"), Recognizer.load(page[1]), np.random.default_rng(0)
    speech = [soundfile.read(one.audio, dtype="float32")[0] for one in read_data_dir(tiny_data / "dev")]
    cut = [speech[0][: len(speech[0]) - size] for size in (1, 80, 81, 159)]
    for samples in cut:  # the last frame depends on each of them
        frames = num_frames(len(samples), here.model.frontend)
        given = here.model.features(lambda start, count: speech[0][start : start + count], len(samples), 0, frames)
        np.testing.assert_array_equal(given, samples)
    long = np.concatenate(speech * 20)[: 70 * 16000 + 33]  # three windows
    quiet = [rng.normal(0.0, 1e-8, 32000).astype(np.float32), speech[0][:79], speech[0][:0]]
    audios = [*speech, *cut, long, *quiet]
    found, expected = ([*asr.transcribe_many(audios, layers=(1, 3))] for asr in (here, there))
    assert [(one.text, one.layers) for one in found] == [(one.text, one.layers) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert [(word.start_s, word.end_s) for word in one.words] == [(word.start_s, word.end_s) for word in other.words]
    for one, other in zip(found[:-4], expected[:-4], strict=True):  # at the edges of windows, features differ
        np.testing.assert_allclose([w.confidence for w in one.words], [w.confidence for w in other.words], atol=1e-4)
    assert found[-4].words[-1].end_s > 60
    assert [bool(one.text) for one in found[-3:]] == [False] * 3


def test_the_card_says_how_the_speed_of_the_file_was_measured(page: tuple[Path, Path]) -> None:
    record = Exported.read(page[0] / "model.onnx.json")
    assert all(row.rtf > 0 for row in record.depths)
    text = (page[0] / "README.md").read_text(encoding="utf-8")
    assert "of this file (float32) in onnxruntime, with features, on " in text
    assert f"utterances of dev, one by one; {record.speed.cpu}, threads: {record.speed.threads}, decoder: greedy." in text
    before = record.model_copy(update={"speed": None})
    text = card.markdown(page[0] / "model.onnx", before, "mark")
    assert "measured it in torch, without features. The speed of this file was not measured; export with --dev." in text


def test_the_card_says_under_which_licences_model_and_data_are(page: tuple[Path, Path]) -> None:
    record, path = Exported.read(page[0] / "model.onnx.json"), page[0] / "model.onnx"
    text = card.markdown(path, record.model_copy(update={"licence": "MIT", "data_licence": "CC BY 4.0"}), "mark")
    assert "| licence of the model | MIT |\n| licence of the training data | CC BY 4.0 |\n" in text
    assert card.markdown(path, record, "mark").count(" | not given; ask whoever trained it |") == 2
    experiment = load(page[1])
    known = replace(experiment, record=experiment.record.model_copy(update={"data_licence": "CC BY 4.0"}))
    assert build._describe(known, find_plan(known, None), Options(licence="MIT")).data_licence == "CC BY 4.0"


def test_a_page_of_something_else_is_kept(page: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    experiment = load(page[1])
    with pytest.raises(UserError, match=r"has an index\.html of something else"):
        export_page(experiment, find_plan(experiment, None), tmp_path, Options())
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_file_of_the_page_that_was_changed_is_kept(
    page: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asrprune.export.page.export", lambda *_: None)
    experiment, style = load(page[1]), tmp_path / "style.css"
    export_page(experiment, find_plan(experiment, None), tmp_path, Options())
    style.write_text("body { color: red }")
    (tmp_path / "model.onnx").touch()
    export_page(experiment, find_plan(experiment, None), tmp_path, Options())
    assert style.read_text() == "body { color: red }"
    assert [record.getMessage() for record in caplog.records] == [
        f"{style}: was changed, or is of another version; it is kept; remove it to get the current one"
    ]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_pieces_of_long_recordings_keep_their_places(tmp_path: Path) -> None:
    """70 s in pieces of at most 30 s, cut in the pauses at 25 and 47 s; together they are the recording.

    Other windows give other pieces; a recording that may be one piece is.
    """
    code = """
        import { isSilent, pieces } from "./pieces.js";
        const rate = 100, samples = Float32Array.from({ length: 70 * rate }, (_, i) => Math.sin(i));
        for (const second of [25, 47]) samples.fill(0, second * rate + 10, second * rate + 60);
        const found = pieces(samples, rate, { one_piece_s: 60, window_s: 30 });
        const short = pieces(samples.subarray(0, 700), rate, { one_piece_s: 5, window_s: 3 });
        const one = pieces(samples.subarray(0, 500), rate, { one_piece_s: 5, window_s: 3 });
        const whole = found.every(({ start, samples: piece }) => piece.every((sample, i) => sample === samples[start + i]));
        console.log(JSON.stringify({ starts: found.map(({ start }) => start / rate), whole,
            length: found.reduce((sum, piece) => sum + piece.samples.length, 0) / rate,
            short: short.map(({ samples: piece }) => piece.length), one: one.map(({ samples: piece }) => piece.length),
            silent: [isSilent(new Float32Array(9)), isSilent(samples)] }));
    """
    shutil.copy(SOURCES / "pieces.js", tmp_path / "pieces.js")
    (tmp_path / "test.mjs").write_text(code)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    done = subprocess.run(["node", "test.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["starts"] == pytest.approx([0, 25.3, 47.3], abs=0.3)
    assert (found["whole"], found["length"], found["silent"]) == (True, 70, [True, False])
    assert max(found["short"]) <= 300
    assert (len(found["short"]), sum(found["short"]), found["one"]) == (3, 700, [500])


def test_the_code_of_the_card_runs(page: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime-web, that is: the block of Python."""
    folder, _ = page
    code = (folder / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    samples, lens = np.zeros((1, 16000), np.float32), np.array([16000])
    names: dict[str, object] = {"samples": samples, "lens": lens}
    exec(code, names)
    np.testing.assert_array_equal(names["log_probs"], Session(folder / "model.onnx").run(samples, lens, (1, 2, 3, 4))[0])


def test_a_readme_of_something_else_is_kept(page: tuple[Path, Path], tmp_path: Path) -> None:
    record, path = Exported.read(page[0] / "model.onnx.json"), tmp_path / "small.onnx"
    path.write_bytes(b"")
    assert card.write(path, record).name == "README.md"
    assert card.write(path, record).name == "README.md"
    (tmp_path / "README.md").write_text("# My project\n")
    assert card.write(path, record).name == "small.onnx.md"
    assert (tmp_path / "README.md").read_text() == "# My project\n"


def test_a_waveform_shorter_than_a_frame_gives_no_text(page: tuple[Path, Path]) -> None:
    log_probs, frames = Session(page[0] / "model.onnx").run(np.zeros((2, 50), np.float32), np.array([50, 20]), (1, 3))
    assert frames.tolist() == [0, 0]
    assert np.isfinite(log_probs).all()


def test_a_waveform_that_gives_other_numbers_is_not_written(
    page: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = import_onnx()
    damaged = onnx.load(str(page[0] / "model.onnx"))
    (mel,) = (tensor for tensor in damaged.graph.initializer if tensor.name == "fbank.mel")
    mel.CopyFrom(onnx.numpy_helper.from_array(1.1 * onnx.numpy_helper.to_array(mel), mel.name))
    monkeypatch.setattr(assemble, "any_depth", lambda *_: damaged)
    experiment = load(page[1])
    with pytest.raises(UserError, match="differ from those of torch"):
        export(experiment, find_plan(experiment, None), tmp_path / "a.onnx", Options(form="required-keep", input="waveform"))
    assert list(tmp_path.iterdir()) == []
