"""Compare the records of a grid: pruned sub-models against models that were trained for one depth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from asrprune.compare.grid import Grid
from asrprune.compare.hierarchical import Estimate, Resampled, Runs, of_speakers
from asrprune.compare.noninferiority import LEVEL, MARGIN_POINTS, MARGIN_SHARE, margin, power, seeds_for
from asrprune.compare.record import Record, numbers
from asrprune.config.strategies import PREFERRED
from asrprune.prune.strategies.table import rank
from asrprune.report.tables import FULL, search_sets
from asrprune.runtime.errors import UserError

Summary = dict[str, Any]
Row = dict[str, Any]
ALL = "all"  # in the place of a seed: every system with all seeds that it has
ALONE = "alone"  # in the place of a strategy, as FULL: trained for this depth

Key = tuple[str, str, int]  # method, strategy, depth


def roles(grid: Grid) -> list[str]:
    """The kinds of individually trained models that pruned ones are compared with: names of the grid's fields."""
    return ["plain", "baseline"] if grid.plain != grid.baseline else ["baseline"]


def chosen_strategy(grid: Grid) -> str:
    """The strategy that prunes the prunable model where it is compared."""
    return grid.pruned_by.get(grid.prunable, PREFERRED)


def shown(summary: Summary, name: str) -> list[Row]:
    """The rows of a set that are shown: those of all seeds, the last ones."""
    rows = [row for row in summary["rows"] if row["set"] == name]
    return [row for row in rows if row["seed"] == rows[-1]["seed"]]


