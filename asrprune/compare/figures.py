"""The figures of a comparison, drawn from its summary alone."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asrprune.compare.grid import Grid
from asrprune.compare.summary import ALL, ALONE, Cost, Removals, Summary, System, of_system, shown
from asrprune.config.strategies import PREFERRED
from asrprune.prune.strategies.table import STRATEGIES
from asrprune.report.plots import (
    GREY,
    LOOKS,
    PALE,
    STYLE,
    heat_map,
    influence_bars,
    intervals,
    panel_grid,
    percent_scale,
    save_figures,
    similarity_scale,
)

CAPTIONS = {
    "one_model": "WER by depth: one model, trained once and pruned, against models trained for each depth. Band and bars: 95 %"
    " intervals.",
    "methods": "WER by depth. Lines: one model of all layers, by the method that trained it and the strategy that prunes it;"
    " black: models trained for each depth. Bars: 95 % intervals.",
    "strategies": "WER by depth of the prunable model, by the strategy that chose its layers, against models trained for each"
    " depth. Bars: 95 % intervals.",
    "difference": "WER of the pruned model minus that of the individually trained one, in points; below 0 the pruned model is"
    " better. Bars: 90 % intervals; if the upper end lies below the margin, the pruned model is not worse.",
    "removals": "Dev WER after the removal of one layer, without retraining, first seed; dashed: all layers.",
    "similarity": "SVCCA similarity of the outputs of the layers, first seed; layer 0 is the input of layer 1. Colours begin at"
    " the lowest value. Bars, if measured: influence of each layer, 1 - cosine of its input and output, mean over frames.",
    "cost": "Training cost of one seed: the prunable model, and one model for each of the named depths. Minutes depend on what"
    " else ran.",
}
_COLOURS, _MARKERS = zip(*LOOKS, strict=True)


def draw(summary: Summary, grid: Grid, folder: Path) -> list[Path]:
    """Draw the figures for which there are numbers, and delete the files of the others; return the paths in order."""
    with mpl.rc_context(STYLE):
        return save_figures(_figures(summary, grid), CAPTIONS, folder)


def _figures(summary: Summary, grid: Grid) -> dict[str, Figure]:
    names = sorted({row.set for row in summary.rows})
    compared = any(row.method == grid.prunable or row.strategy == ALONE for row in summary.rows)
    drawn = {"one_model": one_model(summary, grid, names)} if compared else {}
    drawn["methods"] = methods(summary, grid, names)
    if compared:
        drawn["strategies"] = strategies(summary, grid, names)
    if summary.tests:
        drawn["difference"] = difference(summary, grid, names)
    if removed := {method: value for method, value in summary.removals.items() if value}:
        drawn["removals"] = removals(removed, summary.in_units("WER"))
    if matrices := {method: matrix for method, matrix in summary.similarity.items() if matrix}:
        drawn["similarity"] = similarity(matrices, summary.influence)
    drawn["cost"] = cost(summary, grid)
    return drawn


def one_model(summary: Summary, grid: Grid, names: Sequence[str]) -> Figure:
    """Draw a panel per set: the prunable model as a line with a band, models trained for each depth as points with bars."""
    figure, panels = panel_grid(len(names), width=6.0, height=3.2)
    blue, *others = zip(_COLOURS, _MARKERS, strict=True)
    for axes, name in zip(panels, names, strict=True):
        rows = sorted(shown(summary, name), key=lambda row: row.depth)
        own = of_system(rows, grid.prunable, grid.strategy)
        depths = [row.depth for row in own]
        axes.fill_between(
            depths, *np.array([row.wer_ci95 for row in own]).reshape(-1, 2).T, color=blue[0], alpha=0.18, linewidth=0
        )
        look: dict[str, Any] = {"color": blue[0], "marker": blue[1], "label": "one model, pruned"}
        axes.plot(depths, [row.wer for row in own], linewidth=1.6, markersize=5, zorder=3, **look)
        drawn = list(own)
        for role, side, (colour, marker) in zip(grid.roles, (-1, 1), others, strict=False):
            method = getattr(grid, role)
            alone = of_system(rows, method, ALONE)
            label = f"trained for each depth, {method}"
            intervals(axes, [row.depth + 0.16 * side for row in alone], alone, color=colour, marker=marker, label=label)
            drawn += alone
        axes.grid(axis="y", color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_xticks(sorted({row.depth for row in drawn}))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
        ends = [end for row in drawn for end in row.wer_ci95]
        if ends and min(ends) < max(ends) / 2:  # from 0 only then: rates that differ less would fill a thin strip
            axes.set_ylim(0, None)
        axes.set(title=name, xlabel="depth (layers that run)", ylabel=summary.in_units("WER (%)"))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def methods(summary: Summary, grid: Grid, names: Sequence[str]) -> Figure:
    """Draw a panel per set: the individually trained models, and each method pruned by its strategy."""
    looks = zip(_COLOURS, _MARKERS, strict=True)
    chosen = [(method, grid.pruned_by.get(method, PREFERRED)) for method in grid.methods if method not in grid.alone.unpruned]
    lines = [(f"{method}, {by}", method, by, *look) for (method, by), look in zip(chosen, cycle(looks), strict=False)]
    return _by_depth(summary, grid, names, lines)


def strategies(summary: Summary, grid: Grid, names: Sequence[str]) -> Figure:
    """Draw a panel per set: the individually trained models, and the prunable model by every strategy."""
    there = {row.strategy for row in summary.rows if row.method == grid.prunable}
    lines = [(by, grid.prunable, by, look.colour, look.marker) for by, look in STRATEGIES.items() if by in there]
    return _by_depth(summary, grid, names, lines)


def _by_depth(summary: Summary, grid: Grid, names: Sequence[str], lines: Sequence[tuple[str, str, str, str, str]]) -> Figure:
    """Draw WER by depth of models trained for each depth, and of ``lines``: label, method, strategy, colour and marker."""
    figure, panels = panel_grid(len(names), width=5.2, height=3.9)
    for axes, name in zip(panels, names, strict=True):
        rows = shown(summary, name)
        drawn: list[System] = []
        both = [*_alone(grid), *lines]
        styles = cycle(("--", "-", ":", "-."))
        for place, (label, method, strategy, colour, marker) in enumerate(both):
            chosen = of_system(rows, method, strategy)
            shift = min(0.12, 0.8 / len(both)) * (place - (len(both) - 1) / 2)
            look = {"linestyle": next(styles), "markerfacecolor": "white"} if strategy == ALONE else {}
            _line(axes, chosen, label, shift, color=colour, marker=marker, **look)
            drawn += chosen
        percent_scale(axes, [end for row in drawn for end in row.wer_ci95], summary.in_units("WER"))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True))
        axes.set(title=name, xlabel="depth (layers)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def difference(summary: Summary, grid: Grid, names: Sequence[str]) -> Figure:
    """Draw a panel for each set and each kind of individually trained model: tests, their margins, and single seeds."""
    shared = [(name, role) for name in names for role in grid.roles]
    figure, panels = panel_grid(len(shared), width=3.6, height=2.6)
    for axes, (name, role) in zip(panels, shared, strict=True):
        tests = [test for test in summary.tests if (test.set, test.role) == (name, role)]
        depths, values = [test.depth for test in tests], np.array([test.difference for test in tests])
        low, high = np.array([test.ci90 for test in tests]).reshape(-1, 2).T
        look: dict[str, Any] = {"color": _COLOURS[0], "marker": _MARKERS[0], "linestyle": "none"}
        single = _by_seed(summary, grid, name, role)
        several = len(single[0]) > len(depths)  # with one seed its difference is that of all seeds
        label = "all seeds" if several else "difference"
        axes.errorbar(depths, values, [values - low, high - values], label=label, capsize=1.5, elinewidth=0.7, **look)
        if several:
            axes.plot(*single, "_", color=GREY, markersize=6, label="each seed", zorder=1)
        axes.plot(depths, [test.margin for test in tests], "_", color=_COLOURS[1], markersize=11, label="margin")
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.grid(axis="y", color=PALE, linewidth=0.5)
        axes.set_xticks(depths)
        title = f"{name}, against {getattr(grid, role)} alone"
        axes.set(title=title, xlabel="depth (layers)", ylabel=summary.in_units("pruned - alone (points of WER)"))
    low, high = zip(*(axes.get_ylim() for axes in panels), strict=True)
    for axes in panels:
        axes.set_ylim(min(low), max(high))
    panels[0].legend(loc="best")
    return figure


def _by_seed(summary: Summary, grid: Grid, name: str, role: str) -> tuple[list[int], list[float]]:
    """Return the depths and the differences, one for each depth and each seed that both models have."""
    rows = [row for row in summary.rows if row.set == name and row.seed != ALL]
    alone = {(row.depth, row.seed): row.wer for row in of_system(rows, getattr(grid, role), ALONE)}
    own = of_system(rows, grid.prunable, grid.strategy)
    pairs = [(row.depth, row.wer - alone[key]) for row in own if (key := (row.depth, row.seed)) in alone]
    return [depth for depth, _ in pairs], [value for _, value in pairs]


def removals(removed: dict[str, Removals], rate: str) -> Figure:
    """Draw a panel per method, all on one scale: a bar for each layer, the dev WER without it."""
    figure, panels = panel_grid(len(removed), width=3.4, height=2.3)
    highest = max(max(value.without.values()) for value in removed.values())
    for axes, (method, value) in zip(panels, removed.items(), strict=True):
        layers = sorted(value.without)
        axes.bar(layers, [value.without[layer] for layer in layers], color=_COLOURS[0], width=0.7)
        axes.axhline(value.full, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True))
        axes.set(title=method, xlabel="layer removed", ylabel=f"{rate} on {value.dev_set} (%)", ylim=(0, 1.05 * highest))
    return figure


def similarity(matrices: dict[str, list[list[float]]], influences: dict[str, list[float] | None]) -> Figure:
    """Draw heat maps side by side on one scale; above them the influence of each layer, if it was measured."""
    figure, panels = panel_grid(len(matrices), width=3.2, height=2.9)
    lowest = min(np.min(matrix) for matrix in matrices.values())
    for axes, (method, matrix) in zip(panels, matrices.items(), strict=True):
        image = heat_map(axes, np.array(matrix), np.arange(len(matrix)), lowest)
        axes.set_title(f"SVCCA, {method}")
        if influence := influences.get(method):
            influence_bars(axes, influence)
    similarity_scale(figure, image, panels)
    return figure


def cost(summary: Summary, grid: Grid) -> Figure:
    """Draw stacked bars of layer passes and of minutes, with a segment for each model."""
    figure, bars = Figure(figsize=(6.6, 1.7), layout="constrained"), _cost_bars(summary, grid)
    both = list(figure.subplots(1, 2, sharey=True))
    _stacked(both[0], bars, lambda row: row.layer_passes / 1e3, "thousand layer passes")
    _stacked(both[1], bars, lambda row: row.seconds / 60, "minutes")
    both[0].set_yticks(range(len(bars)), [label for label, _ in bars])
    both[0].invert_yaxis()
    return figure


def _stacked(axes: Axes, bars: Sequence[tuple[str, list[Cost]]], width: Callable[[Cost], float], name: str) -> None:
    """Draw a bar for each label, and in it a segment for each training run, with its number of layers."""
    for place, (_, rows) in enumerate(bars):
        left, colour = 0.0, GREY if place else _COLOURS[0]  # the first bar is the prunable model
        for row in rows:
            axes.barh(place, width(row), left=left, color=colour, edgecolor="white", linewidth=0.7)
            axes.text(left + width(row) / 2, place, str(row.depth), ha="center", va="center", fontsize=6, color="white")
            left += width(row)
    axes.set_xlabel(name)


def _cost_bars(summary: Summary, grid: Grid) -> list[tuple[str, list[Cost]]]:
    """Return the label of each bar and its training runs with the first seed; a method without runs has no bar."""
    first = min(row.seed for row in summary.cost)
    rows = [row for row in summary.cost if row.seed == first]
    bars = [(f"{grid.prunable}, once", [row for row in rows if row.method == grid.prunable and not row.alone])]
    for method in grid.alone.methods:
        chosen = sorted((row for row in rows if row.method == method), key=lambda row: -row.depth)
        trained = ", ".join(str(row.depth) for row in chosen)  # not all depths may be trained yet
        bars.append((f"{method}, for {trained} layers", chosen))
    return [(label, rows) for label, rows in bars if rows]


def _alone(grid: Grid) -> list[tuple[str, str, str, str, str]]:
    """Return the lines of individually trained models, as ``_by_depth`` takes them: in black."""
    looks = zip(grid.alone.methods, _MARKERS[1:], strict=False)
    return [(f"{method}, trained for each depth", method, ALONE, "black", marker) for method, marker in looks]


def _line(axes: Axes, rows: Sequence[System], label: str, shift: float, **look: Any) -> None:
    """Draw WER by depth with 95 % intervals. Each line has a different ``shift`` (layers), so intervals do not overlap."""
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row.depth)
    depths = [row.depth + shift for row in rows]
    intervals(axes, depths, rows, color=look["color"], zorder=2)
    axes.plot(depths, [row.wer for row in rows], label=label, zorder=3, **look)
