"""Print the memory and time of a process that runs an exported model in several modes of onnxruntime (docs/transcribe.md).

    python tools/session_memory.py MODEL.onnx

MODEL.onnx is a file of `asrprune export` that takes features. Each mode has a process of its own, with one thread, which
runs noise of ten seconds at all depths. Times are those of the processor, the least of several runs of all layers with ten
seconds and with two.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status

EXTERNAL = "weights in a file of their own"
MODES: dict[str, dict[str, str]] = {  # -> entries of the session's config
    "default": {},
    "low memory": {"session.disable_prepacking": "1"},
    EXTERNAL: {},
    f"{EXTERNAL}, low memory": {"session.disable_prepacking": "1"},
}
MEASURED = """
import json, resource, sys, time
import numpy as np, onnxruntime

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

path, entries, before = sys.argv[1], json.loads(sys.argv[2]), resident()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
for entry in entries.items():
    options.add_session_config_entry(*entry)
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
loaded = resident()
(layers,) = [value.shape[0] for value in session.get_overridable_initializers() if value.name == "keep"]
inputs = {"x": np.random.default_rng(0).normal(-8.0, 3.0, (1, 1000, 80)).astype(np.float32), "x_lens": np.array([1000])}
for depth in range(1, layers + 1):
    session.run(None, {**inputs, "keep": np.arange(layers) < depth})
used, times = resident(), []
for seconds in (10, 2):
    part = {"x": inputs["x"][:, : 100 * seconds], "x_lens": np.array([100 * seconds])}
    taken = []
    for _ in range(int(sys.argv[3])):
        started = time.process_time()
        session.run(None, part)
        taken.append(time.process_time() - started)
    times.append(1000 * min(taken))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
print(json.dumps([before, loaded, used, peak, *times]))
"""


def main(repeats: int = 5) -> None:
    """Print a line for each mode."""
    if len(sys.argv) != 2 or not Path("/proc/self/statm").exists():
        raise UserError("give an exported model, on Linux: python tools/session_memory.py MODEL.onnx")
    model = Path(sys.argv[1])
    weights_mb = model.stat().st_size / 1e6
    print(f"weights: {weights_mb:.0f} MB; memory in MB, and as a multiple of the weights")
    with tempfile.TemporaryDirectory() as folder:
        outside = _with_external_data(model, Path(folder) / "model.onnx")
        for name, entries in MODES.items():
            path = outside if name.startswith(EXTERNAL) else model
            command = [sys.executable, "-c", MEASURED, str(path), json.dumps(entries), str(repeats)]
            done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
            if done.returncode != 0:
                raise UserError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            before, loaded, used, peak, *ms = json.loads(done.stdout)
            shares = "; ".join(
                f"{what} {mb:.0f} ({mb / weights_mb:.2f})"
                for what, mb in (("loaded", loaded), ("after runs", used), ("at most", peak), ("without Python", used - before))
            )
            print(f"{name}: {shares}; {ms[0]:.0f} ms for 10 s, {ms[1]:.0f} ms for 2 s")


def _with_external_data(model: Path, path: Path) -> Path:
    """Write the model with its weights in a second file, which onnxruntime maps into memory."""
    import onnx

    onnx.save(onnx.load(str(model)), str(path), save_as_external_data=True, location="weights", size_threshold=1024)
    return path


if __name__ == "__main__":
    sys.exit(exit_status(main))
