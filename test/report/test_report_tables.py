"""The result table holds the numbers of results.json, and fits a terminal."""

from io import StringIO
from pathlib import Path

import pytest
from records import changed
from rich.console import Console

from asrprune.report.results import collect
from asrprune.report.tables import (
    HEADER,
    Line,
    compact,
    markdown_table,
    screen_table,
    set_names,
    set_title,
    table_lines,
    two_digits,
)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([1, 2, 3, 4, 6, 12], "1-4,6,12"),
        ([1], "1"),
        ([1, 2], "1,2"),
        ([1, 2, 4, 5, 6], "1,2,4-6"),
        (list(range(1, 25)), "1-24"),
    ],
)
def test_compact(layers: list[int], text: str) -> None:
    assert compact(layers) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00618, "0.0062"), (0.000214, "0.00021"), (0.34, "0.34"), (1.5, "1.50"), (0.099, "0.099"), (0, "0.00")],
)
def test_two_digits(value: float, text: str) -> None:
    assert two_digits(value) == text


def test_cells_of_known_rows(experiment: Path) -> None:
    lines = table_lines(collect(experiment), "test")
    full = ("full", "12", "1-12", "3.31", "5.2 [4.6, 6.0]", "313/157/52", "2.6", "0.0062", "1.0×")
    assert lines[0] == Line(full, full=True)
    iterative = ("iterative", "6", "1-4,6,12", "1.81", "6.1 [5.4, 6.9]", "367/185/61", "3.0", "0.0035", "1.7×")
    assert Line(iterative, full=False) in lines


def test_one_line_for_the_full_model_then_strategies_from_deep_to_shallow(experiment: Path) -> None:
    lines = table_lines(collect(experiment), "dev")
    assert [line.full for line in lines] == [True] + [False] * 20
    expected = [(strategy, depth) for strategy in ("iterative", "svcca", "every", "lowest") for depth in (10, 8, 6, 4, 2)]
    assert [(line.cells[0], int(line.cells[1])) for line in lines[1:]] == expected


def test_the_same_layers_under_a_second_strategy_are_marked(experiment: Path) -> None:
    layers = {line.cells[:2]: line.cells[2] for line in table_lines(collect(experiment), "test")}
    assert layers["svcca", "10"] == "1-10"
    assert layers["lowest", "10"] == "1-10 (= svcca)"
    assert layers["every", "2"] == "1,12 (= svcca)"
    assert sum("=" in text for text in layers.values()) == 2


def test_decoders_are_told_apart_where_they_differ(experiment: Path) -> None:
    results = collect(experiment)
    assert "decoding" not in markdown_table(results, "test")
    first = next(row for row in results.rows if (row.set, row.depth) == ("test", 6))
    results = changed(results, rows=[changed(row, decoder="beam 8") if row is first else row for row in results.rows])
    assert "| iterative, beam 8 decoding | 6 |" in markdown_table(results, "test")


def test_a_table_without_bench(experiment: Path) -> None:
    (experiment / "bench.json").unlink()
    assert {line.cells[-2:] for line in table_lines(collect(experiment), "test")} == {("–", "–")}


def test_sets_on_which_layers_were_chosen_come_last_and_say_so(experiment: Path) -> None:
    results = collect(experiment)
    assert set_names(results) == ["test", "dev"]
    assert set_title(results, "test") == "2,000 utterances, 1.30 h, 10,042 reference words"
    assert "optimistic" in set_title(results, "dev")


def test_markdown(experiment: Path) -> None:
    rows = markdown_table(collect(experiment), "test").splitlines()
    assert len(rows) == 2 + 21
    assert {row.count("|") for row in rows} == {len(HEADER) + 1}
    assert [row for row in rows if "**" in row] == [rows[2]]
    assert rows[2].count("**") == 2 * len(HEADER)


def test_the_screen_table_fits_80_columns(experiment: Path) -> None:
    results = collect(experiment)
    screen = StringIO()
    Console(file=screen, width=80).print(screen_table(results))
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count("×") == 2 * 21  # a speed-up is the last cell of every line
    assert "100.0 [100.0, 100.0] 6025 3013 1004" in text
    assert "1,3,4,6,7,9,10,12" not in text  # too wide, so it is folded ...
    assert {"1-3,", "5-8,", "10-12"} <= set(text.split())  # ... but between layers


def test_the_full_model_is_bold_on_the_screen(experiment: Path) -> None:
    rows = screen_table(collect(experiment)).rows
    assert [place for place, row in enumerate(rows) if row.style == "bold"] == [1, 23]
