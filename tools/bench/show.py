"""docs/performance.json as a page with tables and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from asrprune.report.plots import GREY, LOOKS, STYLE, panel_grid, save_figures
from asrprune.report.table import Table, markdown
from asrprune.runtime.files import read_json, write_text

COLOURS = [colour for colour, _ in LOOKS[:4]]
_BATCHES = "b1: one utterance of 10 s; b16: sixteen of 4 s."
_MATMUL = "matmul: the product of two matrices of 2048 x 2048, which shows the speed of the machine."
_UPDATES = (
    "Seconds of an update, medians. taps: two taps; plain: none; prunable: two taps and stochastic depth of 0.3; compiled:"
    f" taps with torch.compile; espnet: ESPnet2. {_MATMUL}"
)
GREYS = ("#aaaaaa", "#cccccc", "#e5e5e5")  # for what is not arithmetic
CAPTIONS = {
    "training": "Seconds of an update: median, lowest and highest turn; names as in the table Training.",
    "depth": "Time of the encoder by depth, relative to all layers; dashed: in proportion to the layers. With no layers what is"
    " left is the front end: 2-D convolutions with as many channels as the model is wide (256: the paper's, and ESPnet's) or"
    " fewer (32), or the recipes', over time alone.",
    "shares": "Where the time goes, by torch's profiler: kinds of operations in one update, and in the encoder (float32).",
    "planning": "tables: reading a data directory; check: checking it; score: scoring; plan: planning the batches of an epoch;"
    " dashed: in proportion to the size.",
}
ABOUT = {  # key -> what it is, and what it should be: at least, or at most
    "train_vs_espnet_fp32": ("update, two taps: times as fast as ESPnet2, float32", ">= 1.5"),
    "train_vs_espnet_fp32_recipe": ("the same with the recipes' front end, ESPnet2 with its own", ">= 1.5"),
    "train_vs_espnet_bf16": ("two taps, both in bfloat16", ">= 1.3"),
    "prunable_vs_plain_step": ("update of the prunable model (two taps, p = 0.3) / of the plain one", "<= 1.0"),
    "truncated_vs_plain_training": ("training of a recipe, truncated updates / plain training of fewer epochs", "<= 1.0"),
    "compiled_vs_eager_step_12_fp32": ("the same update with torch.compile / without, 12 layers, float32", ""),
    "compiled_vs_eager_step_12_bf16": ("the same in bfloat16", ""),
    "encode_vs_espnet_b1": ("encoder, both in float32, one utterance of 10 s: times as fast as ESPnet2", ">= 1.5"),
    "encode_vs_espnet_b16": ("the same, sixteen utterances of 4 s", ">= 1.5"),
    "encode_vs_espnet_b1_recipe": ("one utterance with the recipes' front end, ESPnet2 with its own, float32", ">= 1.5"),
    "encode_vs_espnet_b16_recipe": ("the same, sixteen", ">= 1.5"),
    "encode_vs_espnet_b1_bf16": ("both in bfloat16, one utterance", ">= 1.5"),
    "encode_vs_espnet_b16_bf16": ("both in bfloat16, sixteen", ">= 1.5"),
    "encode_vs_espnet_b1_auto": ("as `decode.precision: auto` runs it here, ESPnet2 in float32, one utterance", ">= 1.5"),
    "encode_vs_espnet_b16_auto": ("the same, sixteen", ">= 1.5"),
    "rtf_ratio_half": ("encoder with half the layers / with all, front end of 256 channels, as wide as the model", "<= 0.56"),
    "rtf_ratio_third": ("with a third of them", "<= 0.3933"),
    "rtf_ratio_quarter": ("with a quarter of them", "<= 0.31"),
    "rtf_ratio_half_32": ("encoder with half the layers / with all, front end of 32 channels", "<= 0.56"),
    "rtf_ratio_third_32": ("with a third of them", "<= 0.3933"),
    "rtf_ratio_quarter_32": ("with a quarter of them", "<= 0.31"),
    "rtf_ratio_half_recipe": ("encoder with half the layers / with all, the recipes' front end", "<= 0.53"),
    "rtf_ratio_third_recipe": ("with a third of them", "<= 0.3633"),
    "rtf_ratio_quarter_recipe": ("with a quarter of them", "<= 0.28"),
    "factor8_vs_factor4": ("encoder, the recipes' front end: times as fast at factor 8 as at factor 4", ">= 1.7"),
    "ort_int8_vs_torch_fp32": (
        "int8 file in onnxruntime, one utterance: times as fast as the encoder in torch, float32",
        ">= 2.0",
    ),
    "ort_int8_vs_espnet_fp32": ("the same beside ESPnet2's encoder, float32", ">= 3.0"),
    "ort_vs_torch_fp32": ("float32 file in onnxruntime beside the encoder in torch, float32", ""),
    "int8_ratio_half": ("int8 file with half the layers / with all", "<= 0.55"),
    "int8_ratio_third": ("with a third of them", "<= 0.3833"),
    "int8_ratio_quarter": ("with a quarter of them", "<= 0.3"),
    "peak_share_train_fp32": ("update: share of the machine's matrix-product speed, float32", ""),
    "peak_share_train_bf16": ("the same in bfloat16", ""),
    "peak_share_encode_fp32": ("encoder: the same share, float32", ""),
    "peak_share_encode_bf16": ("the same in bfloat16", ""),
    "greedy_vs_espnet": ("features to text units, 12 layers, sixteen utterances, float32: times as fast as ESPnet2", ""),
    "decode_bf16_vs_fp32": ("decoding a dev set with all layers: times as fast in bfloat16 as in float32", ""),
    "bf16_wer_change_full": ("its WER in bfloat16 minus that in float32, all layers, in points", ""),
    "bf16_wer_change_largest": ("and the largest change at any depth of the iterative plan", ""),
    "search_forwards_vs_naive": ("iterative search: layer passes / those of running every sub-model by itself", "<= 0.55"),
    "search_same_plan": ("whether it finds the plan of running every sub-model by itself", "yes"),
    "search_seconds": ("seconds of it", ""),
    "search_naive_seconds": ("seconds with every sub-model run by itself", ""),
    "search_beam_3_seconds": ("seconds with `--beam 3`", ""),
    "beam_3_worse_at_depths": (
        "depths at which the plan of `--beam 3` is worse on the dev set: it prefers the lowest layers",
        "",
    ),
    "fbank_x_realtime_per_core": ("features: times real time, one core", ">= 400"),
    "fbank_vs_espnet": ("times as fast as ESPnet2's front end", ""),
    "padding_share": ("share of padding in the batches of an epoch, lengths of 2 to 17 s", ""),
    "plan_10m_s": ("batch plan of 10 million utterances: seconds", "<= 120"),
    "plan_10m_gb": ("and GB of memory", "<= 4"),
    "manifest_10m_s": ("reading the tables of 10 million utterances: seconds", ""),
    "manifest_10m_gb": ("and GB of memory", ""),
    "validate_10m_s": ("checking a data directory of 10 million utterances: seconds", ""),
    "validate_10m_gb": ("and GB of memory", ""),
    "score_10m_s": ("scoring 10 million utterances, 10 % WER: seconds", ""),
    "score_10m_gb": ("and GB of memory", ""),
}
FRONT_ENDS = {"32": "conv2d, 32 channels", "256": "conv2d, 256 channels", "recipe": "conv1d"}
KEYS = ("figure", "aim", "what", "key")
Facts = dict[str, Any]


def write_page(folder: Path) -> Path:
    """Draw the figures and write performance.md beside performance.json; returns its path."""
    facts = read_json(folder / "performance.json", "`make bench`")
    with mpl.rc_context({**STYLE, "text.parse_math": True}):  # powers of ten; no name here holds a $
        figures = save_figures(dict(_figures(facts["raw"])), CAPTIONS, folder / "figures")
    rows = tuple(
        (said(facts[key]), judged(facts[key], aim), about, f"`{key}`") for key, (about, aim) in ABOUT.items() if key in facts
    )
    caption = "Where a figure holds for several sizes, it is the least favourable."
    skipped = {key: why for part in facts["parts"].values() for key, why in part["skipped"].items()}
    parts = [
        "# Performance",
        "Written by `make bench` from performance.json; do not edit. What is compared took turns in one run; ratios are medians"
        " over the turns.",
        "\n".join(f"- {', '.join(parts)}: {machine}." for machine, parts in _machines(facts["parts"]).items()),
        markdown(Table("keys", caption, KEYS, rows, words=range(4))),
        *_skipped(skipped),
        *_seconds("Training", _UPDATES, "type", facts["raw"], "train_"),
        *_seconds(
            "Encoder", f"Seconds of a batch, all layers, medians. {_BATCHES} {_MATMUL}", "batch", facts["raw"], "encode_"
        ),
        *_seconds(
            "The recipes' front end",
            f"Seconds of an update, and of a batch, medians; float32. {_BATCHES}",
            "work",
            facts["raw"],
            "recipe_",
        ),
        *_seconds("Exported files", "Seconds of one utterance, all layers, medians.", "length", facts["raw"], "runtime_"),
    ]
    for figure in figures:
        parts += [f"![{figure.stem}](figures/{figure.name})", CAPTIONS[figure.stem]]
    write_text(folder / "performance.md", "\n\n".join(parts) + "\n")
    return folder / "performance.md"


def said(value: float | bool | list[int]) -> str:
    """A figure in words: a number, yes or no, or what is in a list."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else f"{value:g}"


