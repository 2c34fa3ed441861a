"""Compare the records of a grid: pruned sub-models against models that were trained for one depth."""

from collections.abc import Sequence

import numpy as np

from asrprune.compare.grid import Grid, Role
from asrprune.compare.hierarchical import Resampled, Runs, of_speakers
from asrprune.compare.noninferiority import LEVEL, MARGIN_POINTS, MARGIN_SHARE, margin, power, seeds_for
from asrprune.compare.record import CellRecord, CellRow, numbers
from asrprune.compare.summary import ALL, ALONE, Comparison, Cost, Margin, Removals, Seed, Speed, Summary, System
from asrprune.config.schema import ScoringConfig
from asrprune.prune.strategies.table import rank
from asrprune.report.result_table import FULL, search_sets
from asrprune.runtime.errors import UserError

Key = tuple[str, str, int]  # method, strategy, depth


def summarise(grid: Grid, records: dict[str, CellRecord], scoring: ScoringConfig | None = None) -> Summary:
    """Compare the records.

    Args:
        grid: the grid of the records.
        records: name of the cell -> its record.
        scoring: the unit that was counted; None: words.

    Raises:
        UserError: there is no record, or records are of different data.
    """
    if not records:
        raise UserError("no cell of the grid is recorded yet; `asrprune compare` runs them")
    _check_data(records)
    names = sorted({name for record in records.values() for name in record.words})
    sets = {name: _results_of_set(grid, records, name) for name in names}
    full_models = _full_models(grid, records)
    return Summary(
        format=2,
        margin=Margin(points=MARGIN_POINTS, share=MARGIN_SHARE),
        grid=grid.model_dump(mode="json"),
        data=next(iter(records.values())).data,
        search_sets=tuple(sorted(set().union(*(search_sets(record.search) for record in records.values())))),
        speakers={name: speakers for name, (_, _, speakers) in sets.items()},
        rows=tuple(row for rows, _, _ in sets.values() for row in rows),
        tests=tuple(test for _, tests, _ in sets.values() for test in tests),
        speed=_speed(grid, records),
        cost=tuple(_cost(record) for record in records.values()),
        update_overhead=update_overhead(grid, records),
        removals={method: _removals(record) for method, record in full_models.items()},
        similarity={method: record.similarity for method, record in full_models.items()},
        influence={method: record.influence for method, record in full_models.items()},
        runs={
            name: {"asrprune": record.model.asrprune, "model_sha256": record.model.model_sha256, **record.environment}
            for name, record in records.items()
        },
        scoring=scoring or ScoringConfig(),
    )


def _check_data(records: dict[str, CellRecord]) -> None:
    first, *others = records
    trained_on = {name: record.trained_on.on_any_machine() for name, record in records.items()}
    for name in others:
        for work, differs in (
            ("trained", trained_on[name] != trained_on[first]),
            ("decoded", records[name].data != records[first].data),
        ):
            if differs:
                raise UserError(
                    f"{name} and {first} were {work} on different data; remove the record and the experiment of one, and run"
                    " the grid again"
                )


def _results_of_set(grid: Grid, records: dict[str, CellRecord], name: str) -> tuple[list[System], list[Comparison], int | None]:
    """Return the rows (of each seed, and of all seeds together), the tests (with all seeds), and the number of speakers."""
    recorded = [record for record in records.values() if name in record.words]
    words, speakers = numbers(recorded[0].words[name]), _speakers(records, name)
    speaker_of = np.arange(len(words)) if speakers is None else speakers
    seeds = sorted({record.seed for record in recorded})
    groups: dict[Seed, list[CellRecord]] = {seed: [record for record in recorded if record.seed == seed] for seed in seeds}
    if len(seeds) > 1:
        groups[ALL] = recorded
    rows = list[System]()
    for seed, group in groups.items():
        rows_of = _rows_by_system(group, name)
        systems = {key: _runs(by_seed, speaker_of) for key, by_seed in rows_of.items()}
        resampled = Resampled(systems, of_speakers(words, speaker_of))
        rows += _rows(grid, name, seed, resampled, rows_of)
    tests = _tests(grid, name, resampled, systems)  # of the last group, which has all seeds
    return rows, tests, None if speakers is None else len(np.unique(speakers))


def _speakers(records: dict[str, CellRecord], name: str) -> np.ndarray | None:
    """Return the speaker of each utterance (U,), from any record that names speakers: all records have the same data.

    None if no record names speakers, or if there is a single one: then each utterance counts as a speaker of its own.

    Raises:
        UserError: two records name different speakers.
    """
    named = {cell: record.speakers[name] for cell, record in records.items() if name in record.speakers}
    if not named:
        return None
    first = next(iter(named))
    if other := [cell for cell, speakers in named.items() if speakers != named[first]]:
        raise UserError(f"{name}: the records of {first} and {other[0]} name different speakers; remove the wrong one")
    speakers = numbers(named[first])
    return speakers if speakers.max() > 0 else None


def _rows(grid: Grid, name: str, seed: Seed, resampled: Resampled[Key], rows_of: dict[Key, dict[int, CellRow]]) -> list[System]:
    """Make a row for each system, by method (order of the grid), strategy (order of prune/strategies/table.py) and depth."""
    order = {FULL: (-1, ""), ALONE: (-1, "")}
    rows = []
    for key in sorted(rows_of, key=lambda key: (list(grid.methods).index(key[0]), order.get(key[1], rank(key[1])), -key[2])):
        method, strategy, depth = key
        rate, (first, *others) = resampled.rate(key), rows_of[key].values()
        low, high = rate.percentiles(0.95)
        row = System(
            set=name, method=method, strategy=strategy, depth=depth, seed=seed, wer=rate.value, wer_ci95=(max(0.0, low), high),
            seeds=tuple(rows_of[key]), keep=None if others else first.keep, params_m=first.params_m,
        )  # fmt: skip
        rows.append(row)
    return rows


