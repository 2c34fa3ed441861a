"""The tables of a comparison, as cells, in Markdown and in LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rich.table
from rich import box
from rich.text import Text

from asrprune.paper.grid import Grid
from asrprune.paper.summary import ALL, ALONE, PREFIX, Row, Summary, roles
from asrprune.report.results import strategy_rank
from asrprune.report.tables import FULL, NONE, two_digits

NOT_SEEDS = "intervals cover the choice of the utterances, not that of the seed"
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
    for name in sorted({row["set"] for row in summary["rows"]}):
        rows = shown(summary, name)
        made += [wer_table(rows, grid, name), pruned_table(summary, rows, grid, name)]
    return [*made, cost_table(summary, grid)]


def shown(summary: Summary, name: str) -> list[Row]:
    """The rows of a set that are shown: all seeds together, or while a seed is not complete, of the one that has most."""
    groups: dict[Any, list[Row]] = {}
    for row in summary["rows"]:
        if row["set"] == name:
            groups.setdefault(row["seed"], []).append(row)
    return max(groups.values(), key=lambda rows: (len(rows), rows[0]["seed"] == ALL))


def verdict(summary: Summary, grid: Grid, name: str) -> list[str]:
    """Whether the claim holds: at which depths one model costs nothing against models trained for each depth.

    Worse is a depth at which the interval of the difference, all seeds together, lies above 0; unless a seed contradicts.

    Returns:
        A sentence for each kind of individually trained models.
    """
    own = [row for row in summary["rows"] if row["set"] == name and row["method"] == grid.prunable]
    own = sorted((row for row in own if row["strategy"] in (FULL, "greedy")), key=lambda row: -row["depth"])
    label = shown(summary, name)[0]["seed"]
    return [_verdict(own, label, grid, name, role) for role in roles(grid)]


def _verdict(own: Sequence[Row], label: Any, grid: Grid, name: str, role: str) -> str:
    """``label``: the seed whose rows are shown, or all."""
    claim = f"{name}: {grid.prunable}, pruned by its greedy plan, against {getattr(grid, role)} trained for each depth"
    key = f"{PREFIX[role]}diff"
    own = [row for row in own if row[key] is not None]
    good, bad, split = [], [], []
    for row in (row for row in own if row["seed"] == label):
        seeds = [other[key] for other in own if other["depth"] == row["depth"] and label in (ALL, other["seed"])]
        where = f"{row['depth']} layers ({_difference(row, role)} points)"
        if row[f"{key}_ci95"][0] <= 0:
            good.append(str(row["depth"]))
        elif min(seeds) > 0:
            bad.append(where)
        else:
            split.append(where)
    found = [f"not worse with {_listed(good)} layers"] if good else []
    found += [f"worse with {_listed(bad)}"] if bad else []
    found += [f"the seeds disagree with {_listed(split)}"] if split else []
    return f"{claim}: {'; '.join(found) or 'no depth has both yet'}."


def wer_table(rows: Sequence[Row], grid: Grid, name: str) -> Table:
    """WER by depth for every method and strategy, below the individually trained models; last, what others published."""
    published = [row for row in grid.published if row.set == name]
    depths = sorted({row["depth"] for row in rows} | {d for row in published for d in row.wer}, reverse=True)
    by_key = {(row["method"], row["strategy"], row["depth"]): row for row in rows}
    lines = []
    for method in grid.alone.methods:
        found = [by_key.get((method, ALONE, d)) or by_key.get((method, FULL, d)) for d in depths]
        lines.append((method, "trained for each depth", *(_wer(row) for row in found)))
    for method in grid.methods:
        strategies = {row["strategy"] for row in rows if row["method"] == method} - {ALONE, FULL}
        for strategy in sorted(strategies, key=strategy_rank):
            found = [by_key.get((method, strategy, d)) or by_key.get((method, FULL, d)) for d in depths]
            lines.append((method, strategy, *(_wer(row) for row in found)))
    lines += [(row.model, row.source, *(_number(row.wer.get(d), none="") for d in depths)) for row in published]
    caption = (
        f"WER (%) on {name} with its 95 % interval, by depth. Below the individually trained models: one model of all layers,"
        f" pruned to each depth. Star: worse than the model trained for this depth with {grid.baseline} (the interval of the"
        f" paired difference lies above 0); {NOT_SEEDS}." + (_PUBLISHED if published else "")
    )
    return Table(
        f"wer_{name}", caption, ("method", "layers", *(f"{d} layer{'s' * (d > 1)}" for d in depths)), tuple(lines), words=2
    )


def pruned_table(summary: Summary, rows: Sequence[Row], grid: Grid, name: str) -> Table:
    """The prunable model by its greedy plan against individually trained ones, with the cost of running it."""
    speed = {row["depth"]: row for row in summary["speed"]}
    chosen = [row for row in rows if row["method"] == grid.prunable and row["strategy"] in (FULL, "greedy")]
    lines = []
    for row in sorted(chosen, key=lambda row: -row["depth"]):
        fast = speed.get(row["depth"])
        cells = [
            str(row["depth"]),
            f"{row['params_m']:.2f}",
            two_digits(fast["rtf"]) if fast else NONE,
            f"{fast['speedup']:.1f}" if fast and fast["speedup"] else NONE,
            f"{row['wer']:.1f}",
        ]
        for role in roles(grid):
            cells += [_number(row[f"{role}_wer"]), _difference(row, role), _number(row[f"{PREFIX[role]}p_worse"], "{:.2f}")]
        lines.append(tuple(cells))
    header = ["depth", "params (M)", "RTF", "speed-up", "pruned"]
    for role in roles(grid):
        header += [f"alone, {getattr(grid, role)}", "difference", "P(worse)"]
    caption = (
        f"{grid.prunable}, greedy plan, on {name}: WER (%) against models that were trained for each depth. Difference: pruned"
        " minus the model to the left of it, in points, with its 95 % interval (paired bootstrap); P(worse):"
        f" the probability that pruned is worse by more than {summary['margin']} points. {NOT_SEEDS.capitalize()}."
    )
    return Table(f"pruned_{name}", caption, tuple(header), tuple(lines), words=0)


def cost_table(summary: Summary, grid: Grid) -> Table:
    """What training one prunable model cost against a set of individual ones, summed over depths and averaged over seeds."""
    listed = ", ".join(map(str, sorted({row["depth"] for row in summary["cost"]}, reverse=True)))
    lines = [_cost_line(summary, f"{method}, once", method, alone=False) for method in (grid.prunable, grid.plain)]
    lines += [_cost_line(summary, f"{method}, for each of {listed}", method, alone=True) for method in grid.alone.methods]
    caption = (
        "Training cost for one seed. Layer passes: layers run, summed over updates, in thousands; minutes as measured, with"
        " other runs beside them on the same machine."
    )
    return Table("cost", caption, ("models", "models trained", "updates", "layer passes (k)", "minutes"), tuple(lines))


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
    """A floating table that needs the package booktabs."""
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


def _wer(row: Row | None) -> str:
    if row is None:
        return NONE
    low, high = row["wer_ci95"]
    worse = row["diff"] is not None and row["diff_ci95"][0] > 0
    return f"{row['wer']:.1f} [{low:.1f}, {high:.1f}]{'*' if worse else ''}"


def _difference(row: Row, role: str) -> str:
    difference, interval = row[f"{PREFIX[role]}diff"], row[f"{PREFIX[role]}diff_ci95"]
    return NONE if difference is None else f"{difference:+.1f} [{interval[0]:+.1f}, {interval[1]:+.1f}]"


def _listed(items: Sequence[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def _number(value: float | None, pattern: str = "{:.1f}", none: str = NONE) -> str:
    return none if value is None else pattern.format(value)


def _cost_line(summary: Summary, label: str, method: str, alone: bool) -> tuple[str, ...]:
    """The method's full model, and with ``alone`` also its individually trained ones."""
    rows = [row for row in summary["cost"] if row["method"] == method and (alone or not row["alone"])]
    seeds = len({row["seed"] for row in rows})
    if not rows:
        return (label, NONE, NONE, NONE, NONE)
    updates, passes, seconds = (sum(row[key] for row in rows) / seeds for key in ("updates", "layer_passes", "seconds"))
    return (label, f"{len(rows) / seeds:g}", f"{updates:,.0f}", f"{passes / 1000:,.0f}", f"{seconds / 60:.0f}")


def _escaped(text: str) -> str:
    for character in "%&_#":
        text = text.replace(character, f"\\{character}")
    return text.replace(">", "$>$").replace(NONE, "--").replace("*", "$^*$")
