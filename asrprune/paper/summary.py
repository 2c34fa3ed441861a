"""Compare the records of a grid: pruned sub-models against models that were trained for one depth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from asrprune.decode.bootstrap import compare, interval95, resampled_rates
from asrprune.errors import UserError
from asrprune.paper.grid import Grid
from asrprune.paper.record import Record, numbers
from asrprune.report.results import strategy_rank
from asrprune.report.tables import FULL, search_sets

MARGIN = 0.5  # points of WER by which a pruned model must be worse to count as worse
Summary = dict[str, Any]
Row = dict[str, Any]
ALL = "all"  # in the place of a seed: all seeds together, each utterance with its errors under all of them
ALONE = "alone"  # in the place of a strategy, as FULL: trained for this depth
PREFIX = {"baseline": "", "plain": "plain_"}  # what a row is compared with: role in the grid -> how its keys begin

Key = tuple[str, str, int]  # method, strategy, depth


def roles(grid: Grid) -> list[str]:
    """The kinds of individually trained models that pruned ones are compared with, the one that decides first."""
    return [role for role in PREFIX if role == "baseline" or grid.plain != grid.baseline]


def summarise(grid: Grid, records: dict[str, Record]) -> Summary:
    """Everything that the tables and figures show, as plain JSON values.

    Returns:
        ``rows``: method, strategy, depth, seed (or "all": errors of all seeds pooled; utterances are resampled, not seeds),
        set, wer, wer_ci95 and, against the individually trained model of the same depth and seeds, baseline_wer, diff,
        diff_ci95, p_worse (the share of resamples in which the row is worse by more than 0.5 points), for the grid's baseline;
        plain_wer, plain_diff ... for its plain method; percentages. ``cost``: what training cost. ``removals``: dev WER
        without each one layer. ``similarity``: SVCCA matrices of the plain and the prunable model.

    Raises:
        UserError: there is no record, or records are of different data.
    """
    if not records:
        raise UserError("no cell of the grid is recorded yet; `asrprune grid` runs them")
    _check_data(records)
    return {
        "format": 1,
        "margin": MARGIN,
        "grid": grid.model_dump(mode="json"),
        "data": next(iter(records.values()))["data"],
        "search_sets": sorted(set().union(*map(search_sets, records.values()))),
        "rows": [row for name in _sets(records) for row in _rows(grid, records, name)],
        "speed": _speed(grid, records),
        "cost": [_cost(record) for record in records.values()],
        "removals": {method: _removals(record) for method, record in _pair(grid, records).items()},
        "similarity": {method: record["similarity"] for method, record in _pair(grid, records).items()},
        "runs": {
            name: {
                "asrprune": record["model"]["asrprune"],
                "model_sha256": record["model"]["model_sha256"],
                **record["environment"],
            }
            for name, record in records.items()
        },
    }


def _sets(records: dict[str, Record]) -> list[str]:
    return sorted({name for record in records.values() for name in record["words"]})


def _check_data(records: dict[str, Record]) -> None:
    first = next(iter(records))
    for name, record in records.items():
        for what, key in (("trained", "trained_on"), ("decoded", "data")):
            if record[key] != records[first][key]:
                raise UserError(
                    f"{name} and {first} were {what} on different data; remove the record of one, and its experiment, and run"
                    " the grid again"
                )


def _rows(grid: Grid, records: dict[str, Record], name: str) -> list[Row]:
    """The rows of one set: every seed, and all seeds together where there are several."""
    seeds = sorted({record["seed"] for record in records.values()})
    groups: list[tuple[Any, list[int]]] = [(seed, [seed]) for seed in seeds]
    if len(seeds) > 1:
        groups.append((ALL, seeds))
    return [row for label, group in groups for row in _rows_of(grid, records, name, label, group)]


def _rows_of(grid: Grid, records: dict[str, Record], name: str, label: Any, seeds: Sequence[int]) -> list[Row]:
    errors, facts, words = _pooled(records, name, seeds)
    if not errors:
        return []
    keys = sorted(errors, key=lambda key: (list(grid.methods).index(key[0]), _rank(key[1]), -key[2]))
    rates = dict(zip(keys, resampled_rates(np.stack([errors[key] for key in keys]), words), strict=True))
    total = float(words.sum())
    wer = {key: 100.0 * float(errors[key].sum()) / total for key in keys}

    rows = []
    for key in keys:
        method, strategy, depth = key
        row = {"set": name, "method": method, "strategy": strategy, "depth": depth, "seed": label, "wer": round(wer[key], 4),
               "wer_ci95": _rounded(interval95(rates[key])), **facts[key]}  # fmt: skip
        for role in PREFIX:
            row |= _difference(role, wer, rates, key, _reference(getattr(grid, role), depth, wer))
        rows.append(row)
    return rows


def _reference(method: str, depth: int, wer: dict[Key, float]) -> Key:
    """The individually trained model of a depth; at the full depth that is the method's own full model."""
    alone = (method, ALONE, depth)
    return alone if alone in wer else (method, FULL, depth)


