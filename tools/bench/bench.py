#!/usr/bin/env python3
"""Measure asrprune on this machine, beside ESPnet2 where it is installed: docs/performance.json, .md and figures.

    make bench                                   all of it, on an idle machine; or some parts:
    python tools/bench/bench.py [--parts training,encoding] [--repeats 5] [--espnet PYTHON] [--exp DIR --dev DIR]

What is compared takes turns in one run; a ratio is the median over the turns. Other parts' figures stay as they are, each part
with the machine and the version that it was measured on. How to install ESPnet2: tools/bench/README.md.
"""

import argparse
import fnmatch
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from show import write_page

from asrprune.data.dataset import Corpus
from asrprune.experiment.plan import plan_path
from asrprune.experiment.store import load
from asrprune.prune.find import find_plan
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status
from asrprune.runtime.files import read_json, write_json
from asrprune.runtime.hardware import environment, has_fast_bf16

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
Facts = dict[str, Any]
MODELS: dict[str, Facts] = {"12": {"layers": 12, "ffn": 1024}, "24": {"layers": 24, "ffn": 2048}}  # width 256, 4 heads
TRAINED = {"utterances": 16, "frames": 400, "labels": 12}
SHAPES: dict[str, Facts] = {
    "b1": {"utterances": 1, "frames": 1000},
    "b16": {"utterances": 16, "frames": 400},
}  # 10 s; sixteen times 4 s
CLIPS: dict[str, Facts] = {"10s": {"utterances": 1, "frames": 1000}, "3s": {"utterances": 1, "frames": 300}}
RECIPE: Facts = {"type": "conv1d"}
FRONT_ENDS: dict[str, Facts] = {"32": {"type": "conv2d", "channels": 32}, "256": {"type": "conv2d"}, "recipe": RECIPE}
TRAININGS: dict[str, Facts] = {  # a recipe's training and the plain one that its conf/depths.yaml gives as much time
    "mini": {
        "config": "egs/mini/conf/train.yaml",
        "epochs": {"truncated": 6, "plain": 4},
        "updates": 4995,
        "batch": {"utterances": 25, "frames": 160, "labels": 5},
    },
    "an4": {
        "config": "egs/an4/conf/train.yaml",
        "epochs": {"truncated": 26, "plain": 17},
        "updates": 13549,
        "batch": {"utterances": 8, "frames": 300, "labels": 10},
    },
    "words": {
        "config": "egs/speechocean762/conf/train.yaml",
        "epochs": {"truncated": 11, "plain": 12},
        "updates": 14174,
        "batch": {"utterances": 5, "frames": 440, "labels": 20},
    },
}
DTYPES = {"fp32": "float32", "bf16": "bf16"}
NO_EXPERIMENT = "no experiment: run egs/an4, or give another one's --exp and --dev"
AN4 = {"exp": ROOT / "egs/an4/exp/train", "dev": ROOT / "egs/an4/data/dev"}


class Worker:
    """A process of one toolkit; see ``serve.py``."""

    def __init__(self, python: str, script: str, case: str, **options: Any) -> None:
        """Start it and have it build a case."""
        self.command, self.case = [python, str(HERE / script)], {"case": case, **options}
        self.start()

    def start(self) -> None:
        """Start the process and have it build its case."""
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self._ask(self.case)["ready"]

    def seconds(self, count: int, depth: int | None = None) -> float:
        """Of one run, as the mean of ``count``; with the first ``depth`` layers of a case that runs at any depth."""
        return self._ask({"run": count, **({"depth": depth} if depth is not None else {})})["seconds"]

    def peak_gb(self) -> float:
        """The most memory that the process has had."""
        return self._ask({"peak": "memory"})["peak_gb"]

    def found(self) -> Any:
        """What the last run returned."""
        return self._ask({"found": "last"})["found"]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, message: Facts) -> Facts:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f"{' '.join(map(str, self.process.args))}: ended, see above")  # type: ignore[arg-type]
        return json.loads(line)


