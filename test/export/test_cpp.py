"""The C++ programs in docs/deploy.md, compiled and run by the commands below them, say of recordings what Python says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from asrprune.experiment.store import load
from asrprune.export.build import Options, export
from asrprune.prune.find import find_plan
from asrprune.recognizer import Recognizer

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/deploy.md"
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler; Debian: apt install g++")


def printed(program: str, folder: Path, layers: str = "111001") -> str:
    """Write the program of the document into ``folder``, run the commands below it there, and return what they print.

    The document's command runs the layers 111001; here other ``layers``.
    """
    blocks = rf"```cpp\n(// {re.escape(program)}\b.*?)```\n.*?```\n(.*?)```"
    ((code, commands),) = re.findall(blocks, DOCUMENT.read_text(encoding="utf-8"), re.S)
    (folder / program).write_text(code, encoding="utf-8")
    commands = commands.replace("111001", layers)
    done = subprocess.run(["bash", "-euc", commands], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_sherpa_onnx(page: tuple[Path, Path], clips: list[Path], tmp_path: Path) -> None:
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install sherpa-onnx")
    experiment = load(page[1])
    export(experiment, find_plan(experiment, None), tmp_path / "model.onnx", Options())
    recognizer = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(str(tmp_path / "model.onnx"), str(tmp_path / "tokens.txt"))
    for clip in clips:
        stream = recognizer.create_stream()
        samples, rate = soundfile.read(clip, dtype="float32")
        stream.accept_waveform(rate, samples)
        recognizer.decode_stream(stream)
        assert stream.result.text
        shutil.copy(clip, tmp_path / "speech.wav")
        assert printed("transcribe.cpp", tmp_path) == stream.result.text.strip()


@pytest.mark.skipif(
    not shutil.which("pkg-config") or subprocess.run(["pkg-config", "--exists", "libonnxruntime"], check=False).returncode,
    reason="no onnxruntime for C++; Debian 13: apt install pkg-config libonnxruntime-dev",
)
def test_onnxruntime(page: tuple[Path, Path], clips: list[Path], tmp_path: Path) -> None:
    for source in (page[0] / "model.onnx", page[0] / "tokens.txt"):
        shutil.copy(source, tmp_path)
    shutil.copy(clips[0], tmp_path / "speech.wav")
    asr = Recognizer.load(page[1])
    for layers in ("1111", "1100", "0101"):
        expected = asr.transcribe(clips[0], layers=[i for i, runs in enumerate(layers, 1) if runs == "1"]).text
        assert expected
        assert printed("depths.cpp", tmp_path, layers) == expected
