"""The result table holds the numbers of results.json, and fits a terminal."""

from io import StringIO
from pathlib import Path

import pytest
from records import changed
from rich.console import Console

from asrprune.report.result_table import HEADER, compact, result_table, screen_table, set_names, set_title, two_digits
from asrprune.report.results import collect
from asrprune.report.table import Table, markdown


@pytest.fixture
def table(experiment: Path) -> Table:
    return result_table(collect(experiment), "test")


@pytest.mark.parametrize(
    ("layers", "text"),
    [([1, 2, 3, 4, 6, 12], "1-4,6,12"), ([1], "1"), ([1, 2], "1,2"), ([1, 2, 4, 5, 6], "1,2,4-6"), ([*range(1, 25)], "1-24")],
)
def test_compact(layers: list[int], text: str) -> None:
    assert compact(layers) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00618, "0.0062"), (0.000214, "0.00021"), (0.34, "0.34"), (1.5, "1.50"), (0.099, "0.099"), (0, "0.00")],
)
def test_two_digits(value: float, text: str) -> None:
    assert two_digits(value) == text


def test_cells_of_known_rows(table: Table) -> None:
    assert table.rows[0] == ("full", "12", "1-12", "3.31", "5.2 [4.6, 6.0]", "313/157/52", "2.6", "0.0062", "1.0×")
    iterative = ("iterative", "6", "1-4,6,12", "1.81", "6.1 [5.4, 6.9]", "367/185/61", "3.0", "0.0035", "1.7×")
    assert iterative in table.rows


def test_one_line_for_the_full_model_then_strategies_from_deep_to_shallow(table: Table) -> None:
    expected = [(strategy, depth) for strategy in ("iterative", "svcca", "every", "lowest") for depth in (10, 8, 6, 4, 2)]
    assert [(strategy, int(depth)) for strategy, depth, *_ in table.rows] == [("full", 12), *expected]
    assert table.bold == 1


def test_the_same_layers_under_a_second_strategy_are_marked(table: Table) -> None:
    layers = {cells[:2]: cells[2] for cells in table.rows}
    assert layers["svcca", "10"] == "1-10"
    assert layers["lowest", "10"] == "1-10 (= svcca)"
    assert layers["every", "2"] == "1,12 (= svcca)"
    assert sum("=" in text for text in layers.values()) == 2


def test_decoders_are_told_apart_where_they_differ(experiment: Path, table: Table) -> None:
    assert "decoding" not in markdown(table)
    results = collect(experiment)
    first = next(row for row in results.rows if (row.set, row.depth) == ("test", 6))
    results = changed(results, rows=[changed(row, decoder="beam 8") if row is first else row for row in results.rows])
    assert "| iterative, beam 8 decoding | 6 |" in markdown(result_table(results, "test"))


def test_a_table_without_bench(experiment: Path) -> None:
    (experiment / "bench.json").unlink()
    assert {cells[-2:] for cells in result_table(collect(experiment), "test").rows} == {("–", "–")}


def test_sets_on_which_layers_were_chosen_come_last_and_say_so(experiment: Path) -> None:
    results = collect(experiment)
    assert set_names(results) == ["test", "dev"]
    assert set_title(results, "test") == "2,000 utterances, 1.30 h, 10,042 reference words"
    assert "optimistic" in set_title(results, "dev")


def test_markdown(table: Table) -> None:
    rows = markdown(table).splitlines()
    assert len(rows) == 2 + 21
    assert {row.count("|") for row in rows} == {len(HEADER) + 1}
    assert rows[1].startswith("| --- | ---: | --- | ---: |")
    assert [row for row in rows if "**" in row] == [rows[2]]
    assert rows[2].count("**") == 2 * len(HEADER)


def test_the_screen_table_fits_80_columns_and_the_full_model_is_bold(experiment: Path) -> None:
    drawn, screen = screen_table(collect(experiment)), StringIO()
    Console(file=screen, width=80).print(drawn)
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count("×") == 2 * 21  # a speed-up is the last cell of every line
    assert "100.0 [100.0, 100.0] 6025 3013 1004" in text
    assert "1,3,4,6,7,9,10,12" not in text  # too wide, so it is folded ...
    assert {"1-3,", "5-8,", "10-12"} <= set(text.split())  # ... but between layers
    assert [place for place, row in enumerate(drawn.rows) if row.style == "bold"] == [1, 23]
