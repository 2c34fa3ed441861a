"""Comparisons: made-up records in which the answer is known, against the bootstrap that they should be made by."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import cell_record, cell_row, changed, grid_of, plan_of

from asrprune.compare.figures import CAPTIONS, _figures, cost, difference, draw, methods, one_model, similarity, strategies
from asrprune.compare.grid import Grid
from asrprune.compare.hierarchical import Resampled, Runs, of_speakers
from asrprune.compare.noninferiority import power, seeds_for
from asrprune.compare.record import CellRecord, CellRow
from asrprune.compare.summarise import summarise, update_overhead
from asrprune.compare.summary import ALL, ALONE, FULL, Comparison, Summary, System, shown
from asrprune.compare.tables import power_table, pruned_table, tables, wer_table
from asrprune.compare.verdict import verdict
from asrprune.config.schema import ScoringConfig
from asrprune.experiment.plan import Step
from asrprune.report.results import SetData
from asrprune.report.table import Table, latex, markdown
from asrprune.runtime.errors import UserError

RNG = np.random.default_rng(0)
UTTERANCES = 300
WORDS = RNG.integers(3, 9, size=UTTERANCES)
SPEAKERS = np.repeat(np.arange(30), 10)
GRID = grid_of(2, seeds=[1, 2])
RATES = {  # errors per word
    ("plain", ALONE, 2): 0.30, ("interctc", ALONE, 2): 0.20, ("plain", FULL, 4): 0.15, ("interctc", FULL, 4): 0.12,
    ("both", FULL, 4): 0.10, ("both", "iterative", 2): 0.21, ("both", "lowest", 2): 0.35,
    ("plain", "iterative", 2): 0.60, ("interctc", "iterative", 2): 0.40,
}  # fmt: skip


def row(method: str, strategy: str, depth: int) -> CellRow:
    errors = RNG.binomial(WORDS, RATES[method, strategy, depth])
    chosen_by = "iterative" if strategy in (FULL, ALONE) else strategy
    rtf = depth / 1000 if method == "both" else None
    return cell_row(chosen_by, depth, " ".join(map(str, errors)), rtf=rtf, speedup=4 / depth)


def record(method: str, depth: int, seed: int, alone: bool) -> CellRecord:
    own = [key for key in RATES if key[0] == method and (key[1] == ALONE) == alone]
    step = Step.of((1, 2, 3, 4), 9.0, {1: 70.0, 2: 20.0, 3: 12.0, 4: 9.5})
    made = cell_record(
        method, depth, seed, alone,
        data={"test": SetData(utterances=UTTERANCES, hours=0.2, text_sha256="ab")},
        search={"iterative": plan_of("iterative", 4, (step,), "cd", metric="wer", dev_set="dev")},
        similarity=np.eye(5).tolist(), words={"test": " ".join(map(str, WORDS))}, rows=tuple(row(*key) for key in own),
    )  # fmt: skip
    passes = 1000 * depth - 400 * (method == "both")
    return changed(made, training=changed(made.training, layer_passes=passes, seconds=60.0 * (depth + 2)))


@pytest.fixture(scope="module")
def records() -> dict[str, CellRecord]:
    made = {}
    for seed in (1, 2):
        for method in GRID.methods:
            made[f"{method}_4l_s{seed}"] = record(method, 4, seed, alone=False)
        for method in GRID.alone.methods:
            made[f"{method}_2l_s{seed}"] = record(method, 2, seed, alone=True)
    return made


@pytest.fixture(scope="module")
def summary(records: dict[str, CellRecord]) -> Summary:
    return summarise(GRID, records)


def find(summary: Summary, method: str, strategy: str, depth: int, seed: Any) -> System:
    rows = [r for r in summary.rows if (r.method, r.strategy, r.depth, r.seed) == (method, strategy, depth, seed)]
    assert len(rows) == 1
    return rows[0]


def errors_of(records: dict[str, CellRecord], name: str, strategy: str, depth: int) -> np.ndarray:
    rows = [r for r in records[name].rows if r.depth == depth and r.strategy == strategy]
    return np.array([int(n) for n in rows[0].errors.split()])


def paired(records: dict[str, CellRecord], names: tuple[str, str], seeds: tuple[int, ...], units: np.ndarray) -> Any:
    """The difference of the prunable and another model of two layers, of these two systems alone."""
    systems = {
        name: Runs(
            seeds, of_speakers(np.stack([errors_of(records, f"{name}_s{seed}", "iterative", 2) for seed in seeds]), units)
        )
        for name in names
    }
    return Resampled(systems, of_speakers(WORDS, units)).difference(*names)


def find_test(summary: Summary, depth: int, role: str) -> Comparison:
    (found,) = (test for test in summary.tests if (test.depth, test.role) == (depth, role))
    return found


def test_every_system_is_a_row_for_each_seed_and_for_all(summary: Summary) -> None:
    keys = {(r.method, r.strategy, r.depth, r.seed) for r in summary.rows}
    assert keys == {(*key, seed) for key in RATES for seed in (1, 2, ALL)}
    assert len(summary.rows) == len(keys)


def test_a_test_is_the_hierarchical_bootstrap_of_the_two_systems(summary: Summary, records: dict[str, CellRecord]) -> None:
    expected = paired(records, ("both_4l", "interctc_2l"), (1, 2), np.arange(UTTERANCES))
    found = find_test(summary, 2, "baseline")
    assert found.wer == find(summary, "both", "iterative", 2, ALL).wer
    assert found.alone_wer == find(summary, "interctc", ALONE, 2, ALL).wer
    assert found.difference == pytest.approx(expected.value, abs=1e-4)
    assert found.ci90 == pytest.approx(expected.bounds(0.9), abs=1e-4)
    assert found.margin == 0.5
    assert found.power == pytest.approx(power(expected.spread, 0.5), abs=1e-4)
    assert found.seeds_80 == seeds_for(0.8, expected.spread, 0.5)
    assert (found.seeds, found.alone_seeds) == (2, 2)


def test_rows_of_a_seed_are_of_its_own_errors_and_all_pool_them(summary: Summary, records: dict[str, CellRecord]) -> None:
    errors = [errors_of(records, f"both_4l_s{seed}", "iterative", 2).sum() for seed in (1, 2)]
    for seed in (1, 2):
        assert find(summary, "both", "iterative", 2, seed).wer == pytest.approx(100 * errors[seed - 1] / WORDS.sum(), abs=1e-4)
    found = find(summary, "both", "iterative", 2, ALL)
    assert found.wer == pytest.approx(50 * sum(errors) / WORDS.sum(), abs=1e-4)
    assert found.seeds == (1, 2)


def test_at_the_full_depth_the_baseline_is_its_full_model(summary: Summary) -> None:
    assert find_test(summary, 4, "baseline").alone_wer == find(summary, "interctc", FULL, 4, ALL).wer
    assert find_test(summary, 2, "plain").alone_wer == find(summary, "plain", ALONE, 2, ALL).wer


def test_a_search_without_steps_has_no_removals(records: dict[str, CellRecord]) -> None:
    search = {"iterative": plan_of("iterative", 4, (), "cd", metric="wer", dev_set="dev")}
    emptied = {name: changed(made, search=search) for name, made in records.items()}
    assert set(summarise(GRID, emptied).removals.values()) == {None}


@pytest.mark.parametrize(
    ("rate", "outcome"), [(0.02, "passes"), (0.205, "undecided"), (0.5, "worse")], ids=["passes", "undecided", "worse"]
)
def test_outcomes(records: dict[str, CellRecord], rate: float, outcome: str) -> None:
    others = dict(records)
    for seed in (1, 2):
        errors = np.random.default_rng(seed).binomial(WORDS, rate)
        whole = records[f"both_4l_s{seed}"]
        said = " ".join(map(str, errors))
        others[f"both_4l_s{seed}"] = changed(whole, rows=[changed(r, errors=said) if r.depth == 2 else r for r in whole.rows])
    assert find_test(summarise(GRID, others), 2, "baseline").outcome == outcome


def test_the_strategy_that_prunes_the_prunable_model_is_the_grids(records: dict[str, CellRecord]) -> None:
    by_lowest = Grid.model_validate({**GRID.model_dump(), "pruned_by": {"both": "lowest"}})
    summary = summarise(by_lowest, records)
    assert find_test(summary, 2, "plain").wer == find(summary, "both", "lowest", 2, ALL).wer


def test_without_the_model_trained_alone_there_is_no_test_and_with_fewer_seeds_they_are_drawn_apart(
    records: dict[str, CellRecord],
) -> None:
    some = {name: value for name, value in records.items() if name != "interctc_2l_s2"}
    found = find_test(summarise(GRID, some), 2, "baseline")
    assert (found.seeds, found.alone_seeds, found.seeds_80) == (2, 1, None)
    none = {name: value for name, value in some.items() if name != "interctc_2l_s1"}
    assert [(t.depth, t.role) for t in summarise(GRID, none).tests] == [(4, "plain"), (4, "baseline"), (2, "plain")]


def test_a_record_lends_its_speakers_to_the_others(records: dict[str, CellRecord], summary: Summary) -> None:
    said = " ".join(map(str, SPEAKERS))
    assert summary.speakers == {"test": None}
    one = {**records, "plain_2l_s2": changed(records["plain_2l_s2"], speakers={"test": said})}
    known = summarise(GRID, one)
    assert known.speakers == {"test": 30}
    expected = paired(records, ("both_4l", "interctc_2l"), (1, 2), SPEAKERS)
    assert find_test(known, 2, "baseline").ci90 == pytest.approx(expected.bounds(0.9), abs=1e-4)
    assert find_test(known, 2, "baseline").ci90 != find_test(summary, 2, "baseline").ci90
    assert "the intervals include the choice of seeds and of the 30 speakers." in pruned_table(known, GRID, "test").caption
    assert "seeds and of utterances (the records do not name the speakers)." in pruned_table(summary, GRID, "test").caption
    other = {**one, "both_4l_s1": changed(records["both_4l_s1"], speakers={"test": said.replace("29", "28")})}
    with pytest.raises(UserError, match="test: the records of both_4l_s1 and plain_2l_s2 name different speakers"):
        summarise(GRID, dict(sorted(other.items())))


def test_one_speaker_has_no_spread_so_utterances_are_drawn(records: dict[str, CellRecord], summary: Summary) -> None:
    one = {"test": " ".join(["0"] * UTTERANCES)}
    found = summarise(GRID, {name: changed(value, speakers=one) for name, value in records.items()})
    assert (found.speakers, found.tests) == ({"test": None}, summary.tests)


def test_what_an_update_costs_apart_from_its_layers_is_fitted(records: dict[str, CellRecord]) -> None:
    assert update_overhead(GRID, records) == pytest.approx(2.0)
    assert update_overhead(GRID, {"plain_4l_s1": records["plain_4l_s1"]}) is None
    steeper = {
        name: changed(value, training=changed(value.training, seconds=9.0 * value.depth - 5)) for name, value in records.items()
    }
    assert update_overhead(GRID, steeper) is None


def test_nothing_recorded_and_other_data_are_said(records: dict[str, CellRecord]) -> None:
    with pytest.raises(UserError, match="no cell of the grid is recorded yet"):
        summarise(GRID, {})
    other = changed(records["both_4l_s2"], data={})
    with pytest.raises(UserError, match="both_4l_s2 and plain_4l_s1 were decoded on different data"):
        summarise(GRID, {**records, "both_4l_s2": other})
    trained_on = records["both_4l_s2"].trained_on
    for part, same in (({"features": "of another machine"}, True), ({"texts": "other"}, False)):
        train = trained_on.train.model_copy(update=part)
        other = changed(records["both_4l_s2"], trained_on=trained_on.model_copy(update={"train": train}))
        refused = pytest.raises(UserError, match="both_4l_s2 and plain_4l_s1 were trained on different data")
        with nullcontext() if same else refused:
            summarise(GRID, {**records, "both_4l_s2": other})


# ---- what is shown


def test_tables_show_all_seeds_and_mark_what_passes(summary: Summary) -> None:
    table = wer_table(summary, GRID, "test")
    assert table.header == ("method", "layers", "4 layers", "2 layers")
    lines = {cells[:2]: cells[2:] for cells in table.rows}
    pooled = find(summary, "both", "lowest", 2, ALL)
    low, high = pooled.wer_ci95
    assert lines["both", "lowest"][1] == f"{pooled.wer:.1f} [{low:.1f}, {high:.1f}]"
    assert lines["both", "lowest"][0] == lines["both", "iterative"][0]
    depths = pruned_table(summary, GRID, "test")
    assert depths.header == ("depth", "pruned", "alone, plain", "difference", "alone, interctc", "difference")
    assert [cells[0] for cells in depths.rows] == ["4", "2"]
    plain, baseline = find_test(summary, 2, "plain"), find_test(summary, 2, "baseline")
    assert depths.rows[1][1:3] == (f"{plain.wer:.1f}", f"{plain.alone_wer:.1f}")
    low, high = plain.ci90
    assert depths.rows[1][3] == f"{plain.difference:+.1f} [{low:+.1f}, {high:+.1f}] ✓"
    assert depths.rows[1][5].endswith(" ?")
    assert (plain.outcome, baseline.outcome) == ("passes", "undecided")
    assert f"{baseline.ci90[1]:+.2f}" in power_table(summary, GRID, "test").rows[3]
    assert "RTF" not in depths.header


def table(summary: Summary, name: str) -> Table:
    (found,) = (table for table in tables(summary, GRID) if table.name == name)
    return found


def test_what_running_costs_has_a_table_if_it_was_measured(summary: Summary) -> None:
    assert table(summary, "speed").rows == (("4", "0.40", "0.0040", "1.0"), ("2", "0.20", "0.0020", "2.0"))
    assert "speed" not in [table.name for table in tables(changed(summary, speed=()), GRID)]


def test_seeds_that_are_not_known_are_left_out_and_too_many_are_said(summary: Summary) -> None:
    tests = [changed(test, seeds_80=None, seeds_90=None) for test in summary.tests]
    assert {cells[5:] for cells in power_table(changed(summary, tests=tests), GRID, "test").rows} == {("> 99", "> 99")}
    one = power_table(changed(summary, tests=[changed(test, seeds=1) for test in tests]), GRID, "test")
    assert {cells[5:] for cells in one.rows} == {("–", "–")}
    assert "With one seed this spread is not known" in one.caption


def test_rows_of_all_seeds_are_shown_though_one_is_not_complete(records: dict[str, CellRecord]) -> None:
    begun = {name: record for name, record in records.items() if record.seed == 1 or name == "both_4l_s2"}
    summary = summarise(GRID, begun)
    rows = shown(summary, "test")
    assert {row.seed for row in rows} == {ALL}
    assert {(row.method, row.strategy, row.depth) for row in rows} == set(RATES)
    assert {row.method for row in rows if len(row.seeds) == 2} == {"both"}
    caption = pruned_table(summary, GRID, "test").caption
    assert caption.endswith("1 to 2 seeds: the intervals include the choice of seeds and of utterances (the records do not name"
                            " the speakers); with one seed, only the latter.")  # fmt: skip


def test_of_one_seed_it_is_said_that_no_interval_holds_it(records: dict[str, CellRecord]) -> None:
    summary = summarise(GRID, {name: record for name, record in records.items() if record.seed == 1})
    assert {row.seed for row in shown(summary, "test")} == {1}
    assert "One seed: the intervals include the choice of utterances (the" in pruned_table(summary, GRID, "test").caption


def test_published_figures_are_rows_of_their_set_and_unknown_ones_stay_empty(summary: Summary) -> None:
    row = {"model": "CTC", "source": "somebody 2021", "set": "test", "wer": {6: 10.25, 4: 12.0, 2: None}}
    grid = Grid.model_validate({**GRID.model_dump(), "published": [row, {**row, "set": "other"}]})
    table = wer_table(summary, grid, "test")
    assert table.header[2:] == ("6 layers", "4 layers", "2 layers")
    assert table.rows[-1] == ("CTC", "somebody 2021", "10.2", "12.0", "")
    assert [cells[2] for cells in table.rows[:-1]] == ["–"] * (len(table.rows) - 1)
    assert len(table.rows) == len(wer_table(summary, GRID, "test").rows) + 1
    assert "not available" in table.caption
    assert "not available" not in wer_table(summary, GRID, "test").caption


def test_training_cost_is_summed_over_depths_for_one_seed(summary: Summary) -> None:
    rows = {cells[0]: cells[1:] for cells in table(summary, "cost").rows}
    assert rows["both, once"] == ("1", "1,000", "4", f"{(3.6 + 2) / (4 + 2):.2f}", "6")
    assert rows["plain, once"][3] == "1.00"
    assert rows["interctc, for each of 4, 2"] == ("2", "2,000", "6", f"{(6 + 2 * 2) / 6:.2f}", "10")
    assert "f = 2 layers is the cost of an update apart from its layers" in table(summary, "cost").caption
    assert "Models trained: " not in table(summary, "cost").caption
    one, *others = summary.cost
    mixed = changed(summary, cost=[changed(one, precision="bf16"), *others])
    unrecorded = f"{len(others)} in a precision that was not recorded"
    assert table(mixed, "cost").caption.endswith(f"Models trained: 1 in bf16, {unrecorded}.")
    assert "two views" not in table(summary, "cost").caption
    two_views = changed(summary, cost=[changed(row, views=2) if row.method == "both" else row for row in summary.cost])
    assert table(two_views, "cost").rows[0][4] == f"{(3.6 + 2 * 2) / (4 + 2):.2f}"
    assert "An update with two views of each utterance counts twice. f = 2" in table(two_views, "cost").caption
    unknown = table(changed(summary, update_overhead=None), "cost")
    assert {cells[4] for cells in unknown.rows} == {"–"}
    assert "It is left out" in unknown.caption


def test_a_method_that_is_not_pruned_is_a_row_of_the_models_trained_for_each_depth(records: dict[str, CellRecord]) -> None:
    cheap = {}
    for name, value in records.items():
        if value.method == "plain":
            rows = [row for row in value.rows if row.depth == value.depth]
            cheap[name.replace("plain", "cheap")] = changed(value, method="cheap", alone=True, rows=rows)
    values = {**GRID.model_dump(), "methods": {**GRID.methods, "cheap": {}}}
    values["alone"] = {"methods": ["plain", "interctc", "cheap"], "depths": [2], "unpruned": ["cheap"]}
    grid = Grid.model_validate(values)
    summary = summarise(grid, {**records, **cheap})
    rows = {cells[:2]: cells[2:] for cells in wer_table(summary, grid, "test").rows}
    assert rows["cheap", "trained for each depth"] == rows["plain", "trained for each depth"]
    assert [key for key in rows if key[0] == "cheap"] == [("cheap", "trained for each depth")]
    assert "cheap, once" in [cells[0] for cells in tables(summary, grid)[-1].rows]
    assert {test.role for test in summary.tests} == {"plain", "baseline"}


def test_latex_escapes_what_is_special_in_it(summary: Summary) -> None:
    for table in tables(summary, GRID):
        text = latex(table)
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(rows) == len(table.rows) + 1
        assert all(line.count("&") == len(table.header) - 1 for line in rows)
        assert not any(character in text.replace(f"\\{character}", "") for character in "%#_✓✗")
        assert markdown(table).splitlines()[1].count("---") == len(table.header)


def test_figures_are_drawn_of_what_there_is(summary: Summary, tmp_path: Path) -> None:
    paths = draw(summary, GRID, tmp_path)
    assert [path.stem for path in paths] == list(CAPTIONS)
    assert all(path.stat().st_size > 5000 for path in paths)
    drawn = similarity(summary.similarity, {"plain": None, "both": [0.9, 0.1, 0.3, 0.2]})
    assert [len(axes.child_axes) for axes in drawn.axes[:2]] == [0, 1]
    bare = changed(summary, removals={}, similarity={"plain": None})
    assert [path.stem for path in draw(bare, GRID, tmp_path)] == ["one_model", "methods", "strategies", "difference", "cost"]
    assert {path.stem for path in tmp_path.glob("*.png")} == {"one_model", "methods", "strategies", "difference", "cost"}


def test_figures_are_drawn_before_the_prunable_model_is_recorded(records: dict[str, CellRecord], tmp_path: Path) -> None:
    alone = summarise(GRID, {name: record for name, record in records.items() if record.alone})
    assert all(path.stat().st_size > 5000 for path in draw(alone, GRID, tmp_path))


def test_while_none_of_the_methods_to_compare_is_recorded_only_the_others_are_drawn(summary: Summary, tmp_path: Path) -> None:
    others = [changed(row, method="other") for row in summary.rows if row.strategy != ALONE]
    bare = changed(summary, rows=others, tests=[], removals={}, similarity={})
    assert [path.stem for path in draw(bare, GRID, tmp_path)] == ["methods", "cost"]


def test_the_cost_of_a_grid_that_is_not_complete_names_the_depths_that_are_trained(summary: Summary) -> None:
    trained = [row for row in summary.cost if (row.method, row.alone) in (("both", False), ("plain", True))]
    partial = changed(summary, cost=trained)
    labels = [label.get_text() for label in cost(partial, GRID).axes[0].get_yticklabels()]
    assert labels == ["both, once", "plain, for 2 layers"]
    names = [cells[0] for cells in table(partial, "cost").rows]
    assert names[-2:] == ["plain, for each of 2", "interctc, for each of the depths"]


def test_only_the_prunable_model_has_a_colour_in_the_figure_of_costs(summary: Summary) -> None:
    drawn = {(bar.get_y(), bar.get_facecolor()) for bar in cost(summary, GRID).axes[0].patches}
    assert len(drawn) == len({y for y, _ in drawn}) == 3
    assert [y for y, colour in drawn if colour[0] != colour[2]] == [min(y for y, _ in drawn)]


@pytest.mark.parametrize("draw_lines", [methods, strategies])
def test_lines_by_depth_differ_in_place_and_in_look(summary: Summary, draw_lines: Any) -> None:
    (axes,) = draw_lines(summary, GRID, ["test"]).axes
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    assert len(lines) > 3
    assert len({line.get_xdata()[0] for line in lines}) == len(lines)
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(lines)


@pytest.mark.parametrize(
    ("seeds", "labels"), [((1, 2, ALL), {"all seeds", "each seed", "margin"}), ((1, ALL), {"difference", "margin"})]
)
def test_a_difference_of_one_seed_is_drawn_once(summary: Summary, seeds: tuple[Any, ...], labels: set[str]) -> None:
    rows = [row for row in summary.rows if row.seed in seeds]
    legend = difference(changed(summary, rows=rows), GRID, ["test"]).axes[0].get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == labels


@pytest.mark.parametrize(("wer", "from_zero"), [(42.0, False), (1.5, True)])
def test_depth_grows_to_the_right_and_rates_fill_the_figure(summary: Summary, wer: float, from_zero: bool) -> None:
    rows = [changed(row, wer=wer, wer_ci95=(wer - 1, wer + 1)) for row in summary.rows]
    (axes,) = one_model(changed(summary, rows=rows), GRID, ["test"]).axes
    assert (axes.get_ylim()[0] == 0) == from_zero
    for panel in (axes, *difference(summary, GRID, ["test"]).axes):
        assert {*panel.get_xticks()} == {2, 4}
        assert panel.get_xlim()[0] < panel.get_xlim()[1]


def test_a_comparison_of_phones_says_so_and_one_of_words_is_as_ever(
    records: dict[str, CellRecord], summary: Summary, tmp_path: Path
) -> None:
    phones = summarise(GRID, records, ScoringConfig(unit="phone"))
    assert phones.plain() == {**summary.plain(), "scoring": {"unit": "phone"}}
    phones.write(tmp_path / "summary.json")
    assert Summary.read(tmp_path / "summary.json") == phones
    said = " ".join([*(table.caption for table in tables(phones, GRID)), *verdict(phones, GRID, "test")])
    assert "PER (%) on test" in said
    assert "10 % of the phone error rate of the model trained alone" in said
    assert not re.search("WER|word", said)
    labels = [axes.get_ylabel() for figure in _figures(phones, GRID).values() for axes in figure.axes]
    assert {"PER (%)", "PER (%), log scale", "PER on dev (%)", "pruned - alone (points of PER)"} <= {*labels}
    assert not re.search("WER|word", " ".join(labels))
