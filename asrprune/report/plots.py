"""The figures, from `results.json`; two of them also from the similarity matrices (`svcca/*.npz`) and `train.jsonl`."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from asrprune.analysis.matrices import read_matrices
from asrprune.experiment.paths import ExperimentPaths
from asrprune.prune.strategies.table import STRATEGIES, rank
from asrprune.report.result_table import Rate, set_names
from asrprune.report.results import LogLine, Results, Row, read_log, similarities
from asrprune.runtime.files import atomic_path

DPI = 300
LOOKS = (  # colours and markers for lines that are not one of the strategies; the first are Okabe and Ito's colours
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D")),
    *(("#E69F00", "v"), ("#56B4E9", "P"), ("#999933", "X"), ("#882255", "<")),
)
_FULL, GREY, PALE = "#000000", "#8a8a8a", "#e9e9e9"
STYLE: Any = {  # Any: the type of the keys differs between versions of matplotlib
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "text.usetex": False,
    "text.parse_math": False,  # else a $ in a name would begin a formula
}


CAPTIONS = {
    "wer_by_depth": "Word error rate at every depth, by the strategy that chose the layers. Bars: 95 % intervals; dashed: "
    "the full model.",
    "wer_vs_rtf": "Word error rate against real-time factor (encoder, CTC head and decoding, without features). "
    "Numbers are depths; the sub-models on the grey line are beaten by no other in both.",
    "layers_kept": "Layers kept (filled) at each depth. An empty row: the plan of the strategy does not have this depth.",
    "svcca": "Similarity of the outputs of the layers: 0 is none, 1 is equal up to a linear map (for CKA: up to rotation and "
    "scale). Layer 0 is the input of layer 1. If two neighbours are near 1, the upper one changes its input little. "
    "Bars: influence of each layer, 1 - cosine of its input and output, mean over frames.",
    "training": "Dev word error rate, CTC loss on dev and in training, and learning rate. A tap after layer k is the "
    "sub-model of layers 1 to k. Rings: the checkpoints that were averaged.",
}


def draw(results: Results, exp: Path, figures_dir: Path) -> list[Path]:
    """Draw the figures for which ``exp`` has numbers, delete the files of the others, and return the paths in order."""
    with mpl.rc_context(STYLE):
        return save_figures(_figures(results, exp), CAPTIONS, figures_dir)


def save_figures(drawn: Mapping[str, Figure], known: Iterable[str], folder: Path) -> list[Path]:
    """Write each figure as ``<name>.png``, delete the files of ``known`` names that were not drawn, and return the paths."""
    for name, figure in drawn.items():
        save_figure(figure, folder / f"{name}.png")
    for name in set(known) - drawn.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)
    return [folder / f"{name}.png" for name in drawn]


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure, atomically, and return its path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    return path


def draw_svcca(matrix: Path) -> Path:
    """Draw the heat maps of one ``svcca/<set>.npz``; return the path of the picture, which is beside it."""
    with mpl.rc_context(STYLE):
        return save_figure(svcca([matrix]), matrix.with_suffix(".png"))


def _figures(results: Results, exp: Path) -> dict[str, Figure]:
    drawn = {"wer_by_depth": wer_by_depth(results)}
    if any(row.rtf is not None for row in results.rows):
        drawn["wer_vs_rtf"] = wer_vs_rtf(results)
    if results.search:
        drawn["layers_kept"] = layers_kept(results)
    if matrices := similarities(exp, results.model.model_sha256)[0]:
        drawn["svcca"] = svcca(matrices)
    if results.training:
        drawn["training"] = training(results, ExperimentPaths(exp).log)
    return drawn


def wer_by_depth(results: Results) -> Figure:
    """Draw a panel per set: a line per strategy with 95 % intervals; all lines end in the full model."""
    names = set_names(results)
    rate = results.in_units("WER")
    figure, panels = panel_grid(len(names), width=3.6, height=2.7)
    for axes, name in zip(panels, names, strict=True):
        full, pruned = _split(results, [row for row in results.rows if row.set == name])
        for row in full:
            axes.axhline(row.wer, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
        for place, (strategy, rows) in enumerate(pruned.items()):
            shift = 0.15 * (place - (len(pruned) - 1) / 2)  # layers, so that no interval hides another
            _wer_line(axes, rows, full, shift, strategy, *_look(strategy, list(pruned)))
        intervals(axes, [row.depth for row in full], full, color=_FULL, marker="o", zorder=4)
        percent_scale(axes, [end for row in _all(full, pruned) for end in row.wer_ci95], rate)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True))
        axes.set(title=name, xlabel="depth (layers)")
    _legend(panels[0])
    return figure


def wer_vs_rtf(results: Results) -> Figure:
    """Draw a panel per set: each sub-model as a point labelled with its depth, and the Pareto front."""
    timed = [row for row in results.rows if row.rtf is not None]
    names = [name for name in set_names(results) if name in {row.set for row in timed}]
    rate = results.in_units("WER")
    figure, panels = panel_grid(len(names), width=3.6, height=2.7)
    for axes, name in zip(panels, names, strict=True):
        full, pruned = _split(results, [row for row in timed if row.set == name])
        for strategy, rows in [*pruned.items(), ("full model", full)]:
            colour, marker = _look(strategy, list(pruned))
            look: dict[str, Any] = {"color": colour, "marker": marker, "markerfacecolor": "none", "markeredgewidth": 1.1}
            axes.plot(*_rtf_and_wer(rows), linestyle="none", label=strategy, **look)
        points = _all(full, pruned)
        front = pareto(points)
        axes.step(*_rtf_and_wer(front), where="post", color="#c8c8c8", linewidth=2, zorder=1)
        percent_scale(axes, [row.wer for row in points] + [0.8 * row.wer for row in front], rate)  # room for labels
        axes.set(title=name, xlabel="RTF (s of computing per s of audio)", xlim=(0, 1.12 * max(map(_rtf, points))))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
        few = len({row.depth for row in points}) <= 8  # else only the front and the full model have labels
        _label_depths(figure, axes, front, [row for row in (points if few else full) if row not in front])
    _legend(panels[0])
    return figure


def layers_kept(results: Results) -> Figure:
    """Draw a grid per strategy, with a column per layer and a row per depth; the cells of kept layers are filled."""
    num_layers, plans = results.model.num_layers, results.search
    depths = sorted({step.depth for plan in plans.values() for step in plan.steps}, reverse=True)
    cell = min(0.13, 1.6 / num_layers)  # inches
    figure, panels = panel_grid(len(plans), width=cell * num_layers + 0.35, height=cell * len(depths) + 0.55, columns=4)
    for axes, (strategy, plan) in zip(panels, plans.items(), strict=True):
        kept = np.full((len(depths), num_layers), np.nan)
        for step in plan.steps:
            kept[depths.index(step.depth)] = np.isin(np.arange(1, num_layers + 1), step.keep)
        colours = ListedColormap([PALE, _look(strategy, list(plans))[0]])
        edges = np.arange(num_layers + 1) + 0.5, np.arange(len(depths) + 1) - 0.5
        axes.pcolormesh(*edges, np.ma.masked_invalid(kept), cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=0.7)
        axes.invert_yaxis()
        every = ceil(num_layers / 12)
        axes.set_xticks(range(every, num_layers + 1, every))
        axes.set_yticks(range(0, len(depths), every), list(map(str, depths[::every])))
        axes.tick_params(length=0, labelsize=6)
        axes.spines[:].set_visible(False)
        axes.set(title=strategy, xlabel="layer", aspect="equal")
    panels[0].set_ylabel("depth (layers)")
    return figure


def svcca(matrices: Sequence[Path]) -> Figure:
    """Draw a row per set: SVCCA and linear CKA of every pair of x_0 ... x_L, on one colour scale from 0 to 1, and influence."""
    figure, panels = panel_grid(2 * len(matrices), width=3.2, height=2.9)
    for place, path in enumerate(matrices):
        arrays = read_matrices(path)
        for axes, key, title in zip(panels[2 * place :], ("similarity", "cka"), ("SVCCA", "linear CKA"), strict=False):
            image = heat_map(axes, arrays[key], arrays["layers"])
            axes.set_title(f"{title}, {path.stem} ({int(arrays['frames']):,} frames)")
        if "influence" in arrays:
            influence_bars(panels[2 * place], arrays["influence"])
    similarity_scale(figure, image, panels)
    return figure


def training(results: Results, log: Path) -> Figure:
    """Draw dev WER and loss of each tap over the epochs, and the learning rate over the updates."""
    steps, epochs = read_log(log)
    averaged = {member.epoch for member in results.model.members}
    figure = Figure(figsize=(6.9, 2.3), layout="constrained")
    wer_axes, loss_axes, rate_axes = figure.subplots(1, 3, width_ratios=(3, 3, 2))
    _tap_curves(wer_axes, epochs, "dev_wer")
    ends = [epoch for epoch in epochs if epoch["epoch"] in averaged]
    wer_axes.plot(*_curve(ends, "dev_wer", _taps(epochs)[-1]), "o", markerfacecolor="none", color=_FULL, label="averaged")
    percent_scale(wer_axes, [wer for epoch in epochs for wer in epoch["dev_wer"].values()], results.in_units("dev WER"))
    wer_axes.legend(loc="best")
    _tap_curves(loss_axes, epochs, "dev_loss")
    losses = [epoch["train_loss"] for epoch in epochs]
    train = loss_axes.plot(
        [epoch["epoch"] for epoch in epochs], losses, color=GREY, linestyle="--", label="training, weighted sum"
    )
    loss_axes.legend(handles=train, loc="best")
    loss_axes.set(ylabel="CTC loss (solid: dev)", ylim=(0, None))
    rate_axes.plot([step["step"] for step in steps], [1e3 * step["lr"] for step in steps], color=GREY)
    rate_axes.set(xlabel="step", ylabel="learning rate (10⁻³)", ylim=(0, None))
    for axes in (wer_axes, loss_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def pareto(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other row beats in both RTF and WER, from fast to slow."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (_rtf(row), row.wer)):
        if not front or row.wer < front[-1].wer:
            front.append(row)
    return front


def panel_grid(count: int, width: float, height: float, columns: int = 2) -> tuple[Figure, list[Axes]]:
    """Return a figure and its ``count`` panels, each ``width`` x ``height`` inches, in rows of at most ``columns``."""
    across, down = min(count, columns), ceil(count / columns)
    figure = Figure(figsize=(width * across, height * down), layout="compressed")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for spare in panels[count:]:
        spare.remove()
    return figure, panels[:count]


def _split(results: Results, rows: Sequence[Row]) -> tuple[list[Row], dict[str, list[Row]]]:
    """Split the rows of one set: the full model (a list of one row, or none), and each strategy from shallow to deep."""
    full = [row for row in rows if row.depth == results.model.num_layers][:1]
    pruned = sorted((row for row in rows if row.depth != results.model.num_layers), key=lambda row: row.depth)
    strategies = sorted({row.strategy for row in pruned}, key=rank)
    return full, {strategy: [row for row in pruned if row.strategy == strategy] for strategy in strategies}


def _all(full: list[Row], pruned: dict[str, list[Row]]) -> list[Row]:
    return [row for rows in pruned.values() for row in rows] + full


def _rtf_and_wer(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    return [_rtf(row) for row in rows], [row.wer for row in rows]


def _rtf(row: Row) -> float:
    assert row.rtf is not None, "only what was measured is drawn"
    return row.rtf


def _look(strategy: str, strategies: Sequence[str]) -> tuple[str, str]:
    """Return colour and marker; strategies of the table and the full model have fixed ones, others share the rest."""
    if strategy == "full model":
        return _FULL, "o"
    if strategy in STRATEGIES:
        return STRATEGIES[strategy].colour, STRATEGIES[strategy].marker
    others = [other for other in strategies if other not in STRATEGIES]
    spare = [look for look in LOOKS if look[0] not in {known.colour for known in STRATEGIES.values()}]
    return spare[others.index(strategy) % len(spare)]


def _wer_line(axes: Axes, rows: list[Row], full: list[Row], shift: float, strategy: str, colour: str, marker: str) -> None:
    """Draw the WER of the sub-models of one strategy, ``shift`` layers beside their depths, up to the full model."""
    depths = [row.depth + shift for row in rows]
    axes.plot(depths + [row.depth for row in full], [row.wer for row in rows + full], color=colour)
    intervals(axes, depths, rows, color=colour, marker=marker, label=strategy)


def intervals(axes: Axes, depths: Sequence[float], rows: Sequence[Rate], **look: Any) -> None:
    """Draw points with their 95 % intervals as bars."""
    wer = np.array([row.wer for row in rows])
    low, high = np.array([row.wer_ci95 for row in rows]).reshape(-1, 2).T
    bars: dict[str, Any] = {"elinewidth": 0.7, "capsize": 1.5, "capthick": 0.7}
    axes.errorbar(depths, wer, yerr=[wer - low, high - wer], linestyle="none", **bars, **look)


def percent_scale(axes: Axes, values: Sequence[float], what: str) -> None:
    """Label an axis of rates; make it logarithmic (linear below 1 %) if the values span more than a factor of four."""
    axes.grid(axis="y", color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    if not values or max(values) <= 4 * min(values):
        axes.set_ylabel(f"{what} (%)")
        return
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0.85 * min(values), 1.25 * max(values))
    axes.yaxis.set_major_locator(FixedLocator([0, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"{what} (%), log scale")


def _label_depths(figure: Figure, axes: Axes, front: Sequence[Row], others: Sequence[Row]) -> None:
    """Write depths below points of the front, where no point can lie, and above other points; omit labels that overlap."""
    figure.draw_without_rendering()  # positions on the page are known only after the layout
    written: list[tuple[float, float]] = []
    for row, place in [(row, (-1, -9)) for row in front] + [(row, (3, 2)) for row in others]:
        x, y = axes.transData.transform((_rtf(row), row.wer)) * 72 / figure.dpi + place  # points on the page
        if not any(abs(x - left) < 8 and abs(y - low) < 6 for left, low in written):
            axes.annotate(str(row.depth), (_rtf(row), row.wer), place, textcoords="offset points", fontsize=6)
            written.append((x, y))


def _legend(axes: Axes) -> None:
    """Add a legend with one entry per label, in the order of drawing."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="upper right")