def _difference(role: str, wer: dict[Key, float], rates: dict[Key, np.ndarray], key: Key, other: Key) -> Row:
    prefix = PREFIX[role]
    if other not in wer:
        return {f"{role}_wer": None, f"{prefix}diff": None, f"{prefix}diff_ci95": None, f"{prefix}p_worse": None}
    result = compare(wer[key] - wer[other], rates[key], rates[other], MARGIN)
    return {
        f"{role}_wer": round(wer[other], 4),
        f"{prefix}diff": round(result.difference, 4),
        f"{prefix}diff_ci95": _rounded(result.ci95),
        f"{prefix}p_worse": round(result.probability_worse, 4),
    }


def _pooled(
    records: dict[str, Record], name: str, seeds: Sequence[int]
) -> tuple[dict[Key, np.ndarray], dict[Key, Row], np.ndarray]:
    """Errors of each utterance, summed over seeds, of every system that all these seeds have; facts; words of each."""
    found: dict[Key, list[tuple[np.ndarray, Row]]] = {}
    words = np.zeros(0, dtype=np.int64)
    for seed in seeds:
        for record in (record for record in records.values() if record["seed"] == seed and name in record["words"]):
            words = numbers(record["words"][name])
            for key, row in _systems(record, name).items():
                found.setdefault(key, []).append((numbers(row["errors"]), row))
    whole = {key: runs for key, runs in found.items() if len(runs) == len(seeds)}
    errors = {key: np.sum([run for run, _ in runs], axis=0) for key, runs in whole.items()}
    facts = {key: _facts([row for _, row in runs]) for key, runs in whole.items()}
    return errors, facts, words * len(seeds)


def _systems(record: Record, name: str) -> dict[Key, Row]:
    """What a record holds of one set; the full model once, whatever the strategy."""
    systems: dict[Key, Row] = {}
    for row in record["rows"]:
        if row["set"] != name:
            continue
        whole = row["depth"] == record["depth"]
        strategy = (ALONE if record["alone"] else FULL) if whole else row["strategy"]
        systems.setdefault((record["method"], strategy, row["depth"]), row)
    return systems


def _facts(rows: list[Row]) -> Row:
    return {"keep": rows[0]["keep"] if len(rows) == 1 else None, "params_m": round(rows[0]["params_m"], 4)}


def _rank(strategy: str) -> tuple[int, str]:
    return (-1, "") if strategy in (FULL, ALONE) else strategy_rank(strategy)


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(bound, 4) for bound in interval]


def _pair(grid: Grid, records: dict[str, Record]) -> dict[str, Record]:
    """The full-depth plain and prunable models of the first seed that has them."""
    pair = {}
    for method in (grid.plain, grid.prunable):
        found = [record for record in records.values() if record["method"] == method and not record["alone"]]
        if found:
            pair[method] = min(found, key=lambda record: record["seed"])
    return pair


def _removals(record: Record) -> Row | None:
    """Dev WER of the full model and without each one layer, from the first step of the greedy search."""
    plan = record["search"].get("greedy")
    if plan is None or plan["metric"] != "wer" or not plan["steps"][0].get("without"):
        return None
    first = plan["steps"][0]
    return {"full": first["score"], "without": first["without"], "dev_set": plan["dev_set"]}


def _speed(grid: Grid, records: dict[str, Record]) -> list[Row]:
    """RTF and parameters by depth of the prunable model; empty if its speed was not measured."""
    found: dict[int, Row] = {}
    for record in records.values():
        if record["method"] == grid.prunable and not record["alone"]:
            for row in record["rows"]:
                if row["rtf"] is not None:
                    found.setdefault(row["depth"], {key: row[key] for key in ("depth", "rtf", "speedup", "params_m")})
    return [found[depth] for depth in sorted(found, reverse=True)]


def _cost(record: Record) -> Row:
    training = record["training"]
    return {
        "method": record["method"],
        "depth": record["depth"],
        "seed": record["seed"],
        "alone": record["alone"],
        "updates": training["steps"],
        "layer_passes": training["layer_passes"],
        "seconds": round(training["seconds"], 1),
    }