def judged(value: float | bool | list[int], aim: str) -> str:
    """The aim, and whether it is met.

    >>> judged(1.32, ">= 1.5")
    '>= 1.5: **missed**'
    """
    sign, _, limit = aim.partition(" ")
    if isinstance(value, bool | list) or not limit:
        met = aim in ("", said(value))
    else:
        met = value >= float(limit) if sign == ">=" else value <= float(limit)
    return f"{aim}{'' if met else ': **missed**'}"


def _machines(parts: Mapping[str, Facts]) -> dict[str, list[str]]:
    """Machine and versions -> the parts that were measured there."""
    found: dict[str, list[str]] = {}
    for part, facts in parts.items():
        machine = facts["environment"]
        said = f"{machine['cpu']}, {machine['cores']} cores; torch {machine['torch']}, Python {machine['python']}"
        found.setdefault(f"{said}; asrprune {machine['asrprune']}", []).append(part)
    return found


def _skipped(skipped: Mapping[str, str]) -> list[str]:
    reasons = sorted(set(skipped.values()))
    return [f"Not measured: {', '.join(f'`{k}`' for k, v in skipped.items() if v == reason)}: {reason}." for reason in reasons]


def _seconds(title: str, caption: str, kind: str, raw: Facts, prefix: str) -> list[str]:
    """A section with the medians of all that begins with ``prefix``; nothing if that was not measured."""
    cases = {key: facts["seconds"] for key, facts in raw.items() if key.startswith(prefix)}
    names = list(dict.fromkeys(name for taken in cases.values() for name in taken))
    lines = []
    for key, taken in cases.items():
        _, size, value = key.split("_")
        lines.append((f"{size} layers", value, *(f"{np.median(taken[name]):.4g}" if name in taken else "–" for name in names)))
    table = Table(prefix, caption, ("model", kind, *names), tuple(lines), words=range(2))
    return [f"## {title}", markdown(table)] if lines else []


