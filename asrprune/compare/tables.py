"""The tables of a comparison, as cells, in Markdown and in LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

import rich.table
from rich import box
from rich.text import Text

from asrprune.compare.grid import Grid
from asrprune.compare.noninferiority import MOST_SEEDS
from asrprune.compare.summary import ALONE, Comparison, Cost, Summary, System, chosen_strategy, roles, shown
from asrprune.compare.verdict import difference, rests_on
from asrprune.prune.strategies.table import rank
from asrprune.report.tables import FULL, NONE, two_digits

MARKS = {"passes": "✓", "worse": "✗", "undecided": "?"}
_PUBLISHED = (
    " Rows with a source: published by others, not measured here; where a cell is empty the figure is not available to us."
)


@dataclass(frozen=True)
class Table:
    """Cells as text, with a name and what it shows."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1  # leading columns that are words, aligned left


def tables(summary: Summary, grid: Grid) -> list[Table]:
    """All tables, of every set."""
    made = []
    for name in sorted({row.set for row in summary.rows}):
        made += [wer_table(summary, grid, name), pruned_table(summary, grid, name), power_table(summary, grid, name)]
    if summary.speed:
        made.append(speed_table(summary, grid))
    return [*made, cost_table(summary, grid)]


def wer_table(summary: Summary, grid: Grid, name: str) -> Table:
    """WER by depth for every method and strategy, below the individually trained models; last, what others published."""
    rows = shown(summary, name)
    published = [row for row in grid.published if row.set == name]
    depths = sorted({row.depth for row in rows} | {d for row in published for d in row.wer}, reverse=True)
    by_key = {(row.method, row.strategy, row.depth): row for row in rows}
    lines = []
    for method in grid.alone.methods:
        found = [by_key.get((method, ALONE, d)) or by_key.get((method, FULL, d)) for d in depths]
        lines.append((method, "trained for each depth", *(_wer(row) for row in found)))
    for method in grid.methods:
        strategies = {row.strategy for row in rows if row.method == method} - {ALONE, FULL}
        for strategy in sorted(strategies, key=rank):
            found = [by_key.get((method, strategy, d)) or by_key.get((method, FULL, d)) for d in depths]
            lines.append((method, strategy, *(_wer(row) for row in found)))
    lines += [(row.model, row.source, *(_number(row.wer.get(d), none="") for d in depths)) for row in published]
    rate = summary.in_units("WER")
    caption = (
        f"{rate} (%) on {name} with its 95 % interval, by depth. Below the individually trained models: one model of all"
        f" layers, pruned to each depth. {rests_on(summary, name)}" + (_PUBLISHED if published else "")
    )
    return Table(
        f"wer_{name}", caption, ("method", "layers", *(f"{d} layer{'s' * (d > 1)}" for d in depths)), tuple(lines), words=2
    )


def pruned_table(summary: Summary, grid: Grid, name: str) -> Table:
    """The prunable model against individually trained ones."""
    tests = {(test.depth, test.role): test for test in summary.tests if test.set == name}
    strategy = chosen_strategy(grid)
    rows = [row for row in shown(summary, name) if row.method == grid.prunable and row.strategy in (FULL, strategy)]
    lines = []
    for row in sorted(rows, key=lambda row: -row.depth):
        cells = [str(row.depth), f"{row.wer:.1f}"]
        for role in roles(grid):
            test = tests.get((row.depth, role))
            cells += [f"{test.alone_wer:.1f}", f"{difference(test)} {MARKS[test.outcome]}"] if test else [NONE, NONE]
        lines.append(tuple(cells))
    header = ["depth", "pruned"]
    for role in roles(grid):
        header += [f"alone, {getattr(grid, role)}", "difference"]
    points, share, rate = summary.margin.points, summary.margin.share, summary.in_units("WER")
    caption = (
        f"{grid.prunable}, {strategy} plan, on {name}: {rate} (%) against models that were trained for each depth. Difference:"
        " pruned minus the model to the left of it, in points, with its 90 % interval, whose upper end is the one-sided 95 %"
        f" bound. {MARKS['passes']}: not worse, as the bound lies below {points:g} points and below {100 * share:g} % of the"
        f" {rate} to the left; {MARKS['worse']}: worse, as the interval lies above 0; {MARKS['undecided']}: undecided."
        f" {rests_on(summary, name)}"
    )
    return Table(f"pruned_{name}", caption, tuple(header), tuple(lines), words=0)


def power_table(summary: Summary, grid: Grid, name: str) -> Table:
    """Tabulate how likely the test is to pass where pruning costs nothing, and the seeds that would make it likely."""
    tests = sorted((test for test in summary.tests if test.set == name), key=lambda test: -test.depth)
    lines = [
        (
            str(test.depth),
            getattr(grid, test.role),
            f"{test.ci90[1]:+.2f}",
            f"{test.margin:.2f}",
            f"{100 * test.power:.0f} %",
            _seeds(test, test.seeds_80),
            _seeds(test, test.seeds_90),
        )
        for test in tests
    ]
    caption = (
        f"The test of {name} at each depth: one-sided 95 % bound of the difference, which must lie below the margin (points);"
        " power: the probability that it does if the true difference is 0, with the seeds at hand, in normal approximation;"
        " seeds of each model that would give 80 and 90 %, if the spread between seeds is what these show."
    )
    if any(min(test.seeds, test.alone_seeds) < 2 for test in tests):
        caption += " From one seed that spread is not known: the power is of the utterances alone, and so too high."
    header = ("depth", "against", "bound", "margin", "power", "seeds for 80 %", "for 90 %")
    return Table(f"power_{name}", caption, header, tuple(lines), words=0)


