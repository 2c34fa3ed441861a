"""Install the runtime alone in a new environment, transcribe with it, and print what that takes (docs/transcribe.md).

    python tools/runtime_install.py MODEL.onnx SPEECH.wav [PYTHON]

MODEL.onnx is a file of `asrprune export`; PYTHON makes the environment (default: this one). The packages are downloaded.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status
from asrprune.runtime.packages import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
MEASURED = """
import resource, sys, time
started = time.perf_counter()
from asrprune import Recognizer
imported = time.perf_counter()
asr = Recognizer.load(sys.argv[1])
loaded = time.perf_counter()
text = asr.transcribe(sys.argv[2]).text
seconds = time.perf_counter() - loaded
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
print(f"{imported - started:.2f} s to import, {loaded - imported:.2f} s to load, {seconds:.2f} s to transcribe", end="")
print(f"; at most {peak:.0f} MB of memory")
from importlib.util import find_spec
print("packages of training that are installed:", [name for name in sys.argv[3:] if find_spec(name)] or "none")
print("text:", text)
"""


def main() -> None:
    """Print sizes and times."""
    if len(sys.argv) not in (3, 4):
        raise UserError(
            "give an exported model and a recording: python tools/runtime_install.py MODEL.onnx SPEECH.wav [PYTHON]"
        )
    model, speech, python = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), [*sys.argv, sys.executable][3]
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        _run(python, "-m", "venv", environment)
        own = environment / "bin/python"
        bare = _size_mb(environment)
        started = time.perf_counter()
        _run(
            own, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", f"{ROOT}[runtime]"
        )
        print(f"{time.perf_counter() - started:.0f} s to install, {_size_mb(environment) - bare:.0f} MB on disk")
        _run(own, "-c", MEASURED, model, speech, *EXTRAS["train"].values())
        _run(environment / "bin/asrprune", "transcribe", "--model", model, speech)
        _run(environment / "bin/asrprune", "doctor")


def _run(*command: str | Path) -> None:
    """Run a program of the new environment, in a directory that has no checkout."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if subprocess.run(command, env=outside, cwd="/").returncode != 0:
        raise UserError(f"{command[0]} failed; what it says above tells why")


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    sys.exit(exit_status(main))