def heat_map(axes: Axes, matrix: np.ndarray, layers: np.ndarray, lowest: float = 0.0) -> AxesImage:
    """Draw a similarity matrix, with colours from ``lowest`` to 1; with at most 13 layers, write the values into the cells."""
    image = axes.imshow(matrix, cmap="viridis", vmin=lowest, vmax=1, origin="lower")
    step = ceil(len(layers) / 13)
    axes.set_xticks(range(0, len(layers), step), layers[::step])
    axes.set_yticks(range(0, len(layers), step), layers[::step])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlabel="layer", ylabel="layer")
    if len(layers) <= 13:
        for (y, x), value in np.ndenumerate(matrix):
            text = f"{value:.2f}".removeprefix("0").replace("1.00", "1")  # 1.00 is wider than a cell
            colour = "black" if value > (1 + lowest) / 2 else "white"
            axes.text(x, y, text, ha="center", va="center", fontsize=4.5, color=colour)
    return image


def similarity_scale(figure: Figure, image: AxesImage, panels: Sequence[Axes]) -> None:
    """Draw the colour scale of heat maps beside them."""
    figure.colorbar(image, ax=panels, label="similarity", shrink=0.85, aspect=30, pad=0.02).outline.set_linewidth(0.6)


def influence_bars(axes: Axes, influence: Sequence[float] | np.ndarray) -> None:
    """Draw the influence of the layers 1..L as bars above a heat map, in line with its columns."""
    bars = axes.inset_axes((0.0, 1.04, 1.0, 0.2), sharex=axes)
    bars.bar(range(1, len(influence) + 1), influence, color=STRATEGIES["influence"].colour, width=0.7)
    bars.tick_params(bottom=False, labelbottom=False)
    bars.yaxis.set_major_locator(MaxNLocator(nbins=2))
    bars.set(ylabel="influence", ylim=(0, None))


def _taps(epochs: Sequence[LogLine]) -> list[str]:
    return sorted({layer for epoch in epochs for layer in epoch["dev_wer"]}, key=int)


def _curve(epochs: Sequence[LogLine], key: str, layer: str) -> tuple[list[int], list[float]]:
    return [epoch["epoch"] for epoch in epochs], [epoch[key][layer] for epoch in epochs]


def _tap_curves(axes: Axes, epochs: Sequence[LogLine], key: str) -> None:
    """Draw a curve per tap, in darker colours for deeper taps; the full model is black."""
    *taps, last = _taps(epochs)
    for place, layer in enumerate(taps):
        colour = mpl.colormaps["viridis"](0.85 - 0.6 * place / len(taps))
        axes.plot(*_curve(epochs, key, layer), color=colour, label=f"layer {layer}")
    axes.plot(*_curve(epochs, key, last), color=_FULL, label=f"layer {last} (full model)")