def take_turns(workers: dict[str, Worker], turns: int, fresh: bool = False) -> dict[str, list[float]]:
    """Seconds of a run of each, in every turn; each turn gives each about one second.

    ``fresh``: each turn has processes of its own, for some are lucky with where their memory and threads come to lie.
    """
    counts = {name: enough(worker.seconds(1)) for name, worker in workers.items()}
    taken: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(turns):
        for name in alternating(workers, turn):
            if fresh and turn > 0:
                workers[name].close()
                workers[name].start()
            taken[name].append(workers[name].seconds(counts[name]))
    for worker in workers.values():
        worker.close()
    return taken


def by_depth(worker: Worker, depths: dict[str, int], turns: int) -> dict[str, list[float]]:
    """Seconds of a run at each depth, in every turn, by one model in one process; each turn has a process of its own."""
    counts = {part: enough(worker.seconds(1, depth)) for part, depth in depths.items()}
    taken: dict[str, list[float]] = {part: [] for part in depths}
    for turn in range(turns):
        if turn > 0:
            worker.start()
        for part in alternating(depths, turn):
            taken[part].append(worker.seconds(counts[part], depths[part]))
        worker.close()
    return taken


def enough(seconds: float) -> int:
    """How many runs take about one second."""
    return max(1, round(1.0 / seconds))


def alternating(names: Iterable[str], turn: int) -> list[str]:
    """The names, in every second turn backwards."""
    return list(names)[:: 1 if turn % 2 == 0 else -1]


