"""Comparisons: made-up records in which the answer is known, against the paired bootstrap of the scoring."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrprune.decode.bootstrap import PairedBootstrap, compare, resampled_rates
from asrprune.errors import UserError
from asrprune.paper.grid import Grid
from asrprune.paper.plots import CAPTIONS, draw
from asrprune.paper.record import Record
from asrprune.paper.summary import ALL, ALONE, FULL, Row, Summary, summarise
from asrprune.paper.tables import latex, markdown, pruned_table, shown, tables, verdict, wer_table

RNG = np.random.default_rng(0)
UTTERANCES = 300
WORDS = RNG.integers(3, 9, size=UTTERANCES)
GRID = Grid.model_validate(
    {
        "config": "conf/train.yaml",
        "seeds": [1, 2],
        "methods": {"plain": {}, "interctc": {}, "both": {}},
        "alone": {"methods": ["plain", "interctc"], "depths": [2]},
        "prunable": "both",
        "plain": "plain",
        "baseline": "interctc",
    }
)
RATES = {  # errors per word
    ("plain", ALONE, 2): 0.30, ("interctc", ALONE, 2): 0.20, ("plain", FULL, 4): 0.15, ("interctc", FULL, 4): 0.12,
    ("both", FULL, 4): 0.10, ("both", "greedy", 2): 0.21, ("both", "top", 2): 0.35,
    ("plain", "greedy", 2): 0.60, ("interctc", "greedy", 2): 0.40,
}  # fmt: skip


def row(method: str, strategy: str, depth: int) -> Row:
    errors = RNG.binomial(WORDS, RATES[method, strategy, depth])
    return {
        "set": "test", "strategy": "greedy" if strategy in (FULL, ALONE) else strategy,
        "depth": depth, "keep": list(range(depth)),
        "params_m": depth / 10, "rtf": depth / 1000 if method == "both" else None, "speedup": 4 / depth,
        "errors": " ".join(map(str, errors)),
    }  # fmt: skip


def record(method: str, depth: int, seed: int, alone: bool) -> Record:
    own = [key for key in RATES if key[0] == method and (key[1] == ALONE) == alone]
    without = {"1": 70.0, "2": 20.0, "3": 12.0, "4": 9.5}
    steps = [{"depth": 4, "keep": [1, 2, 3, 4], "score": 9.0, "without": without}]
    return {
        "format": 1, "method": method, "depth": depth, "seed": seed, "alone": alone,
        "trained_on": {"format": 1, "train": {"utterances": 900}},
        "data": {"test": {"utterances": UTTERANCES, "hours": 0.2, "text_sha256": "ab"}},
        "model": {"asrprune": "0.1.0", "model_sha256": "cd"}, "environment": {"python": "3.11"},
        "training": {"steps": 100, "layer_passes": 100_000 * depth - 40_000 * (method == "both"), "seconds": 60.0 * depth},
        "search": {"greedy": {"metric": "wer", "dev_set": "dev", "steps": steps}},
        "similarity": np.eye(5).tolist(), "words": {"test": " ".join(map(str, WORDS))},
        "rows": [row(*key) for key in own],
    }  # fmt: skip


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    made = {}
    for seed in (1, 2):
        for method in GRID.methods:
            made[f"{method}_4l_s{seed}"] = record(method, 4, seed, alone=False)
        for method in GRID.alone.methods:
            made[f"{method}_2l_s{seed}"] = record(method, 2, seed, alone=True)
    return made


@pytest.fixture(scope="module")
def summary(records: dict[str, Record]) -> Summary:
    return summarise(GRID, records)


def find(summary: Summary, method: str, strategy: str, depth: int, seed: Any) -> Row:
    rows = [
        r for r in summary["rows"] if (r["method"], r["strategy"], r["depth"], r["seed"]) == (method, strategy, depth, seed)
    ]
    assert len(rows) == 1
    return rows[0]


def errors_of(records: dict[str, Record], name: str, strategy: str, depth: int) -> np.ndarray:
    rows = [r for r in records[name]["rows"] if r["depth"] == depth and r["strategy"] == strategy]
    return np.array([int(n) for n in rows[0]["errors"].split()])


def paired(errors_a: np.ndarray, errors_b: np.ndarray, words: np.ndarray) -> PairedBootstrap:
    """These two systems alone, on the same draws."""
    observed = 100 * (errors_a.sum() - errors_b.sum()) / words.sum()
    return compare(observed, *resampled_rates(np.stack([errors_a, errors_b]), words), margin=0.5)


def test_every_system_is_a_row_for_each_seed_and_for_all(summary: Summary) -> None:
    keys = {(r["method"], r["strategy"], r["depth"], r["seed"]) for r in summary["rows"]}
    assert keys == {(*key, seed) for key in RATES for seed in (1, 2, ALL)}
    assert len(summary["rows"]) == len(keys)


def test_a_difference_is_the_paired_bootstrap_of_the_two_systems(summary: Summary, records: dict[str, Record]) -> None:
    pruned, alone = errors_of(records, "both_4l_s1", "greedy", 2), errors_of(records, "interctc_2l_s1", "greedy", 2)
    expected = paired(pruned, alone, WORDS)
    found = find(summary, "both", "greedy", 2, 1)
    assert found["wer"] == pytest.approx(100 * pruned.sum() / WORDS.sum(), abs=1e-4)
    assert found["baseline_wer"] == pytest.approx(100 * alone.sum() / WORDS.sum(), abs=1e-4)
    assert found["diff"] == pytest.approx(expected.difference, abs=1e-4)
    assert found["diff_ci95"] == pytest.approx(expected.ci95, abs=1e-4)
    assert found["p_worse"] == pytest.approx(expected.probability_worse, abs=1e-4)


def test_all_seeds_pool_the_errors_of_each_utterance(summary: Summary, records: dict[str, Record]) -> None:
    pruned = sum(errors_of(records, f"both_4l_s{seed}", "greedy", 2) for seed in (1, 2))
    alone = sum(errors_of(records, f"plain_2l_s{seed}", "greedy", 2) for seed in (1, 2))
    expected = paired(np.asarray(pruned), np.asarray(alone), 2 * WORDS)
    found = find(summary, "both", "greedy", 2, ALL)
    assert found["plain_diff"] == pytest.approx(expected.difference, abs=1e-4)
    assert found["plain_diff_ci95"] == pytest.approx(expected.ci95, abs=1e-4)


def test_at_the_full_depth_the_baseline_is_its_full_model(summary: Summary) -> None:
    assert find(summary, "both", FULL, 4, ALL)["baseline_wer"] == find(summary, "interctc", FULL, 4, ALL)["wer"]
    assert find(summary, "interctc", FULL, 4, ALL)["diff"] == 0.0
    assert find(summary, "interctc", ALONE, 2, ALL)["diff"] == 0.0
    alone = find(summary, "plain", ALONE, 2, ALL)
    assert alone["diff"] == pytest.approx(alone["wer"] - alone["baseline_wer"], abs=1e-3)


def test_without_the_model_trained_alone_there_is_no_difference(records: dict[str, Record]) -> None:
    some = {name: value for name, value in records.items() if name != "interctc_2l_s2"}
    summary = summarise(GRID, some)
    assert find(summary, "both", "greedy", 2, 1)["diff"] is not None
    lacking = find(summary, "both", "greedy", 2, 2)
    assert (lacking["baseline_wer"], lacking["diff"], lacking["p_worse"]) == (None, None, None)
    assert lacking["plain_diff"] is not None
    assert find(summary, "both", "greedy", 2, ALL)["diff"] is None


def test_nothing_recorded_and_other_data_are_said(records: dict[str, Record]) -> None:
    with pytest.raises(UserError, match="no cell of the grid is recorded yet"):
        summarise(GRID, {})
    other = {**records["both_4l_s2"], "data": {"test": {"utterances": 7}}}
    with pytest.raises(UserError, match="both_4l_s2 and plain_4l_s1 were decoded on different data"):
        summarise(GRID, {**records, "both_4l_s2": other})
    other = {**records["both_4l_s2"], "trained_on": {"train": {"utterances": 7}}}
    with pytest.raises(UserError, match="both_4l_s2 and plain_4l_s1 were trained on different data"):
        summarise(GRID, {**records, "both_4l_s2": other})


# ---- what is shown


def test_tables_show_the_pooled_rows_and_mark_what_is_worse(summary: Summary) -> None:
    table = wer_table(shown(summary, "test"), GRID, "test")
    assert table.header == ("method", "layers", "4 layers", "2 layers")
    lines = {cells[:2]: cells[2:] for cells in table.rows}
    pooled = find(summary, "both", "top", 2, ALL)
    low, high = pooled["wer_ci95"]
    assert lines["both", "top"][1] == f"{pooled['wer']:.1f} [{low:.1f}, {high:.1f}]*"
    assert lines["both", "top"][0] == lines["both", "greedy"][0]
    assert not lines["interctc", "trained for each depth"][1].endswith("*")
    depths = pruned_table(summary, shown(summary, "test"), GRID, "test").rows
    assert [cells[:4] for cells in depths] == [("4", "0.40", "0.0040", "1.0"), ("2", "0.20", "0.0020", "2.0")]
    own = find(summary, "both", "greedy", 2, ALL)
    shown_wer = [f"{own[key]:.1f}" for key in ("wer", "baseline_wer", "plain_wer")]
    assert [depths[1][column] for column in (4, 5, 8)] == shown_wer
    assert depths[1][9].startswith(f"{own['plain_diff']:+.1f} [")


def test_while_a_seed_is_not_complete_another_one_is_shown(records: dict[str, Record], summary: Summary) -> None:
    assert {row["seed"] for row in shown(summary, "test")} == {ALL}
    begun = {name: record for name, record in records.items() if record["seed"] == 1 or name == "both_4l_s2"}
    rows = shown(summarise(GRID, begun), "test")
    assert {row["seed"] for row in rows} == {1}
    assert {(row["method"], row["strategy"], row["depth"]) for row in rows} == set(RATES)


def test_the_verdict_names_the_depths_at_which_pruning_costs_something() -> None:
    base = {"set": "test", "method": "both", "strategy": "greedy", "seed": 1, "plain_diff": None, "plain_diff_ci95": None}
    rows = [
        {**base, "depth": 2, "diff": 3.04, "diff_ci95": [2.1, 4.0], "plain_diff": 4.0, "plain_diff_ci95": [3.1, 4.9]},
        {**base, "depth": 6, "diff": -0.4, "diff_ci95": [-0.9, 0.1], "plain_diff": -0.9, "plain_diff_ci95": [-1.5, -0.2]},
        {**base, "depth": 3, "diff": 0.5, "diff_ci95": [0.1, 0.9]},
        {**base, "strategy": FULL, "depth": 8, "diff": 0.6, "diff_ci95": [0.2, 1.0]},
        {**base, "depth": 4, "diff": 0.4, "diff_ci95": [0.0, 0.8]},
        {**base, "depth": 5, "diff": None, "diff_ci95": None},
        {**base, "strategy": "top", "depth": 6, "diff": 9.0, "diff_ci95": [8.0, 10.0]},
    ]
    begin = "test: both, pruned by its greedy plan, against"
    bad = "8 layers (+0.6 [+0.2, +1.0] points), 3 layers (+0.5 [+0.1, +0.9] points) and 2 layers (+3.0 [+2.1, +4.0] points)."
    first, second = verdict({"rows": rows}, GRID, "test")
    assert first == f"{begin} interctc trained for each depth: not worse with 6 and 4 layers; worse with {bad}"
    assert second.startswith(f"{begin} plain trained for each depth: not worse with 6 layers; worse with 2 layers (+4.0 [")
    assert verdict({"rows": rows[1:2]}, GRID, "test")[0] == f"{begin} interctc trained for each depth: not worse with 6 layers."
    assert verdict({"rows": rows[5:6]}, GRID, "test")[0] == f"{begin} interctc trained for each depth: no depth has both yet."
    alike = GRID.model_copy(update={"plain": "interctc"})
    assert verdict({"rows": rows}, alike, "test") == [first]


def test_a_depth_is_not_called_worse_if_a_seed_contradicts() -> None:
    base = {"set": "test", "method": "both", "strategy": "greedy", "plain_diff": None, "plain_diff_ci95": None}
    rows = [{**base, "depth": depth, "seed": ALL, "diff": 0.3, "diff_ci95": [0.1, 0.5]} for depth in (4, 2)]
    for depth, differences in ((4, (0.7, -0.1)), (2, (0.5, 0.1))):
        for seed, found in enumerate(differences, start=1):
            rows.append({**base, "depth": depth, "seed": seed, "diff": found, "diff_ci95": [found - 0.4, found + 0.4]})
    found = verdict({"rows": [*rows, {**rows[0], "depth": 3}]}, GRID, "test")[0]
    assert found.endswith(
        ": worse with 3 layers (+0.3 [+0.1, +0.5] points) and 2 layers (+0.3 [+0.1, +0.5] points);"
        " the seeds disagree with 4 layers (+0.3 [+0.1, +0.5] points)."
    )


def test_published_figures_are_rows_of_their_set_and_unknown_ones_stay_empty(summary: Summary) -> None:
    row = {"model": "CTC", "source": "somebody 2021", "set": "test", "wer": {6: 10.25, 4: 12.0, 2: None}}
    grid = Grid.model_validate({**GRID.model_dump(), "published": [row, {**row, "set": "other"}]})
    table = wer_table(shown(summary, "test"), grid, "test")
    assert table.header[2:] == ("6 layers", "4 layers", "2 layers")
    assert table.rows[-1] == ("CTC", "somebody 2021", "10.2", "12.0", "")
    assert [cells[2] for cells in table.rows[:-1]] == ["–"] * (len(table.rows) - 1)
    assert len(table.rows) == len(wer_table(shown(summary, "test"), GRID, "test").rows) + 1
    assert "not available" in table.caption
    assert "not available" not in wer_table(shown(summary, "test"), GRID, "test").caption


def test_training_cost_is_summed_over_depths_for_one_seed(summary: Summary) -> None:
    rows = {cells[0]: cells[1:] for cells in tables(summary, GRID)[-1].rows}
    assert rows["both, once"] == ("1", "100", "360", "4")
    assert rows["interctc, for each of 4, 2"] == ("2", "200", "600", "6")


def test_latex_escapes_what_is_special_in_it(summary: Summary) -> None:
    for table in tables(summary, GRID):
        text = latex(table)
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(rows) == len(table.rows) + 1
        assert all(line.count("&") == len(table.header) - 1 for line in rows)
        assert not any(character in text.replace(f"\\{character}", "") for character in "%#_")
        assert markdown(table).splitlines()[1].count("---") == len(table.header)


def test_figures_are_drawn_of_what_there_is(summary: Summary, tmp_path: Path) -> None:
    paths = draw(summary, GRID, tmp_path)
    assert [path.stem for path in paths] == list(CAPTIONS)
    assert all(path.stat().st_size > 5000 for path in paths)
    bare = {**summary, "removals": {}, "similarity": {"plain": None}}
    assert [path.stem for path in draw(bare, GRID, tmp_path)] == ["methods", "strategies", "difference", "cost"]
    assert {path.stem for path in tmp_path.glob("*.png")} == {"methods", "strategies", "difference", "cost"}
