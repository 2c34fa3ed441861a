"""The code for onnx-asr in docs/deploy.md gives the texts of torch."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrprune.recognizer import Recognizer

pytest.importorskip("onnx_asr", reason="onnx-asr is not installed: pip install onnx-asr")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs/deploy.md"


def test_the_class_of_the_document(
    page: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(page[0], tmp_path / "page"))
    soundfile.write(folder / "speech.wav", np.random.default_rng(0).normal(0.0, 0.1, 30000), 16000)
    (code,) = re.findall(r"<!-- run by test/export/test_onnx_asr.py -->\n\n```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    monkeypatch.chdir(folder)
    exec(code, {"__name__": "document"})
    expected = Recognizer.load(page[1]).transcribe(folder / "speech.wav", depth=2).text
    assert expected
    found = capsys.readouterr().out
    assert "".join(found.split()) == "".join(expected.split())  # onnx-asr omits the blank before `<unk>`, as before a full stop