def _tests(grid: Grid, name: str, resampled: Resampled[Key], systems: dict[Key, Runs]) -> list[Comparison]:
    """Test the prunable model at each depth against each kind of models trained for that depth."""
    strategies = FULL, grid.strategy
    own = [key for key in systems if key[0] == grid.prunable and key[1] in strategies]
    pairs = [(key, role, _key_alone(getattr(grid, role), key[2], systems)) for key in own for role in grid.roles]
    tests = [_test(name, role, key, other, resampled, systems) for key, role, other in pairs if other in systems]
    return sorted(tests, key=lambda test: -test.depth)


def _key_alone(method: str, depth: int, systems: dict[Key, Runs]) -> Key:
    """Return the key of the model trained for a depth; at the full depth this is the full model of the method."""
    alone = (method, ALONE, depth)
    return alone if alone in systems else (method, FULL, depth)


def _test(name: str, role: Role, own: Key, other: Key, resampled: Resampled[Key], systems: dict[Key, Runs]) -> Comparison:
    difference, alone = resampled.difference(own, other), resampled.rate(other).value
    low, bound = difference.bounds(LEVEL)
    limit, spread = margin(alone), difference.spread
    return Comparison(
        set=name, depth=own[2], role=role, seeds=len(systems[own].seeds), alone_seeds=len(systems[other].seeds),
        wer=resampled.rate(own).value, alone_wer=alone, difference=difference.value, ci90=(low, bound), margin=limit,
        outcome="passes" if bound < limit else "worse" if low > 0 else "undecided", power=power(spread, limit),
        seeds_80=seeds_for(0.8, spread, limit), seeds_90=seeds_for(0.9, spread, limit),
    )  # fmt: skip


def _rows_by_system(records: Sequence[CellRecord], name: str) -> dict[Key, dict[int, CellRow]]:
    """Return the rows of a set: system -> seed -> row. The full model occurs once, not once per strategy."""
    found: dict[Key, dict[int, CellRow]] = {}
    for record in sorted(records, key=lambda record: record.seed):
        for row in record.rows:
            if row.set == name:
                is_full = row.depth == record.depth
                strategy = (ALONE if record.alone else FULL) if is_full else row.strategy
                found.setdefault((record.method, strategy, row.depth), {}).setdefault(record.seed, row)
    return found


def _runs(rows: dict[int, CellRow], speaker_of: np.ndarray) -> Runs:
    """Return the errors of a system by seed and speaker; ``speaker_of`` (U,): the speaker of each utterance."""
    return Runs(tuple(rows), of_speakers(np.stack([numbers(row.errors) for row in rows.values()]), speaker_of))


def _full_models(grid: Grid, records: dict[str, CellRecord]) -> dict[str, CellRecord]:
    """Return the records of the plain and the prunable full model, each of its first seed."""
    full_models = {}
    for method in (grid.plain, grid.prunable):
        found = [record for record in records.values() if record.method == method and not record.alone]
        if found:
            full_models[method] = min(found, key=lambda record: record.seed)
    return full_models


def _removals(record: CellRecord) -> Removals | None:
    """Return the dev WER with all layers and without each one, from the first step of the iterative search, if there is one."""
    plan = record.search.get("iterative")
    first = plan.steps[0] if plan and plan.steps else None
    if plan is None or first is None or plan.metric != "wer" or first.score is None or not first.without:
        return None
    return Removals(full=first.score, without=first.without, dev_set=plan.dev_set)


def _speed(grid: Grid, records: dict[str, CellRecord]) -> tuple[Speed, ...]:
    """Return the RTF and parameters of the prunable model by depth; an empty tuple if its speed was not measured."""
    found: dict[int, Speed] = {}
    for record in records.values():
        for row in record.rows:
            if record.method == grid.prunable and not record.alone and row.rtf is not None:
                speed = Speed(depth=row.depth, rtf=row.rtf, speedup=row.speedup, params_m=row.params_m)
                found.setdefault(row.depth, speed)
    return tuple(found[depth] for depth in sorted(found, reverse=True))


def update_overhead(grid: Grid, records: dict[str, CellRecord]) -> float | None:
    """Fit f, the cost of an update besides its layers, in units of one layer: seconds per update = c (layers run + f).

    The least-squares fit uses all models of the methods in ``alone.methods``. None if these run nearly the same number of
    layers per update, or if the fit gives a c or f below 0.
    """
    trainings = [record.training for record in records.values() if record.method in grid.alone.methods]
    layers = np.array([training.layer_passes / training.steps for training in trainings])
    seconds = np.array([training.seconds / training.steps for training in trainings])
    if len(trainings) < 2 or np.ptp(layers) < 1:
        return None
    slope, intercept = np.polyfit(layers, seconds, 1)
    return round(float(intercept / slope), 2) if slope > 0 and intercept >= 0 else None


def _cost(record: CellRecord) -> Cost:
    return Cost(
        method=record.method, depth=record.depth, seed=record.seed, alone=record.alone, updates=record.training.steps,
        views=record.config.train.views, layer_passes=record.training.layer_passes, seconds=round(record.training.seconds, 1),
        precision=record.training.precision,
    )  # fmt: skip
