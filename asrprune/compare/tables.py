"""The tables of a comparison."""

from collections import Counter
from collections.abc import Sequence

from asrprune.compare.grid import Grid
from asrprune.compare.noninferiority import MOST_SEEDS
from asrprune.compare.summary import ALONE, Comparison, Cost, Summary, System, of_system, shown
from asrprune.compare.verdict import difference, rests_on
from asrprune.prune.strategies.table import rank
from asrprune.report.result_table import FULL, two_digits, wer_cell
from asrprune.report.table import NONE, Table

MARKS = {"passes": "✓", "worse": "✗", "undecided": "?"}
_PUBLISHED = (
    " Rows with a source were published by others, and not measured here; an empty cell: the figure is not available to us."
)


def tables(summary: Summary, grid: Grid) -> list[Table]:
    """Return all tables of all sets."""
    made = []
    for name in sorted({row.set for row in summary.rows}):
        made += [wer_table(summary, grid, name), pruned_table(summary, grid, name), power_table(summary, grid, name)]
    if summary.speed:
        made.append(speed_table(summary, grid))
    return [*made, cost_table(summary, grid)]


def wer_table(summary: Summary, grid: Grid, name: str) -> Table:
    """Tabulate the WER by depth: models trained for each depth, pruned models by method and strategy, published figures."""
    rows = shown(summary, name)
    published = [row for row in grid.published if row.set == name]
    depths = sorted({row.depth for row in rows} | {d for row in published for d in row.wer}, reverse=True)

    def wers(method: str, strategy: str) -> list[str]:
        by_depth = {row.depth: row for row in of_system(rows, method, strategy)}
        return [_wer(by_depth.get(depth)) for depth in depths]

    lines = [(method, "trained for each depth", *wers(method, ALONE)) for method in grid.alone.methods]
    for method in grid.methods:
        strategies = {row.strategy for row in rows if row.method == method} - {ALONE, FULL}
        lines += [(method, strategy, *wers(method, strategy)) for strategy in sorted(strategies, key=rank)]
    lines += [(row.model, row.source, *(_number(row.wer.get(depth)) for depth in depths)) for row in published]
    caption = (
        f"{summary.in_units('WER')} (%) on {name} with its 95 % interval, by depth. Below the individually trained models: one"
        f" model of all layers, pruned to each depth. {rests_on(summary, name)}" + (_PUBLISHED if published else "")
    )
    header = ("method", "layers", *(f"{depth} layer{'s' * (depth > 1)}" for depth in depths))
    return Table(f"wer_{name}", caption, header, tuple(lines), words=(0, 1))


def pruned_table(summary: Summary, grid: Grid, name: str) -> Table:
    """Tabulate the tests of the prunable model against models trained for each depth."""
    tests = {(test.depth, test.role): test for test in summary.tests if test.set == name}
    strategy = grid.strategy
    lines = []
    for row in sorted(of_system(shown(summary, name), grid.prunable, strategy), key=lambda row: -row.depth):
        cells = [str(row.depth), f"{row.wer:.1f}"]
        for role in grid.roles:
            test = tests.get((row.depth, role))
            cells += [f"{test.alone_wer:.1f}", f"{difference(test)} {MARKS[test.outcome]}"] if test else [NONE, NONE]
        lines.append(tuple(cells))
    header = ["depth", "pruned"]
    for role in grid.roles:
        header += [f"alone, {getattr(grid, role)}", "difference"]
    points, share, rate = summary.margin.points, summary.margin.share, summary.in_units("WER")
    caption = (
        f"{grid.prunable}, {strategy} plan, on {name}: {rate} (%) against models that were trained for each depth. Difference:"
        " pruned minus the model to the left, in points, with its 90 % interval; the upper end is the one-sided 95 % bound."
        f" {MARKS['passes']}: not worse, because the bound lies below {points:g} points and below {100 * share:g} % of the"
        f" {rate} to the left; {MARKS['worse']}: worse, because the interval lies above 0; {MARKS['undecided']}: undecided."
        f" {rests_on(summary, name)}"
    )
    return Table(f"pruned_{name}", caption, tuple(header), tuple(lines), words=())


def power_table(summary: Summary, grid: Grid, name: str) -> Table:
    """Tabulate the power of each test, and the numbers of seeds that give a power of 80 and 90 %."""
    tests = sorted((test for test in summary.tests if test.set == name), key=lambda test: -test.depth)
    lines = [
        (
            *(str(test.depth), getattr(grid, test.role), f"{test.ci90[1]:+.2f}", f"{test.margin:.2f}"),
            *(f"{100 * test.power:.0f} %", _seeds(test, test.seeds_80), _seeds(test, test.seeds_90)),
        )
        for test in tests
    ]
    caption = (
        f"The test on {name} at each depth. Bound: one-sided 95 % bound of the difference, in points; it must lie below the"
        " margin. Power: the probability that it does if the true difference is 0, by a normal approximation. Last columns:"
        " the number of seeds of each model for a power of 80 and 90 %, if the spread between these seeds is the true one."
    )
    if any(test.one_seed for test in tests):
        caption += " With one seed this spread is not known; the power, of the choice of utterances alone, is too high."
    header = ("depth", "against", "bound", "margin", "power", "seeds for 80 %", "for 90 %")
    return Table(f"power_{name}", caption, header, tuple(lines), words=())