def speed_table(summary: Summary, grid: Grid) -> Table:
    """Tabulate the cost of running the prunable model, by depth."""
    lines = [
        (
            str(row.depth),
            f"{row.params_m:.2f}",
            two_digits(row.rtf),
            f"{row.speedup:.1f}" if row.speedup else NONE,
        )
        for row in summary.speed
    ]
    caption = f"{grid.prunable} by depth: parameters that run, real-time factor (RTF) and its gain over all layers."
    return Table("speed", caption, ("depth", "params (M)", "RTF", "speed-up"), tuple(lines), words=0)


def cost_table(summary: Summary, grid: Grid) -> Table:
    """Tabulate the cost of training one prunable model against individual ones, summed over depths, averaged over seeds."""
    listed = ", ".join(map(str, sorted({row.depth for row in summary.cost}, reverse=True)))
    once = [grid.prunable, *grid.alone.methods]
    lines = [_cost_line(summary, grid, f"{method}, once", method, alone=False) for method in once]
    lines += [_cost_line(summary, grid, f"{method}, for each of {listed}", method, alone=True) for method in grid.alone.methods]
    overhead = summary.update_overhead
    fitted = (
        f" f = {overhead:g} layers is what an update costs apart from its layers, by least squares of seconds per update"
        " against layers per update over the models trained for their depth."
        if overhead is not None
        else " It is left out: f, what an update costs apart from its layers, cannot be fitted to the seconds of these models."
    )
    caption = (
        "Training cost for one seed. Layer passes: layers run, summed over updates, in thousands. Cost: layer passes + f *"
        f" updates, relative to {grid.plain} of all layers.{fitted} Minutes as measured, with other runs beside them on the"
        " same machine."
    )
    header = ("models", "models trained", "updates", "layer passes (k)", "cost", "minutes")
    return Table("cost", caption, header, tuple(lines))


def screen_table(table: Table) -> rich.table.Table:
    """For the terminal."""
    drawn = rich.table.Table(title=table.name, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column, heading in enumerate(table.header):
        drawn.add_column(heading, justify="left" if column < table.words else "right", overflow="fold")
    for cells in table.rows:
        drawn.add_row(*map(Text, cells))  # "[4.4, 5.3]" is no markup
    return drawn


def markdown(table: Table) -> str:
    """In GitHub's Markdown, with the caption below."""
    align = ["---" if column < table.words else "---:" for column in range(len(table.header))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (table.header, align, *table.rows)]
    return "\n".join(lines) + f"\n\n{table.caption}"


def latex(table: Table) -> str:
    """A floating table that needs the packages booktabs and amssymb."""
    columns = "l" * table.words + "r" * (len(table.header) - table.words)
    body = [" & ".join(map(_escaped, cells)) + r" \\" for cells in table.rows]
    head = " & ".join(map(_escaped, table.header)) + r" \\"
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(table.caption)}}}"]
    lines += [
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
    ]
    lines += [*body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _wer(row: System | None) -> str:
    if row is None:
        return NONE
    low, high = row.wer_ci95
    return f"{row.wer:.1f} [{low:.1f}, {high:.1f}]"


def _seeds(test: Comparison, needed: int | None) -> str:
    if needed is not None:
        return str(needed)
    return NONE if min(test.seeds, test.alone_seeds) < 2 else f"> {MOST_SEEDS}"


def _number(value: float | None, pattern: str = "{:.1f}", none: str = NONE) -> str:
    return none if value is None else pattern.format(value)


def _cost_line(summary: Summary, grid: Grid, label: str, method: str, alone: bool) -> tuple[str, ...]:
    """The method's full model, and with ``alone`` also its individually trained ones."""
    layers = max(row.depth for row in summary.cost)
    rows = [row for row in summary.cost if row.method == method and (alone or row.depth == layers)]
    if not rows:
        return (label, NONE, NONE, NONE, NONE, NONE)
    updates, passes, seconds = _mean_cost(rows)
    one = [row for row in summary.cost if row.method == grid.plain and row.depth == layers]
    cost, overhead = NONE, summary.update_overhead
    if one and overhead is not None:
        cost = f"{(passes + overhead * updates) / ((layers + overhead) * _mean_cost(one)[0]):.2f}"
    models = len(rows) / len({row.seed for row in rows})
    return (label, f"{models:g}", f"{updates:,.0f}", f"{passes / 1000:,.0f}", cost, f"{seconds / 60:.0f}")


def _mean_cost(rows: Sequence[Cost]) -> tuple[float, float, float]:
    """Updates, layer passes and seconds of one seed."""
    seeds = len({row.seed for row in rows})
    updates, passes = sum(row.updates for row in rows), sum(row.layer_passes for row in rows)
    return updates / seeds, passes / seeds, sum(row.seconds for row in rows) / seeds


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "%&_#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", ">": "$>$", "*": "$^*$", NONE: "--"}
    | {"✓": r"$\checkmark$", "✗": r"$\times$"}
)


def _escaped(text: str) -> str:
    return text.translate(_LATEX).replace(" $^*$ ", r" $\times$ ")
