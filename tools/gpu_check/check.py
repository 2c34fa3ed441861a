"""Runs the parts of tools/gpu_check.sh, each in a process and with a time limit of its own, and says what they found.

Needs nothing but Python, so that a part that cannot even start is told of like any other.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
AN4 = ROOT.parent / "shared/data/an4"
WHOLE_S = 480.0  # all parts together
SLOWER = 5.0  # times as long on a CPU, which may be busy
LIMITS_S = {"machine": 60.0, "tests": 150.0, "depth": 70.0, "training": 80.0, "an4": 240.0}
Json = dict[str, Any]
# The recipe's model in fewer epochs, with batches of twice the size.
AN4_NUMBERS = {
    "train.epochs": 10, "train.schedule.warmup_steps": 500, "train.keep_best": 3, "train.average": 3, "train.num_workers": 2,
    "batch.max_frames": 5000,
    "prune.strategies": "['iterative','lowest']", "prune.depths": "[12,9,6,4,2]", "prune.speeds": "[1.0]",
}  # fmt: skip
AN4_TINY = {
    "train.epochs": 1, "train.schedule.warmup_steps": 5, "train.keep_best": 1, "train.average": 1, "augment.speeds": "[1.0]",
    "batch.max_frames": 5000, "prune.strategies": "['lowest']", "prune.depths": "[2,1]", "prune.speeds": "[1.0]",
    "model.num_layers": 2, "model.dim": 16, "model.heads": 2, "model.ffn": 16, "model.subsampling.channels": 4,
    "model.taps": "[1]", "model.truncated": "{}",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    out: Path
    device: str  # cuda or cpu
    tiny: bool
    python: Path  # a folder with the commands `python` and `asrprune`


@dataclass
class Part:
    """How a part ended."""

    status: str  # passed, failed, skipped
    why: str = ""
    seconds: float = 0.0
    found: Json = field(default_factory=dict)


class Failed(Exception):
    """A part did not end well; what it found so far is kept."""

    def __init__(self, why: str, found: Json | None = None) -> None:
        super().__init__(why)
        self.found = found or {}


def main() -> int:
    """Read the options, run the parts, write the files; 1 if a part failed."""
    parser = argparse.ArgumentParser(prog="tools/gpu_check.sh", description="Check and measure on a GPU.")
    parser.add_argument("--out", type=Path, default=Path("exp_gpu_check"), help="folder for gpu.json, gpu.md and logs")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the script")
    parser.add_argument("--tiny", action="store_true", help="tiny models and few runs: to try the script")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    given = parser.parse_args()
    wanted = given.parts.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"--parts {','.join(unknown)}: no such part; there are {', '.join(PARTS)}")
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    options = Options(out, given.device, given.tiny, commands(out / "bin"))
    patience = 1.0 if options.device == "cuda" else SLOWER
    ends = float(os.environ.get("GPU_CHECK_STARTED", time.time())) + patience * WHOLE_S
    machine: Json = {"device": options.device}
    parts = {"machine": run_part(lambda limit: machine.update(speed("environment", options, limit)), "machine", patience, ends)}
    for name in wanted:
        parts[name] = run_part(partial(PARTS[name], options), name, patience, ends)
        write(options, machine, parts)
    print(summary(parts))
    print(f"{out / 'gpu.md'} and gpu.json")
    return int(any(part.status == "failed" for part in parts.values()))


def run_part(work: Callable[[float], Json | None], name: str, patience: float, ends: float) -> Part:
    """Do it within its limit, times ``patience``, and what is left until ``ends``."""
    started = time.monotonic()
    limit_s = min(patience * LIMITS_S[name], ends - time.time())
    print(f"{name} (at most {max(limit_s, 0):.0f} s) ...", flush=True)
    try:
        if limit_s < 5:
            raise Failed(f"no time left of {patience * WHOLE_S:.0f} s")
        part = Part("passed", found=work(limit_s) or {})
    except Failed as error:
        part = Part("failed", str(error), found=error.found)
    except Skipped as error:
        part = Part("skipped", str(error))
    except Exception as error:  # our own mistake must not cost the other parts' results
        part = Part("failed", f"{type(error).__name__}: {error}")
    part.seconds = time.monotonic() - started
    print(f"{name}: {part.status}, {part.seconds:.0f} s {part.why}", flush=True)
    return part


class Skipped(Exception):
    """A part cannot be run here, and that is no fault."""


# -- the parts ---------------------------------------------------------------------------------------------------------


def tests(options: Options, limit_s: float) -> Json:
    """The tests that are marked gpu."""
    report = options.out / "tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "test/gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    ended = run("tests", command, options, limit_s, {"GPU_TESTS_ON": options.device})
    if not report.exists():
        raise Failed(ended or "pytest wrote no report; see tests.log")
    cases = xml.etree.ElementTree.parse(report).getroot().findall(".//testcase")
    bad = [case.get("name", "") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case.get("name", "") for case in cases if case.find("skipped") is not None]
    found = {"passed": len(cases) - len(bad) - len(skipped), "failed": bad, "skipped": skipped}
    if bad or ended:
        raise Failed(f"{len(bad)} tests failed; see tests.log" if bad else ended, found)
    if not found["passed"]:
        raise Failed("no test ran; tests.log says why", found)
    return found


def depth(options: Options, limit_s: float) -> Json:
    """Real-time factor by depth."""
    return speed("depth", options, limit_s)


def training(options: Options, limit_s: float) -> Json:
    """Frames a second, memory."""
    return speed("training", options, limit_s)


def an4(options: Options, limit_s: float) -> Json:
    """The recipe: features, training, search, decoding, scores. What was reached is told even if time runs out."""
    if not AN4.is_dir():
        raise Skipped(f"there is no {AN4}")
    folder = options.out / "an4"
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier run has done is not measured
    numbers = AN4_TINY if options.tiny else AN4_NUMBERS
    command = [
        "bash", str(ROOT / "egs/an4/run.sh"), "--download_dir", str(AN4), "--datadir", f"{folder}/data",
        "--expdir", f"{folder}/exp", "--ngpu", "1" if options.device == "cuda" else "0", "--nj", str(min(cores(), 8)),
        "--stop_stage", "9", "--config_opts", " ".join(f"--set {key}={value}" for key, value in numbers.items()),
    ]  # fmt: skip
    ended = run("an4", command, options, limit_s)
    exp = folder / "exp/train"
    found = {"numbers": {key: str(value) for key, value in numbers.items()}, **stages(options.out / "an4.log"), **reached(exp)}
    if ended:
        raise Failed(ended, found)
    return found


def stages(log: Path) -> Json:
    """Seconds of each stage of the recipe."""
    said = re.findall(r"^stage \d+ \((\w+)\): took (\d+) s", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return {"stage_s": {name: int(seconds) for name, seconds in said}}


def reached(exp: Path) -> Json:
    """Dev WER of the last epoch, frames a second of training, test WER by plan and depth, as far as they are there."""
    found: Json = {"test_wer": {}}
    if (exp / "train.jsonl").exists():
        records = [
            json.loads(line) for line in (exp / "train.jsonl").read_text(encoding="utf-8").splitlines() if line[-1:] == "}"
        ]
        epochs = [record for record in records if record["kind"] == "epoch"]
        speeds = sorted(record["frames_per_s"] for record in records if record["kind"] == "step")
        found |= {"epochs": len(epochs), "dev_wer": epochs[-1]["dev_wer"] if epochs else {}}
        found |= {"frames_per_s": speeds[len(speeds) // 2]} if speeds else {}
    for path in sorted(exp.glob("decode/test/*/score.json")):
        score = json.loads(path.read_text(encoding="utf-8"))
        found["test_wer"][path.parent.name] = {"wer": score["wer"], "ci95": score["wer_ci95"]}
    return found


PARTS: dict[str, Callable[[Options, float], Json]] = {"tests": tests, "depth": depth, "training": training, "an4": an4}


# -- processes ---------------------------------------------------------------------------------------------------------


def speed(what: str, options: Options, limit_s: float) -> Json:
    """The JSON of speed.py."""
    command = [sys.executable, str(HERE / "speed.py"), what, options.device, *(["tiny"] if options.tiny else [])]
    ended = run(what, command, options, limit_s)
    if ended:
        raise Failed(ended)
    return json.loads((options.out / f"{what}.log").read_text(encoding="utf-8").splitlines()[-1])


def run(name: str, command: Sequence[str], options: Options, limit_s: float, more: dict[str, str] | None = None) -> str:
    """Run it with its output in a log of that name; what was wrong with its end, "" if nothing was."""
    path = f"{options.python}{os.pathsep}{os.environ['PATH']}"
    libraries = os.pathsep.join([str(ROOT), str(ROOT / "tools/bench")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": libraries, "PYTHONUNBUFFERED": "1", **(more or {})}
    log = options.out / f"{name}.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_s:.0f} s; see {log.name}"
        finally:
            end(process)
    return "" if process.returncode == 0 else f"exit status {process.returncode}: {last_line(log)}; see {log.name}"


def end(process: "subprocess.Popen[bytes]") -> None:
    """End it and all that it has started: they are a process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def last_line(log: Path) -> str:
    """Of what was said."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it said nothing")


def commands(folder: Path) -> Path:
    """A folder with `python`, this one, and `asrprune`, which need not be installed."""
    folder.mkdir(exist_ok=True)
    for name, module in (("python", ""), ("asrprune", " -m asrprune.cli")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- what is written ---------------------------------------------------------------------------------------------------


def write(options: Options, machine: Json, parts: dict[str, Part]) -> None:
    """gpu.json and gpu.md."""
    written = {
        "format": 1,
        "tiny": options.tiny,
        "machine": machine,
        "parts": {name: asdict(part) for name, part in parts.items()},
    }
    (options.out / "gpu.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    (options.out / "gpu.md").write_text("\n\n".join(page(options, machine, parts)) + "\n", encoding="utf-8")


def page(options: Options, machine: Json, parts: dict[str, Part]) -> list[str]:
    """The paragraphs of gpu.md."""
    said = ["# On a GPU", "Written by `tools/gpu_check.sh`; do not edit."]
    if options.tiny or options.device == "cpu":
        said.append(f"**On {options.device}{', with tiny models' if options.tiny else ''}: a test of the script, no result.**")
    said += [table(("machine", ""), list(machine.items())), summary(parts)]
    for name, show in (("tests", show_tests), ("depth", show_depth), ("training", show_training), ("an4", show_an4)):
        if name in parts and parts[name].found:
            said += show(parts[name].found)
    return said


def summary(parts: dict[str, Part]) -> str:
    """A line for each part."""
    rows = [(name, part.status, f"{part.seconds:.0f}", part.why) for name, part in parts.items()]
    return table(("part", "status", "seconds", "why"), rows)


def show_tests(found: Json) -> list[str]:
    """Counts, and names of those that did not pass."""
    names = [f"- {kind}: `{name}`" for kind in ("failed", "skipped") for name in found[kind]]
    return ["## Tests", f"{found['passed']} passed.", *(["\n".join(names)] if names else [])]


def show_depth(found: Json) -> list[str]:
    """Real-time factors by depth, a column for each batch and precision."""
    rows, sizes = found["rows"], found["sizes"]
    kinds = list(dict.fromkeys((row["utterances"], row["precision"]) for row in rows))
    lines = []
    for count in sizes["depths"]:
        own = {(row["utterances"], row["precision"]): row for row in rows if row["depth"] == count}
        cells = [f"{own[kind]['rtf']:.3g} ({own[kind]['speed_up']:.2f})" for kind in kinds]
        lines.append((count, own[kinds[0]]["params_m"], *cells))
    return [
        "## Speed by depth",
        f"Transformer of {sizes['layers']} layers, width 256, feed-forward {sizes['ffn']}: from {sizes['frames'] / 100:g} s of"
        f" features to labels. Real-time factor (total seconds / total seconds of audio), median of {sizes['repeats']} passes"
        f" after {sizes['warm_up']} that are not counted; in brackets: times as fast as all layers. float32: {found['tf32']}.",
        table(("depth", "params (M)", *(f"batch {utterances}, {precision}" for utterances, precision in kinds)), lines),
    ]


def show_training(found: Json) -> list[str]:
    """Updates by model and precision."""
    sizes = found["sizes"]
    lines = [
        (
            row["model"],
            row["precision"],
            row["tf32"],
            f"{row['update_s']:.4g}",
            f"{row['frames_per_s']:.4g}",
            f"{row['peak_gb']:.2f}",
        )
        for row in found["rows"]
    ]
    return [
        "## Training",
        f"Updates of {sizes['layers']} layers on {sizes['utterances']} utterances of up to {sizes['frames']} frames; prunable:"
        f" taps {sizes['taps']}, stochastic depth 0.3. Medians of {sizes['repeats']}. Peak of memory: {found['peak']}.",
        table(("model", "precision", "float32 products", "seconds of an update", "frames a second", "peak (GB)"), lines),
    ]


def show_an4(found: Json) -> list[str]:
    """Word error rates and seconds."""
    rows = [
        (name, f"{score['wer']:.2f}", f"{score['ci95'][0]:.2f} to {score['ci95'][1]:.2f}")
        for name, score in found["test_wer"].items()
    ]
    numbers = ", ".join(f"`{key}={value}`" for key, value in found["numbers"].items())
    dev = ", ".join(f"layer {tap}: {wer:.2f} %" for tap, wer in found.get("dev_wer", {}).items())
    return [
        "## AN4",
        f"egs/an4 with {numbers}: {found.get('epochs', 0)} epochs; dev WER at the end: {dev or 'none'}."
        f" Training: {found.get('frames_per_s', 0):.4g} frames a second (median).",
        *([table(("plan and depth", "test WER %", "95 % interval"), rows)] if rows else []),
        table(("stage", "seconds"), list(found["stage_s"].items())),
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, its columns as wide as what is in them: it is printed, too.

    >>> print(table(("a", "b"), [(1, "two")]))
    | a | b   |
    | - | --- |
    | 1 | two |
    """
    lines = [[str(cell).replace("|", "/") for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    widths = [max(width, 1) for width in widths]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