def speed_table(summary: Summary, grid: Grid) -> Table:
    """Tabulate the real-time factor of the prunable model by depth."""
    lines = [
        (str(row.depth), f"{row.params_m:.2f}", two_digits(row.rtf), f"{row.speedup:.1f}" if row.speedup else NONE)
        for row in summary.speed
    ]
    caption = f"{grid.prunable} by depth: parameters that run, real-time factor (RTF) and its gain over all layers."
    return Table("speed", caption, ("depth", "params (M)", "RTF", "speed-up"), tuple(lines), words=())


def cost_table(summary: Summary, grid: Grid) -> Table:
    """Tabulate the training cost of one prunable model, and of one model for each depth, as the mean over seeds."""
    once = [grid.prunable, *grid.alone.methods]
    lines = [_cost_line(summary, grid, f"{method}, once", method, alone=False) for method in once]
    for method in grid.alone.methods:
        depths = sorted({row.depth for row in summary.cost if row.method == method}, reverse=True)
        listed = ", ".join(map(str, depths)) or "the depths"
        lines.append(_cost_line(summary, grid, f"{method}, for each of {listed}", method, alone=True))
    overhead = summary.update_overhead
    fitted = (
        f" f = {overhead:g} layers is the cost of an update apart from its layers, fitted by least squares to the seconds and"
        " layers per update of the models trained for their depth."
        if overhead is not None
        else " It is left out: f, the cost of an update apart from its layers, cannot be fitted to the seconds of these models."
    )
    caption = (
        "Training cost for one seed. Layer passes: layers run, summed over updates, in thousands. Cost: layer passes + f *"
        f" updates, relative to {grid.plain} of all layers.{_two_views(summary.cost)}{fitted}"
        f" Minutes are as measured, while the machine also did other work.{_arithmetic(summary.cost)}"
    )
    header = ("models", "models trained", "updates", "layer passes (k)", "cost", "minutes")
    return Table("cost", caption, header, tuple(lines))


def _two_views(rows: Sequence[Cost]) -> str:
    return " An update with two views of each utterance counts twice." if any(row.views > 1 for row in rows) else ""


def _arithmetic(rows: Sequence[Cost]) -> str:
    """Return a sentence if not all models are known to be trained in the same precision."""
    models = Counter(row.precision or "a precision that was not recorded" for row in rows)
    if len(models) == 1:
        return ""
    listed = ", ".join(f"{models[precision]} in {precision}" for precision in sorted(models, reverse=True))
    return f" Models trained: {listed}."


def _wer(row: System | None) -> str:
    return NONE if row is None else wer_cell(row)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _seeds(test: Comparison, needed: int | None) -> str:
    if needed is not None:
        return str(needed)
    return NONE if test.one_seed else f"> {MOST_SEEDS}"


def _cost_line(summary: Summary, grid: Grid, label: str, method: str, alone: bool) -> tuple[str, ...]:
    """Make the row of a method: its model of all layers, and with ``alone`` also its models trained for one depth."""
    layers = max(row.depth for row in summary.cost)
    rows = [row for row in summary.cost if row.method == method and (alone or row.depth == layers)]
    if not rows:
        return (label, NONE, NONE, NONE, NONE, NONE)
    updates, passes, rests, seconds = _mean_cost(rows)
    one = [row for row in summary.cost if row.method == grid.plain and row.depth == layers]
    cost, overhead = NONE, summary.update_overhead
    if one and overhead is not None:
        _, plain_passes, plain_rests, _ = _mean_cost(one)
        cost = f"{(passes + overhead * rests) / (plain_passes + overhead * plain_rests):.2f}"
    models = len(rows) / len({row.seed for row in rows})
    return (label, f"{models:g}", f"{updates:,.0f}", f"{passes / 1000:,.0f}", cost, f"{seconds / 60:.0f}")


def _mean_cost(rows: Sequence[Cost]) -> tuple[float, float, float, float]:
    """Return updates, layer passes, passes of the rest of the model and seconds, summed and divided by the number of seeds."""
    seeds = len({row.seed for row in rows})
    updates, passes = sum(row.updates for row in rows), sum(row.layer_passes for row in rows)
    rests = sum(row.views * row.updates for row in rows)
    return updates / seeds, passes / seeds, rests / seeds, sum(row.seconds for row in rows) / seeds
