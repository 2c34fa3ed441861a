"""The figure of early exit: error rate against mean number of layers."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asrprune.decode.threshold import EarlyExit
from asrprune.report.plots import GREY, LOOKS, STYLE, panel_grid, percent_scale, save_figure


def draw_early_exit(made: EarlyExit, rate: str, path: Path) -> Path:
    """Draw a panel per set; ``rate`` is the name of the error rate, WER or PER. Return ``path``."""
    with mpl.rc_context(STYLE):
        return save_figure(_figure(made, rate), path)


def _figure(made: EarlyExit, rate: str) -> Figure:
    figure, panels = panel_grid(len(made.curves), width=3.4, height=2.6)
    colour = LOOKS[0][0]
    for axes, (name, curve) in zip(panels, made.curves.items(), strict=True):
        points = sorted((point.layers, point.wer) for point in curve.by_price)
        axes.plot(*zip(*points, strict=True), ".-", color=colour, label="early exit, for several prices of a layer")
        fixed = [(point.layers, point.wer) for point in curve.by_exit]
        axes.plot(*zip(*fixed, strict=True), "s", color=GREY, label="all utterances end at one exit")
        chosen = f"chosen on {made.set}: at most {made.margin:g} points more"
        axes.plot(curve.chosen.layers, curve.chosen.wer, "o", color=LOOKS[1][0], markersize=6, label=chosen)
        percent_scale(axes, [wer for _, wer in (*points, *fixed)], rate)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True))
        axes.set(title=name, xlabel="mean number of layers", xlim=(0, None))
    panels[0].legend(loc="upper right")
    return figure
