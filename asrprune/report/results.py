"""Collect the files of a run into `results.json`, the one source of every table and figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.analysis.matrices import read_matrices
from asrprune.config.load import resolved
from asrprune.config.strategies import strategy_name
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.store import read_experiment_config
from asrprune.prune.strategies.table import rank
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import read_json
from asrprune.runtime.hardware import environment
from asrprune.train.journal import read_journal

Results = dict[str, Any]
Row = dict[str, Any]
_OPTIONAL = (
    ("train.jsonl", "training curves", "stage 4 (`asrprune train`)"),
    ("svcca/*.npz", "similarity of the layers", "stage 6 (`asrprune svcca`)"),
    ("plans/*.json", "layers kept at each depth and cost of the search", "stage 7 (`asrprune search`)"),
    ("bench.json", "real-time factors and speed-ups", "stage 10 (`asrprune bench`)"),
)


def collect(exp: Path) -> Results:
    """Everything that a report says about the experiment directory ``exp``, as plain JSON values.

    Rates (``wer``, ``wer_ci95``, ``cer``) are percentages, ``rtf`` is seconds of computing per second of audio, ``speedup`` is
    the full model's RTF over the row's, ``missing`` holds a sentence for each part that no stage has made yet.

    Raises:
        UserError: nothing is decoded or scored, a file that the report cannot do without is missing, or two files disagree.
    """
    config = resolved(read_experiment_config(exp))
    decodes = sorted(exp.glob("decode/*/*/decode.json"))
    if not decodes:
        raise UserError(f"{exp}/decode: nothing is decoded yet, so there is nothing to report; run stage 8 (`asrprune decode`)")
    model = _read_record(ExperimentPaths(exp).model, "asrprune average")
    usable, old_decodes = _usable(decodes, model["model_sha256"])
    plans, old_plans = _read_plans(exp, model["model_sha256"])
    bench, old_bench = _read_bench(ExperimentPaths(exp).bench, model["model_sha256"])
    _, old_matrices = similarities(exp, model["model_sha256"])
    return {
        "format": 1,
        "exp": _title(exp.resolve()),
        "environment": environment(),
        "data": _data(usable),
        "rows": _rows(usable, bench, model["num_layers"]),
        "model": model,
        "training": _training(ExperimentPaths(exp).log),
        "search": plans,
        "bench": bench and {key: value for key, value in bench.items() if key != "rows"},
        "config": config,
        "missing": _missing(exp) + old_decodes + old_plans + old_bench + old_matrices,
    }


def read_log(path: Path) -> tuple[list[Row], list[Row]]:
    """The step lines and the epoch lines of a ``train.jsonl``, in order."""
    lines = read_journal(path)
    return [line for line in lines if line["kind"] == "step"], [line for line in lines if line["kind"] == "epoch"]


def similarities(exp: Path, model_sha256: str) -> tuple[list[Path], list[str]]:
    """The ``svcca/<set>.npz`` files of the present model, and a sentence about each file of another model."""
    current, old = [], []
    for path in sorted(exp.glob("svcca/*.npz")):
        if str(read_matrices(path)["model_sha256"]) == model_sha256:
            current.append(path)
        else:
            old.append(_of_another_model(f"svcca/{path.name}", "stage 6 (`asrprune svcca`)"))
    return current, old


def _title(exp: Path) -> str:
    """``an4/exp/train`` in a recipe's directory, elsewhere the experiment's own name."""
    return "/".join(exp.parts[-3:]) if exp.parent.name == "exp" else exp.name


def _read_record(path: Path, made_by: str) -> dict[str, Any]:
    record: dict[str, Any] = read_json(path, made_by)
    if record.get("format") != 1:
        raise UserError(
            f"{path}: has format {record.get('format')}, but this asrprune reads format 1; make it again: {made_by}"
        )
    return record


def _usable(decodes: Sequence[Path], model_sha256: str) -> tuple[list[tuple[Row, Row]], list[str]]:
    """Pairs of decode and score that belong to the present model, and a sentence about each decode that does not."""
    usable, set_aside = [], []
    for path in decodes:
        decode, name = _read_record(path, "asrprune decode"), "/".join(path.parts[-4:-1])
        if decode["model_sha256"] != model_sha256:
            set_aside.append(_of_another_model(name, "stage 8 (`asrprune decode`)"))
        elif not path.with_name("score.json").exists():
            set_aside.append(f"Left out: {name}; it is not scored yet, stage 9 (`asrprune score`) does it.")
        else:
            usable.append((decode, _read_score(path.with_name("score.json"), decode["utterances"])))
    if not usable:
        raise UserError(f"{decodes[0].parents[2]}: nothing in it can be reported; the first reason: {set_aside[0]}")
    return usable, set_aside


def _of_another_model(name: str, stage: str) -> str:
    return f"Left out: {name}; it is another model's, run {stage} again."


def _read_score(path: Path, utterances: int) -> Row:
    score: Row = read_json(path, "asrprune score")
    low, high = score["wer_ci95"]
    again = "run stage 9 (`asrprune score`) again"
    if not low <= score["wer"] <= high:
        raise UserError(f"{path}: WER {score['wer']} lies outside its 95 % interval [{low}, {high}]; {again}")
    if score["utterances"] != utterances:
        raise UserError(f"{path}: {score['utterances']} utterances are scored, but {utterances} are decoded; {again}")
    return score


def _data(usable: Sequence[tuple[Row, Row]]) -> dict[str, Row]:
    """Describe the decoded sets; every decode of a set must have seen the same utterances and transcripts."""
    first: dict[str, tuple[str, Row]] = {}
    for decode, _ in usable:
        seen = {key: decode[key] for key in ("utterances", "hours", "text_sha256")}
        name = f"decode/{decode['set']}/{decode['strategy']}_d{decode['depth']}"
        other, expected = first.setdefault(decode["set"], (name, seen))
        if seen != expected:
            raise UserError(
                f"{name}: its utterances or transcripts are not those of {other}; run stages 8 and 9 (`asrprune decode`,"
                " `asrprune score`) again, and remove those of the set's directories that they do not renew"
            )
    return {name: seen for name, (_, seen) in first.items()}


def _rows(usable: Sequence[tuple[Row, Row]], bench: Row | None, num_layers: int) -> list[Row]:
    measured = bench["rows"] if bench else []
    full_rtf = _rtf(measured, num_layers, list(range(1, num_layers + 1)))
    rows = [_row(decode, score, _rtf(measured, decode["depth"], decode["keep"]), full_rtf) for decode, score in usable]
    return sorted(rows, key=lambda row: (row["set"], rank(row["strategy"]), -row["depth"]))


def _row(decode: Row, score: Row, rtf: float | None, full_rtf: float | None) -> Row:
    row = {key: decode[key] for key in ("set", "strategy", "depth", "keep", "params_m")}
    row["strategy"] = strategy_name(row["strategy"])
    row |= {key: score[key] for key in ("wer", "wer_ci95", "cer", "sub", "del", "ins", "ref_words")}
    row |= {"rtf": rtf, "decoder": decode["decoder"], "speedup": full_rtf / rtf if rtf and full_rtf else None}
    return row | {"model_sha256": decode["model_sha256"], "utterances": score["utterances"]}


def _rtf(measured: Sequence[Row], depth: int, keep: list[int]) -> float | None:
    """The RTF of exactly these layers, else of any other sub-model of this depth: the cost hardly depends on which layers."""
    of_depth = [row for row in measured if row["depth"] == depth]
    exact = [row for row in of_depth if row["keep"] == keep]
    return next((row["rtf"] for row in exact + of_depth), None)


def _training(path: Path) -> Row | None:
    """Epochs, steps, hours and the best dev WER of the full model; None before the first epoch has ended."""
    epochs = read_log(path)[1] if path.exists() else []
    if not epochs:
        return None
    best = min(epochs, key=_full_dev_wer)
    return {
        "epochs": len(epochs),
        "steps": epochs[-1]["step"],
        "best_dev_wer": _full_dev_wer(best),
        "best_epoch": best["epoch"],
        "seconds": epochs[-1]["seconds"],  # since the start of the run
    }


def _full_dev_wer(epoch: Row) -> float:
    dev_wer: dict[str, float] = epoch["dev_wer"]
    return dev_wer[max(dev_wer, key=int)]


def _read_plans(exp: Path, model_sha256: str) -> tuple[dict[str, Row], list[str]]:
    """The plans of the present model by strategy, and a sentence about each plan of another model."""
    kept = ("dev_set", "metric", "beam", "rerank", "layer_forwards", "naive_layer_forwards", "seconds", "steps")
    plans, set_aside = {}, []
    for path in sorted(exp.glob("plans/*.json")):
        plan = _read_record(path, "asrprune search")
        if plan["model_sha256"] == model_sha256:
            plans[strategy_name(plan["strategy"])] = {key: plan.get(key) for key in kept}
        else:
            set_aside.append(_of_another_model(f"plans/{path.name}", "stage 7 (`asrprune search`)"))
    return {strategy: plans[strategy] for strategy in sorted(plans, key=rank)}, set_aside


def _read_bench(path: Path, model_sha256: str) -> tuple[Row | None, list[str]]:
    """``bench.json`` if it is the present model's, and a sentence if it is another's."""
    bench = _read_record(path, "asrprune bench") if path.exists() else None
    if bench and bench["model_sha256"] != model_sha256:
        return None, [_of_another_model("bench.json", "stage 10 (`asrprune bench`)")]
    return bench, []


def _missing(exp: Path) -> list[str]:
    absent = [part for part in _OPTIONAL if not any(exp.glob(part[0]))]
    return [f"Left out: {what}; there is no `{pattern}` yet, {stage} makes it." for pattern, what, stage in absent]