def _figures(raw: Facts) -> list[tuple[str, Figure]]:
    made = []
    if any(key.startswith("train_") for key in raw):
        made.append(("training", training(raw)))
    if any(key.startswith("depth_") for key in raw):
        made.append(("depth", by_depth(raw)))
    profiled = {key: facts["shares"] for key, facts in raw.items() if facts.get("shares")}
    if profiled:
        made.append(("shares", shares(profiled)))
    if "plan" in raw:
        names = {"manifest": "tables", "plan": "plan", "validate": "check", "score": "score"}
        made.append(("planning", planning({name: raw[case] for case, name in names.items() if case in raw})))
    return made


def training(raw: Facts) -> Figure:
    """Bars: seconds of an update, a panel for each size and type."""
    keys = [key for key in raw if key.startswith("train_")]
    figure, panels = panel_grid(len(keys), width=3.0, height=1.6)
    for axes, key in zip(panels, keys, strict=True):
        taken = raw[key]["seconds"]
        medians = [float(np.median(seconds)) for seconds in taken.values()]
        errors = np.abs([[np.median(s) - min(s), max(s) - np.median(s)] for s in taken.values()]).T
        colours = [*COLOURS, GREY, *(colour for colour, _ in LOOKS[4:])][: len(taken)]
        axes.barh(list(taken), medians, xerr=errors, color=colours, error_kw={"elinewidth": 0.7})
        axes.invert_yaxis()
        _, size, kind = key.split("_")
        axes.set(title=f"{size} layers, {kind}", xlabel="seconds of an update")
    return figure