def fractions(layers: int) -> dict[str, int]:
    """The depths of which the time is compared with that of all layers."""
    return {"full": layers, "half": layers // 2, "third": layers // 3, "quarter": layers // 4}


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over the turns of above / below."""
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 4)


def share_of_peak(flops: int, taken: Sequence[float], matmul: Sequence[float]) -> float:
    """Of the speed of a matrix product of 2048, which took its turns beside it."""
    speeds = [(flops / own) / (2 * 2048**3 / other) for own, other in zip(taken, matmul, strict=True)]
    return round(statistics.median(speeds), 4)


class Bench:
    """Keys of performance.json of one part, the raw figures behind them, and what could not be measured here."""

    def __init__(self, espnet: str | None, turns: int, exp: Path | None, dev: Path | None) -> None:
        """``espnet``: the Python of its environment."""
        self.espnet, self.turns, self.exp, self.dev = espnet, turns, exp, dev
        self.keys: Facts = {}
        self.raw: Facts = {}
        self.skipped: dict[str, str] = {}

    def ours(self, case: str, **options: Any) -> Worker:
        """A worker of this project."""
        return Worker(sys.executable, "ours.py", case, **options)

    def theirs(self, case: str, name: str = "espnet", **options: Any) -> dict[str, Worker]:
        """A worker of ESPnet by that name, or none."""
        return {name: Worker(self.espnet, "theirs.py", case, **options)} if self.espnet else {}

    # -- parts -------------------------------------------------------------------------------------------------------

    def training(self) -> None:
        """An update: ours with two taps and dropout beside ESPnet's, and the prunable model's beside the plain one's."""
        for size, model in MODELS.items():
            taps = [model["layers"] // 4, model["layers"] // 2]
            for name, dtype in DTYPES.items():
                shared = {**model, **TRAINED, "dtype": dtype}
                workers = {
                    "taps": self.ours("train", taps=taps, rate=0.0, **shared),
                    "plain": self.ours("train", taps=[], rate=0.0, **shared),
                    "prunable": self.ours("train", taps=taps, rate=0.3, **shared),
                    "matmul": self.ours("matmul", size=2048, dtype=dtype),
                    **self.theirs("train", taps=taps, **shared),
                }
                if size == "12" and shutil.which("c++"):
                    workers["compiled"] = self.ours("train", taps=taps, rate=0.0, compiled=True, **shared)
                flops = workers["taps"].facts["matmul_flops"]
                facts = {**shared, "taps": taps, "matmul_flops": flops, "shares": workers["taps"].facts["shares"]}
                taken = take_turns(workers, self.turns)
                self.raw[f"train_{size}_{name}"] = {**facts, "seconds": taken}
                if "compiled" in taken:
                    self.keys[f"compiled_vs_eager_step_{size}_{name}"] = ratio(taken["compiled"], taken["taps"])
                self.keys[f"prunable_vs_plain_step_{size}_{name}"] = ratio(taken["prunable"], taken["plain"])
                self.keys[f"peak_share_train_{size}_{name}"] = share_of_peak(flops, taken["taps"], taken["matmul"])
                self.against_espnet(f"train_vs_espnet_{size}_{name}", taken, "taps")
        self.worst("prunable_vs_plain_step", max)
        for name in DTYPES:
            self.worst(f"train_vs_espnet_{name}", min, f"train_vs_espnet_*_{name}")
            self.worst(f"peak_share_train_{name}", min, f"peak_share_train_*_{name}")

    def encoding(self) -> None:
        """The encoder with ESPnet's front end, beside ESPnet's; and at all depths."""
        for size, model in MODELS.items():
            for name, shape in SHAPES.items():
                shared = {**model, **shape, "depth": model["layers"]}
                workers = {dtype: self.ours("encode", dtype=DTYPES[dtype], profiled=True, **shared) for dtype in DTYPES}
                workers |= {f"matmul_{key}": self.ours("matmul", size=2048, dtype=dtype) for key, dtype in DTYPES.items()}
                for key, dtype in DTYPES.items():
                    workers |= self.theirs("encode", f"espnet_{key}", **model, **shape, dtype=dtype)
                flops = workers["fp32"].facts["matmul_flops"]
                facts = {**shared, "matmul_flops": flops, "shares": workers["fp32"].facts["shares"]}
                taken = take_turns(workers, self.turns)
                self.raw[f"encode_{size}_{name}"] = {**facts, "seconds": taken}
                for dtype in DTYPES:
                    own_peak = taken[f"matmul_{dtype}"]
                    self.keys[f"peak_share_encode_{size}_{name}_{dtype}"] = share_of_peak(flops, taken[dtype], own_peak)
                    self.against_espnet(f"encode_vs_espnet_{name}_{size}_{dtype}", taken, dtype, f"espnet_{dtype}")
                chosen = "bf16" if has_fast_bf16(torch.device("cpu")) else "fp32"  # by decode.precision=auto
                self.against_espnet(f"encode_vs_espnet_{name}_{size}_auto", taken, chosen, "espnet_fp32")  # ESPnet2's default
                for front_end in ("32", "256"):
                    self.depths(size, name, front_end)
        for label in ("half", "third", "quarter"):
            self.worst(f"rtf_ratio_{label}", max, f"rtf_ratio_{label}_256_*")
            self.worst(f"rtf_ratio_{label}_32", max)
        for dtype in DTYPES:
            self.worst(f"peak_share_encode_{dtype}", min, f"peak_share_encode_*_{dtype}")
        for name in SHAPES:
            self.worst(f"encode_vs_espnet_{name}", min, f"encode_vs_espnet_{name}_*_fp32")  # both toolkits' default
            for kind in ("bf16", "auto"):
                self.worst(f"encode_vs_espnet_{name}_{kind}", min, f"encode_vs_espnet_{name}_*_{kind}")

    def recipe(self) -> None:
        """The recipes' front end, in float32: an update and the encoder beside ESPnet's, all depths, and with a factor of 8."""
        for size, model in MODELS.items():
            shared = {**model, **TRAINED, "taps": [model["layers"] // 4, model["layers"] // 2], "dtype": "float32"}
            workers = {"recipe": self.ours("train", rate=0.0, front_end=RECIPE, **shared), **self.theirs("train", **shared)}
            taken = take_turns(workers, self.turns)
            self.raw[f"recipe_{size}_update"] = {**shared, "seconds": taken}
            self.against_espnet(f"train_vs_espnet_{size}_fp32_recipe", taken, "recipe")
            for name, shape in SHAPES.items():
                shared = {**model, **shape, "dtype": "float32"}
                for_all = {**shared, "depth": model["layers"]}
                workers = {
                    "recipe": self.ours("encode", front_end=RECIPE, **for_all),
                    "factor8": self.ours("encode", front_end={**RECIPE, "factor": 8}, **for_all),
                    **self.theirs("encode", **shared),
                }
                taken = take_turns(workers, self.turns, fresh=True)
                self.raw[f"recipe_{size}_{name}"] = {**for_all, "seconds": taken}
                self.against_espnet(f"encode_vs_espnet_{name}_{size}_recipe", taken, "recipe")
                self.keys[f"factor8_vs_factor4_{size}_{name}"] = ratio(taken["recipe"], taken["factor8"])
                self.depths(size, name, "recipe")
        for label in ("half", "third", "quarter"):
            self.worst(f"rtf_ratio_{label}_recipe", max)
        for name in SHAPES:
            self.worst(f"encode_vs_espnet_{name}_recipe", min, f"encode_vs_espnet_{name}_*_recipe")
        self.worst("train_vs_espnet_fp32_recipe", min, "train_vs_espnet_*_fp32_recipe")
        self.worst("factor8_vs_factor4", min)

    def runtime(self) -> None:
        """Exported files in onnxruntime, the recipes' front end: int8 and float32 beside torch and ESPnet; all depths."""
        with tempfile.TemporaryDirectory() as folder:
            for (size, model), (name, shape) in product(MODELS.items(), CLIPS.items()):
                shared = {**model, **shape, "front_end": RECIPE}
                files = {**shared, "folder": folder}
                workers = {
                    "torch": self.ours("encode", depth=model["layers"], dtype="float32", **shared),
                    "ort": self.ours("exported", depth=model["layers"], precision="float32", **files),
                    "int8": self.ours("exported", depth=model["layers"], precision="int8", **files),
                    **self.theirs("encode", **model, **shape, dtype="float32"),
                }
                sizes = {label: workers[label].facts["file_mb"] for label in ("ort", "int8")}
                taken = take_turns(workers, self.turns, fresh=True)
                self.raw[f"runtime_{size}_{name}"] = {**shared, "file_mb": sizes, "seconds": taken}
                for label, key in (("ort", "ort"), ("int8", "ort_int8")):
                    self.keys[f"{key}_vs_torch_fp32_{size}_{name}"] = ratio(taken["torch"], taken[label])
                self.against_espnet(f"ort_int8_vs_espnet_fp32_{size}_{name}", taken, "int8")
                worker = self.ours("exported", depth=model["layers"], precision="int8", **files)
                taken = by_depth(worker, fractions(model["layers"]), self.turns)
                self.raw[f"runtime_{size}_{name}"]["by_depth"] = taken
                for part in ("half", "third", "quarter"):
                    self.keys[f"int8_ratio_{part}_{size}_{name}"] = ratio(taken[part], taken["full"])
        for key, choose in (("ort_vs_torch_fp32", min), ("ort_int8_vs_torch_fp32", min), ("ort_int8_vs_espnet_fp32", min)):
            self.worst(key, choose)
        for part in ("half", "third", "quarter"):
            self.worst(f"int8_ratio_{part}", max)

    def cost(self) -> None:
        """The training of a recipe, with truncated updates, beside a plain one of fewer epochs: seconds of all updates."""
        for name, case in TRAININGS.items():
            shared = {"config": str(ROOT / case["config"]), "updates": case["updates"], **case["batch"]}
            workers = {
                label: self.ours("recipe_updates", truncated=label == "truncated", **shared) for label in ("truncated", "plain")
            }
            depths = workers["truncated"].facts["depths"]
            taken = take_turns(workers, self.turns)
            self.raw[f"cost_{name}"] = {**case, "depths": depths, "seconds": taken}
            epochs = case["epochs"]["truncated"] / case["epochs"]["plain"]
            self.keys[f"truncated_vs_plain_training_{name}"] = round(epochs * ratio(taken["truncated"], taken["plain"]), 4)
        self.worst("truncated_vs_plain_training", max)

    def depths(self, size: str, name: str, label: str) -> None:
        """Time by depth with a front end; no layer at all shows what that takes."""
        model, shape = MODELS[size], SHAPES[name]
        depths = {**fractions(model["layers"]), "none": 0}
        shared = {**model, **shape, "front_end": FRONT_ENDS[label], "dtype": "float32"}
        taken = by_depth(self.ours("encode", depth=model["layers"], **shared), depths, self.turns)
        self.raw[f"depth_{size}_{name}_{label}"] = {**shared, "depths": depths, "seconds": taken}
        for part in ("half", "third", "quarter"):
            self.keys[f"rtf_ratio_{part}_{label}_{size}_{name}"] = ratio(taken[part], taken["full"])

    def decoding(self) -> None:
        """Features to text units beside ESPnet; a dev set in float32 and in bfloat16: WER by depth, and time at full depth."""
        shared = {**MODELS["12"], **SHAPES["b16"]}
        taken = take_turns({"greedy": self.ours("greedy", **shared), **self.theirs("greedy", **shared)}, self.turns)
        self.raw["greedy"] = {**shared, "seconds": taken}
        self.against_espnet("greedy_vs_espnet", taken, "greedy")
        if self.exp is None or self.dev is None:
            self.skipped["decoding"] = NO_EXPERIMENT
            return
        data = {"exp": str(self.exp.resolve()), "dev": str(self.dev.resolve())}
        workers = {name: self.ours("decode", dtype=dtype, **data) for name, dtype in DTYPES.items()}
        wer = {name: worker.facts["wer"] for name, worker in workers.items()}
        taken = take_turns(workers, self.turns)
        self.raw["decoding"] = {"seconds": taken, "wer": wer}
        self.keys["decode_bf16_vs_fp32"] = ratio(taken["fp32"], taken["bf16"])
        changes: dict[str, float] = {depth: wer["bf16"][depth] - value for depth, value in wer["fp32"].items()}
        self.keys["bf16_wer_change_full"] = round(next(iter(changes.values())), 4)
        largest = max(changes.values(), key=abs)
        self.keys["bf16_wer_change_largest"] = round(largest, 4)

    def search(self) -> None:
        """Iterative search over the dev set of an experiment, with a beam of 3, and with every sub-model run by itself."""
        if self.exp is None or self.dev is None:
            self.skipped["search"] = NO_EXPERIMENT
            return
        plans = {}
        with tempfile.TemporaryDirectory() as folder:
            left = shutil.ignore_patterns("checkpoints", "decode", "plans")  # with plans go the scores that a search remembers
            copy = Path(shutil.copytree(self.exp, f"{folder}/exp", ignore=left))
            for beam in (1, 3):
                command = [sys.executable, "-m", "asrprune.cli", "search", "--exp", str(copy), "--dev", str(self.dev)]
                subprocess.run(
                    [*command, "--strategy", "iterative", "--beam", str(beam)], check=True, stdout=subprocess.DEVNULL
                )
                plans[beam] = read_json(copy / "plans/iterative.json")
        naive = self.ours("naive_search", exp=str(self.exp.resolve()), dev=str(self.dev.resolve()))
        self.keys["search_naive_seconds"] = round(naive.seconds(1), 2)
        self.keys["search_same_plan"] = naive.found() == [step["keep"] for step in plans[1]["steps"]]
        naive.close()
        scores = {beam: {step["depth"]: step["score"] for step in plan["steps"]} for beam, plan in plans.items()}
        self.raw["search"] = {
            f"beam_{beam}": {key: plan[key] for key in ("layer_forwards", "naive_layer_forwards", "seconds")}
            | {"dev_wer": scores[beam]}
            for beam, plan in plans.items()
        }
        self.keys["search_forwards_vs_naive"] = round(plans[1]["layer_forwards"] / plans[1]["naive_layer_forwards"], 4)
        self.keys["search_seconds"], self.keys["search_beam_3_seconds"] = plans[1]["seconds"], plans[3]["seconds"]
        self.keys["beam_3_worse_at_depths"] = [depth for depth, score in scores[3].items() if score > scores[1][depth]]

    def features(self) -> None:
        """Filterbanks of noise, as fast as one core computes them."""
        work: Facts = {"seconds": 10.0, "utterances": 20}
        workers = {"fbank": self.ours("fbank", **work), **self.theirs("fbank", **work)}
        audio_s = workers["fbank"].facts["audio_s"]
        taken = take_turns(workers, self.turns)
        self.raw["fbank"] = {"audio_s": audio_s, "seconds": taken}
        self.keys["fbank_x_realtime_per_core"] = round(audio_s / statistics.median(taken["fbank"]), 1)
        self.against_espnet("fbank_vs_espnet", taken, "fbank")

    def planning(self) -> None:
        """Reading, checking and scoring ever more utterances, planning an epoch of them: seconds, and memory of the process."""
        for case in ("manifest", "plan", "validate", "score"):  # scoring ten million takes a quarter of an hour
            sizes: Facts = {}
            for utterances in (10**power for power in range(4, 8)):
                worker = self.ours(case, utterances=utterances)
                sizes[str(utterances)] = {"seconds": worker.seconds(1), "peak_gb": worker.peak_gb()}
                if "padding" in worker.facts:
                    self.keys["padding_share"] = round(worker.facts["padding"], 4)
                worker.close()
            self.raw[case] = sizes
            self.keys[f"{case}_10m_s"] = round(sizes[str(utterances)]["seconds"], 1)
            self.keys[f"{case}_10m_gb"] = round(sizes[str(utterances)]["peak_gb"], 2)

    # -- helpers -----------------------------------------------------------------------------------------------------

    def against_espnet(self, key: str, taken: dict[str, list[float]], own: str, other: str = "espnet") -> None:
        """How many times faster than ESPnet."""
        if other in taken:
            self.keys[key] = ratio(taken[other], taken[own])
        else:
            self.skipped[key] = "ESPnet2 is not installed; tools/bench/README.md says how"

    def worst(self, key: str, choose: Callable[..., float], pattern: str | None = None) -> None:
        """The key without size and type is the least favourable of those with them."""
        found = [self.keys[name] for name in fnmatch.filter(self.keys, pattern or f"{key}_*")]
        if found:
            self.keys[key] = choose(found)


PARTS = ("training", "cost", "encoding", "recipe", "runtime", "decoding", "search", "features", "planning")


def run(given: argparse.Namespace) -> None:
    """Measure the wanted parts; those that are in performance.json already and are not wanted stay."""
    parts = given.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--parts {','.join(unknown)}: no such part; there are {', '.join(PARTS)}")
    if given.repeats < 1:
        raise UserError(f"--repeats {given.repeats}: at least 1")
    exp, dev = searched(given.exp, given.dev)
    espnet, machine = working(given.espnet), environment()  # now, while the tree is as clean as it is
    for part in parts:
        print(f"{part} ...", file=sys.stderr)
        bench = Bench(espnet, given.repeats, exp, dev)
        getattr(bench, part)()
        note(given.output / "performance.json", part, machine, bench)
    print(write_page(given.output))


def searched(exp: Path | None, dev: Path | None) -> tuple[Path | None, Path | None]:
    """The experiment to decode and search with, and its dev set: AN4's if it is here and nothing else is asked for."""
    if exp is None and dev is None:
        return (AN4["exp"], AN4["dev"]) if plan_path(AN4["exp"], "iterative").exists() else (None, None)
    if exp is None or dev is None:
        raise UserError("--exp and --dev belong together; give both, or none for AN4's")
    find_plan(load(exp), "iterative")
    Corpus(dev, None)
    return exp, dev


def working(espnet: str | None) -> str | None:
    """The Python of ESPnet2's environment; none is given: None."""
    if espnet is None:
        return None
    try:
        subprocess.run([espnet, "-c", "import espnet2"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise UserError(f"--espnet {espnet}: is no Python with ESPnet2; tools/bench/README.md says how to make one") from None
    return espnet


def note(path: Path, part: str, machine: Facts, bench: Bench) -> None:
    """Put what a part measured in the place of what it had measured before."""
    before = read_json(path) if path.exists() else {"parts": {}, "raw": {}}
    old = before["parts"].get(part, {"keys": [], "raw": []})
    keys = {k: v for k, v in before.items() if k not in ("parts", "raw", *old["keys"])} | bench.keys
    raw = {k: v for k, v in before["raw"].items() if k not in old["raw"]} | bench.raw
    facts = {"environment": machine, "skipped": bench.skipped, "keys": list(bench.keys), "raw": list(bench.raw)}
    write_json(path, {**keys, "parts": {**before["parts"], part: facts}, "raw": raw})


def main() -> int:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--espnet", default=os.environ.get("ESPNET_PYTHON"), help="the Python of ESPnet2's environment")
    parser.add_argument("--exp", type=Path, help="experiment to decode and search with; default: AN4's, if it is here")
    parser.add_argument("--dev", type=Path, help="its dev set")
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    given = parser.parse_args()
    return exit_status(lambda: run(given))


if __name__ == "__main__":
    sys.exit(main())
