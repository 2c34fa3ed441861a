"""Transcribe with torch, onnxruntime and sherpa-onnx at every depth, and count the texts that differ (docs/deploy.md).

    pip install sherpa-onnx && python tools/compare_runtimes.py EXP MODEL.onnx RECORDINGS

MODEL.onnx is EXP exported in float32 with `--input features`; RECORDINGS are folders or files, of one channel and of the
model's sample rate. sherpa-onnx computes features by itself.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import sherpa_onnx
import soundfile

from asrprune.export.build import set_depth
from asrprune.recognizer import Recognizer
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status
from asrprune.transcribe.recordings import find_recordings


def main() -> None:
    """Print a line for each text that differs, and one for each depth."""
    if len(sys.argv) < 4:
        raise UserError("give an experiment, its exported file and recordings: EXP MODEL.onnx RECORDINGS")
    model = Path(sys.argv[2])
    recordings = [recording.entry for recording in find_recordings(sys.argv[3:])[0]]
    trained, exported = Recognizer.load(sys.argv[1]), Recognizer.load(model)
    for depth in sorted((step.depth for step in exported.plan.steps), reverse=True):
        texts = _texts(trained, recordings, depth)
        for runtime, others in (
            ("onnxruntime", _texts(exported, recordings, depth)),
            ("sherpa-onnx", _sherpa_texts(model, recordings, depth)),
        ):
            pairs = list(zip(recordings, texts, others, strict=True))
            for recording, text, other in (pair for pair in pairs if pair[1] != pair[2]):
                print(f"{depth} layers, {recording}: torch `{text}`, {runtime} `{other}`")
            differ = sum(text != other for _, text, other in pairs)
            print(f"{depth} layers: {differ} of {len(pairs)} texts of {runtime} differ from those of torch", flush=True)


def _texts(asr: Recognizer, recordings: list[str], depth: int) -> list[str]:
    found = list(asr.transcribe_many(recordings, depth))
    return [str(one) if isinstance(one, UserError) else one.text for one in found]


def _sherpa_texts(model: Path, recordings: list[str], depth: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(model, folder))
        set_depth(copy, depth)
        recogniser = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(str(copy), str(model.with_name("tokens.txt")))
        return [_sherpa_text(recogniser, recording) for recording in recordings]


def _sherpa_text(recogniser: "sherpa_onnx.OfflineRecognizer", recording: str) -> str:
    samples, rate = soundfile.read(recording, dtype="float32")
    stream = recogniser.create_stream()
    stream.accept_waveform(rate, samples)
    recogniser.decode_stream(stream)
    return " ".join(stream.result.text.split())


if __name__ == "__main__":
    sys.exit(exit_status(main))