def by_depth(raw: Facts) -> Figure:
    """Relative time by relative depth, a panel for each front end."""
    series = {key: facts for key, facts in raw.items() if key.startswith("depth_")}
    front_ends = list(dict.fromkeys(key.split("_")[3] for key in series))
    figure, panels = panel_grid(len(front_ends), width=2.6, height=2.3, columns=3)
    for axes, front_end in zip(panels, front_ends, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8)
        shown = [key for key in series if key.split("_")[3] == front_end]
        for colour, key in zip(COLOURS, shown, strict=False):
            depths, taken = series[key]["depths"], series[key]["seconds"]
            values = [float(np.median(np.divide(taken[label], taken["full"]))) for label in depths]
            _, size, batch, _ = key.split("_")
            points = [depth / depths["full"] for depth in depths.values()]
            axes.plot(points, values, marker="o", color=colour, label=f"{size} layers, batch {batch[1:]}")
        axes.set(title=FRONT_ENDS[front_end], xlabel="share of the layers", ylabel="share of the time")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.05))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def shares(profiled: Mapping[str, Mapping[str, float]]) -> Figure:
    """Stacked bars: what kind of operation takes which share of the time."""
    figure, (axes,) = panel_grid(1, width=5.5, height=0.6 + 0.25 * len(profiled))
    kinds = list(next(iter(profiled.values())))
    left = np.zeros(len(profiled))
    for colour, kind in zip([*COLOURS, GREY, *GREYS], kinds, strict=False):
        values = np.array([facts[kind] for facts in profiled.values()])
        axes.barh([_title(key) for key in profiled], values, left=left, color=colour, label=kind)
        left += values
    axes.invert_yaxis()
    axes.set(xlabel="share of the time", xlim=(0, 1))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=4)
    return figure


def _title(key: str) -> str:
    work, size, kind = key.split("_")
    return f"{'update' if work == 'train' else 'encoder'}, {size} layers, {kind}"


def planning(cases: Mapping[str, Mapping[str, Facts]]) -> Figure:
    """Seconds and memory against the number of utterances."""
    figure, panels = panel_grid(2, width=2.6, height=2.2)
    for axes, key, name in zip(panels, ("seconds", "peak_gb"), ("seconds", "GB of memory"), strict=True):
        for colour, (case, sizes) in zip(COLOURS, cases.items(), strict=False):
            utterances, values = [int(size) for size in sizes], [facts[key] for facts in sizes.values()]
            axes.plot(utterances, values, marker="o", color=colour, label=case)
            if key == "seconds":
                axes.plot(utterances, [values[-1] * n / utterances[-1] for n in utterances], "--", color=GREY, linewidth=0.7)
        axes.set(xlabel="utterances", ylabel=name, xscale="log")
    panels[0].set_yscale("log")
    panels[1].set_ylim(bottom=0)
    panels[0].legend()
    return figure
