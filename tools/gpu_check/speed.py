"""Speed on one device, as JSON: `speed.py environment|depth|training cuda|cpu [tiny]`, with tools/bench on PYTHONPATH."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import torch
from ours import build, updater
from serve import batch

from asrprune.config.schema import DecodeConfig
from asrprune.decode.benchmark import measure
from asrprune.experiment.store import Experiment
from asrprune.model.ctc_model import num_params
from asrprune.runtime.hardware import environment
from asrprune.train.ranks import make_fabric

Json = dict[str, Any]
FRAMES_PER_S = 100
# The paper's model: 24 layers of width 256, feed-forward 2048.
PAPER: Json = {
    "layers": 24, "ffn": 2048, "depths": [24, 18, 12, 8, 6], "taps": [6, 12],
    "batches": [1, 32], "frames": 1000, "utterances": 20, "labels": 50, "warm_up": 3, "repeats": 15,
}  # fmt: skip
TINY: Json = {
    "layers": 4, "ffn": 64, "depths": [4, 2, 1], "taps": [1, 2],
    "batches": [1, 2], "frames": 100, "utterances": 3, "labels": 5, "warm_up": 1, "repeats": 2,
}  # fmt: skip
TF32 = {"no TF32": (False, False), "TF32 in convolutions": (True, False), "TF32": (True, True)}  # the second is torch's default


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of some work, until the GPU is done with it."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def depth(device: torch.device, sizes: Json) -> Json:
    """Real-time factor by depth, features to labels: the median of passes in turns, each with the GPU's work done."""
    model = build(sizes["layers"], sizes["ffn"], (), 0.0).eval().to(device)
    keeps = [tuple(range(1, count + 1)) for count in sizes["depths"]]
    rows = []
    for utterances in sizes["batches"]:
        features, lens, *_ = batch(utterances, sizes["frames"], 1)
        audio_s = int(lens.sum()) / FRAMES_PER_S
        for precision in ("float32", "bf16"):
            config = SimpleNamespace(decode=DecodeConfig.model_validate({"precision": precision}))
            experiment = cast(Experiment, SimpleNamespace(model=model, config=config, tokenizer=SimpleNamespace(decode=str)))
            measure(experiment, [(features, lens)], keeps, sizes["warm_up"], audio_s)
            speeds = measure(experiment, [(features, lens)], keeps, sizes["repeats"], audio_s)
            for keep, speed in zip(keeps, speeds, strict=True):
                rows.append({
                    "utterances": utterances, "precision": precision, "depth": len(keep), "audio_s": audio_s,
                    "params_m": round(num_params(model, keep) / 1e6, 2), "rtf": speed.rtf,
                    "rtf_min": speed.rtf_min, "rtf_max": speed.rtf_max, "speed_up": speeds[0].rtf / speed.rtf,
                })  # fmt: skip
    return {"sizes": sizes, "tf32": torch_default(), "rows": rows}


def training(device: torch.device, sizes: Json) -> Json:
    """Frames a second of updates, and the peak of memory: a plain model and a prunable one (taps, stochastic depth 0.3)."""
    inputs = batch(sizes["utterances"], sizes["frames"], sizes["labels"])
    rows = []
    for name, taps, rate in (("plain", (), 0.0), ("prunable", sizes["taps"], 0.3)):
        for precision, tf32 in (*(("float32", tf32) for tf32 in TF32), ("bf16", "TF32 in convolutions")):
            with using(tf32), memory(device) as peak:
                fabric = make_fabric(precision, int(device.type == "cuda"))
                update = updater(fabric, build(sizes["layers"], sizes["ffn"], taps, rate), inputs, rate)
                for _ in range(sizes["warm_up"]):
                    update()
                seconds = [timed(update) for _ in range(sizes["repeats"])]
            rows.append({
                "model": name, "precision": precision, "tf32": tf32, "update_s": statistics.median(seconds),
                "frames_per_s": int(inputs[1].sum()) / statistics.median(seconds), "peak_gb": peak[0],
            })  # fmt: skip
            del update
    return {"sizes": sizes, "peak": "allocated by torch" if device.type == "cuda" else "of the process so far", "rows": rows}


def torch_default() -> str:
    """Whether float32 is TF32 on a GPU unless somebody says otherwise."""
    settings = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    return next(name for name, values in TF32.items() if values == settings)


@contextmanager
def using(tf32: str) -> Iterator[None]:
    """Set TF32 for convolutions and for matrix products."""
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = TF32[tf32]
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def memory(device: torch.device) -> Iterator[list[float]]:
    """A list that gets the peak of memory in GB at the end."""
    peak: list[float] = []
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield peak
    used = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    peak.append(used / 1e9)


def machine(device: torch.device) -> Json:
    """What it was measured on."""
    found: Json = {**environment(), "device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            driver = "unknown"
        found |= {
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": driver,
            "memory_gb": properties.total_memory / 1e9, "capability": f"{properties.major}.{properties.minor}",
        }  # fmt: skip
    return found


if __name__ == "__main__":
    chosen = torch.device(sys.argv[2])
    chosen_sizes = TINY if "tiny" in sys.argv else PAPER
    out, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not get into the JSON
    result = (
        machine(chosen)
        if sys.argv[1] == "environment"
        else {"depth": depth, "training": training}[sys.argv[1]](chosen, chosen_sizes)
    )
    print(json.dumps(result), file=out)
