"""The figures show the numbers that they are drawn from."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes
from records import changed

from asrprune.report import plots
from asrprune.report.results import collect, read_log


def curves(axes: Axes) -> dict[str, list[float]]:
    """The heights of the labelled lines."""
    return {str(line.get_label()): list(np.asarray(line.get_ydata(), dtype=float)) for line in axes.lines}


def test_pareto_against_its_definition() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        rows = [
            SimpleNamespace(rtf=rtf, wer=wer) for rtf, wer in {(*pair,) for pair in generator.integers(0, 9, (30, 2)).tolist()}
        ]
        unbeaten = [
            row for row in rows if not any(other.rtf <= row.rtf and other.wer <= row.wer and other != row for other in rows)
        ]
        assert plots.pareto(rows) == sorted(unbeaten, key=lambda row: row.rtf)


def test_wer_by_depth_shows_rows_and_intervals(experiment: Path) -> None:
    results = collect(experiment)
    axes = plots.wer_by_depth(results).axes[0]
    rows = [row for row in results.rows if row.set == "test" and row.strategy == "iterative"][::-1]
    assert axes.get_title() == "test"
    drawn = [list(np.asarray(line.get_ydata(), dtype=float)) for line in axes.lines]
    assert [row.wer for row in rows] in drawn
    bars = [segment[:, 1].tolist() for bar in axes.collections for segment in bar.get_segments()]  # type: ignore[attr-defined]
    for row in rows:
        assert any(bar == pytest.approx(row.wer_ci95) for bar in bars)
        assert axes.get_ylim()[0] < row.wer_ci95[0]


def test_the_scale_is_logarithmic_only_where_values_explode(experiment: Path) -> None:
    results = collect(experiment)
    assert plots.wer_by_depth(results).axes[0].get_yscale() == "symlog"
    tame = changed(results, rows=[row for row in results.rows if row.wer < 8])
    axes = plots.wer_by_depth(tame).axes[0]
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "WER (%)")


def test_a_wer_of_zero_can_be_drawn(experiment: Path) -> None:
    results = collect(experiment)
    results = changed(
        results, rows=[changed(row, wer=0.0, wer_ci95=(0.0, 0.0)) if row.depth == 12 else row for row in results.rows]
    )
    plots.wer_by_depth(results).draw_without_rendering()
    plots.wer_vs_rtf(results).draw_without_rendering()


def test_wer_vs_rtf_shows_points_front_and_depths(experiment: Path) -> None:
    results = collect(experiment)
    axes = plots.wer_vs_rtf(results).axes[0]
    rows = [row for row in results.rows if row.set == "test" and row.strategy == "svcca" and row.depth < 12]
    assert curves(axes)["svcca"] == [row.wer for row in rows[::-1]]
    front = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert len(front) == 1
    assert len(np.asarray(front[0].get_xdata())) == 6  # iterative at 2 ... 10, and the full model
    assert {text.get_text() for text in axes.texts} == {"2", "4", "6", "8", "10", "12"}


def test_layers_kept_is_the_plans(experiment: Path) -> None:
    results = collect(experiment)
    two = changed(results.search["lowest"], steps=results.search["lowest"].steps[:2])  # a plan with depths 12 and 10 only
    results = changed(results, search={**results.search, "lowest": two})
    figure = plots.layers_kept(results)
    iterative, lowest = figure.axes[0].collections[0].get_array(), figure.axes[3].collections[0].get_array()
    assert np.asarray(iterative)[3].tolist() == [1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 1]  # depth 6: layers 1-4, 6, 12
    assert np.ma.getmaskarray(np.ma.asarray(lowest)).all(axis=1).tolist() == [False, False, True, True, True, True]


def test_svcca_has_one_fixed_colour_scale(experiment: Path) -> None:
    with np.load(experiment / "svcca/dev.npz") as stored:
        similarity, cka = stored["similarity"], stored["cka"]
    figure = plots.svcca([experiment / "svcca/dev.npz"])
    for axes, matrix in zip(figure.axes, (similarity, cka), strict=False):
        (image,) = axes.images
        np.testing.assert_array_equal(np.asarray(image.get_array()), matrix)
        assert image.get_clim() == (0, 1)
        assert axes.texts[0].get_text() == "1"
        assert axes.texts[1].get_text() == f"{matrix[0, 1]:.2f}".removeprefix("0")
    assert "21,540 frames" in figure.axes[0].get_title()


def test_influence_is_a_bar_above_each_layer_if_the_file_has_it(experiment: Path) -> None:
    path = experiment / "svcca/dev.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    left, right = plots.svcca([path]).axes[:2]
    (bars,) = left.child_axes
    assert [bar.get_height() for bar in bars.patches] == arrays.pop("influence").tolist()
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars.patches] == pytest.approx(range(1, 13))
    assert bars.get_xlim() == left.get_xlim()
    assert right.child_axes == []
    np.savez(path, **arrays)
    assert all(axes.child_axes == [] for axes in plots.svcca([path]).axes[:2])


def test_draw_svcca_writes_beside_the_matrix(experiment: Path) -> None:
    assert plots.draw_svcca(experiment / "svcca/dev.npz") == experiment / "svcca/dev.png"
    assert (experiment / "svcca/dev.png").read_bytes()[:4] == b"\x89PNG"


def test_training_shows_the_log(experiment: Path) -> None:
    results = collect(experiment)
    steps, epochs = read_log(experiment / "train.jsonl")
    wer, loss, rate = plots.training(results, experiment / "train.jsonl").axes
    for tap, label in {"3": "layer 3", "12": "layer 12 (full model)"}.items():
        assert curves(wer)[label] == [epoch["dev_wer"][tap] for epoch in epochs]
        assert curves(loss)[label] == [epoch["dev_loss"][tap] for epoch in epochs]
    assert curves(wer)["averaged"] == [epochs[member.epoch - 1]["dev_wer"]["12"] for member in results.model.members]
    assert curves(loss)["training, weighted sum"] == [epoch["train_loss"] for epoch in epochs]
    assert np.asarray(rate.lines[0].get_ydata()) == pytest.approx([1e3 * step["lr"] for step in steps])


def test_known_strategies_keep_their_colours_and_others_get_their_own() -> None:
    names = ["iterative", "mine", "svcca", "yours"]
    looks = [plots._look(name, names) for name in names]
    assert len(set(looks)) == 4
    assert plots._look("svcca", ["svcca"]) == looks[2]


def test_only_what_has_numbers_is_drawn_and_old_figures_go(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "DPI", 50)
    for path in (experiment / "bench.json", experiment / "svcca/dev.npz", experiment / "train.jsonl"):
        path.unlink()
    figures = experiment / "figures"
    figures.mkdir()
    for name in ("wer_vs_rtf.png", "training.png", "mine.png"):
        (figures / name).write_bytes(b"old")
    drawn = plots.draw(collect(experiment), experiment, figures)
    assert [path.name for path in drawn] == ["wer_by_depth.png", "layers_kept.png"]
    assert sorted(path.name for path in figures.iterdir()) == ["layers_kept.png", "mine.png", "wer_by_depth.png"]


def test_the_full_model_alone_can_be_drawn(experiment: Path) -> None:
    results = collect(experiment)
    results = changed(results, rows=[row for row in results.rows if row.depth == 12])
    plots.wer_by_depth(results).draw_without_rendering()
    plots.wer_vs_rtf(results).draw_without_rendering()