def summarise(grid: Grid, records: dict[str, Record]) -> Summary:
    """Everything that the tables and figures show, as plain JSON values.

    Returns:
        ``rows``: method, strategy, depth, seed (or "all": all that there are), seeds, set, wer, wer_ci95; percentages.
        ``tests``: for each set, depth and kind of individually trained models (``role``), with all seeds, whether the prunable
        model is not worse: wer, alone_wer, difference, ci90 (its upper end is the one-sided 95 % bound), margin, outcome,
        power, seeds_80 and seeds_90 (how many seeds give that power). ``speakers``: their number by set, null where no record
        says who spoke. ``cost``: what training cost; ``update_overhead``: f of the function of this name. ``removals``: dev WER
        without each one layer. ``similarity``, ``influence``: SVCCA matrices and influence of the layers of the plain and the
        prunable model; null where the record is too old to have it.

    Raises:
        UserError: there is no record, or records are of different data.
    """
    if not records:
        raise UserError("no cell of the grid is recorded yet; `asrprune grid` runs them")
    _check_data(records)
    sets = {name: _of_set(grid, records, name) for name in _sets(records)}
    return {
        "format": 2,
        "margin": {"points": MARGIN_POINTS, "share": MARGIN_SHARE},
        "grid": grid.model_dump(mode="json"),
        "data": next(iter(records.values()))["data"],
        "search_sets": sorted(set().union(*map(search_sets, records.values()))),
        "speakers": {name: speakers for name, (_, _, speakers) in sets.items()},
        "rows": [row for rows, _, _ in sets.values() for row in rows],
        "tests": [test for _, tests, _ in sets.values() for test in tests],
        "speed": _speed(grid, records),
        "cost": [_cost(record) for record in records.values()],
        "update_overhead": update_overhead(grid, records),
        "removals": {method: _removals(record) for method, record in _pair(grid, records).items()},
        "similarity": {method: record["similarity"] for method, record in _pair(grid, records).items()},
        "influence": {method: record.get("influence") for method, record in _pair(grid, records).items()},
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


def _of_set(grid: Grid, records: dict[str, Record], name: str) -> tuple[list[Row], list[Row], int | None]:
    """Rows of a set, of every seed and of all seeds together if there are several; tests with all seeds; number of speakers."""
    of = [record for record in records.values() if name in record["words"]]
    words, speakers = numbers(of[0]["words"][name]), _speakers(records, name)
    units = np.arange(len(words)) if speakers is None else speakers
    seeds = sorted({record["seed"] for record in of})
    groups: dict[Any, list[Record]] = {seed: [record for record in of if record["seed"] == seed] for seed in seeds}
    if len(seeds) > 1:
        groups[ALL] = of
    rows, tests = [], list[Row]()
    for label, group in groups.items():
        systems, facts = _runs(group, name, units)
        resampled = Resampled(systems, of_speakers(words, units))
        rows += _rows(grid, name, label, resampled, facts)
        tests = _tests(grid, name, resampled, systems)
    return rows, tests, None if speakers is None else len(np.unique(speakers))


def _speakers(records: dict[str, Record], name: str) -> np.ndarray | None:
    """Who spoke each utterance (U,), from any record that says so: all are of the same data.

    None if no record says so, or if there is a single speaker: then each utterance counts as a speaker of its own.

    Raises:
        UserError: two records disagree.
    """
    saying = {cell: record["speakers"][name] for cell, record in records.items() if name in record.get("speakers", {})}
    if not saying:
        return None
    first = next(iter(saying))
    if other := [cell for cell, said in saying.items() if said != saying[first]]:
        raise UserError(f"{name}: the records of {first} and {other[0]} name different speakers; remove the wrong one")
    speakers = numbers(saying[first])
    return speakers if speakers.max() > 0 else None


def _rows(grid: Grid, name: str, label: Any, resampled: Resampled[Key], facts: dict[Key, Row]) -> list[Row]:
    """A row for each system."""
    rows = []
    for key in sorted(facts, key=lambda key: (list(grid.methods).index(key[0]), _rank(key[1]), -key[2])):
        method, strategy, depth = key
        rate = resampled.rate(key)
        low, high = rate.percentiles(0.95)
        row = {"set": name, "method": method, "strategy": strategy, "depth": depth, "seed": label, "wer": round(rate.value, 4)}
        rows.append({**row, "wer_ci95": [round(max(0.0, low), 4), round(high, 4)], **facts[key]})
    return rows


def _tests(grid: Grid, name: str, resampled: Resampled[Key], systems: dict[Key, Runs]) -> list[Row]:
    """Is the prunable model worse than the individually trained ones? A test for each depth and kind of these."""
    strategies = FULL, chosen_strategy(grid)
    own = [key for key in systems if key[0] == grid.prunable and key[1] in strategies]
    pairs = [(key, role, _alone(getattr(grid, role), key[2], systems)) for key in own for role in roles(grid)]
    tests = [
        {"set": name, "depth": key[2], "role": role, "seeds": len(systems[key].seeds), "alone_seeds": len(systems[other].seeds),
         "wer": round(resampled.rate(key).value, 4), "alone_wer": round(resampled.rate(other).value, 4),
         **_test(resampled.difference(key, other), resampled.rate(other).value)}
        for key, role, other in pairs
        if other in systems
    ]  # fmt: skip
    return sorted(tests, key=lambda test: -test["depth"])


def _alone(method: str, depth: int, systems: dict[Key, Runs]) -> Key:
    """The individually trained model of a depth; at the full depth that is the method's own full model."""
    alone = (method, ALONE, depth)
    return alone if alone in systems else (method, FULL, depth)


def _test(difference: Estimate, alone: float) -> Row:
    """Outcomes against a model of WER ``alone``: passes (not worse), worse (the interval lies above 0), undecided (neither)."""
    low, bound = difference.bounds(LEVEL)
    limit = margin(alone)
    return {
        "difference": round(difference.value, 4),
        "ci90": [round(low, 4), round(bound, 4)],
        "margin": round(limit, 4),
        "outcome": "passes" if bound < limit else "worse" if low > 0 else "undecided",
        "power": round(power(difference.spread, limit), 4),
        "seeds_80": seeds_for(0.8, difference.spread, limit),
        "seeds_90": seeds_for(0.9, difference.spread, limit),
    }


def _runs(records: Sequence[Record], name: str, units: np.ndarray) -> tuple[dict[Key, Runs], dict[Key, Row]]:
    """Every system with all seeds that these records have of it; facts."""
    found: dict[Key, dict[int, Row]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        for key, row in _systems(record, name).items():
            found.setdefault(key, {})[record["seed"]] = row
    systems = {
        key: Runs(tuple(rows), of_speakers(np.stack([numbers(row["errors"]) for row in rows.values()]), units))
        for key, rows in found.items()
    }
    return systems, {key: {"seeds": list(rows), **_facts(list(rows.values()))} for key, rows in found.items()}


def _systems(record: Record, name: str) -> dict[Key, Row]:
    """Read the systems of one set from a record; the full model once, whatever the strategy."""
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
    return (-1, "") if strategy in (FULL, ALONE) else rank(strategy)


def _pair(grid: Grid, records: dict[str, Record]) -> dict[str, Record]:
    """The full-depth plain and prunable models of the first seed that has them."""
    pair = {}
    for method in (grid.plain, grid.prunable):
        found = [record for record in records.values() if record["method"] == method and not record["alone"]]
        if found:
            pair[method] = min(found, key=lambda record: record["seed"])
    return pair


def _removals(record: Record) -> Row | None:
    """Dev WER of the full model and without each one layer, from the first step of the iterative search."""
    plan = record["search"].get("iterative")
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


def update_overhead(grid: Grid, records: dict[str, Record]) -> float | None:
    """Fit the cost of an update apart from its layers: f of seconds per update = c (layers run + f), by least squares.

    Over the models that were trained for their depth; None if they are of fewer than two depths, or the fit has c or f below 0.
    """
    of = [record["training"] for record in records.values() if record["method"] in grid.alone.methods]
    layers = np.array([training["layer_passes"] / training["steps"] for training in of])
    seconds = np.array([training["seconds"] / training["steps"] for training in of])
    if len(of) < 2 or np.ptp(layers) < 1:
        return None
    slope, intercept = np.polyfit(layers, seconds, 1)
    return round(float(intercept / slope), 2) if slope > 0 and intercept >= 0 else None


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
