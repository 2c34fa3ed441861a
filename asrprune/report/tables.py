"""The result table, from `results.json` alone: as cells, as Markdown, as a rich table for the terminal."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import floor, log10

from rich import box
from rich.table import Table
from rich.text import Text

from asrprune.experiment.plan import Search
from asrprune.prune.strategies.table import rank
from asrprune.report.results import Results, Row

HEADER = ("strategy", "depth", "layers kept", "params (M)", "WER % [95 % CI]", "sub/del/ins", "CER %", "RTF", "speed-up")
WORD_COLUMNS = (0, 2)  # aligned left; the others are numbers
FULL = "full"
NONE = "–"


@dataclass(frozen=True)
class Line:
    """One printed row of the table, a cell per column of ``HEADER``; ``full``: the model with all its layers."""

    cells: tuple[str, ...]
    full: bool


def header(results: Results) -> tuple[str, ...]:
    """The headings of the columns."""
    return tuple(map(results.in_units, HEADER))


def table_lines(results: Results, name: str) -> list[Line]:
    """The table of the set ``name``: the full model, then each strategy from deep to shallow.

    All strategies share the full model, so it is one line; a sub-model that an earlier strategy also chose says so.
    """
    num_layers = results.model.num_layers
    rows = [row for row in results.rows if row.set == name]
    full = {(row.decoder, row.wer): row for row in rows if row.depth == num_layers}
    pruned = [row for row in rows if row.depth != num_layers]
    mixed = len({row.decoder for row in rows}) > 1
    lines = [Line(_cells(row, FULL, mixed), full=True) for row in full.values()]
    return lines + [Line(_cells(row, row.strategy, mixed, _twin(row, pruned)), full=False) for row in pruned]


def set_names(results: Results) -> list[str]:
    """The decoded sets: first those that had no part in the search, then those on which layers were chosen."""
    return sorted(results.data, key=lambda name: (seen(name, search_sets(results.search)), name))


def search_sets(plans: Mapping[str, Search]) -> set[str]:
    """The sets on whose errors or activations layers were chosen."""
    return {plan.dev_set for plan in plans.values() if plan.dev_set}


def seen(name: str, search_sets: Collection[str]) -> bool:
    """Tell whether a set is, by its name, one on which layers were chosen, a part of it, or what it has copies of.

    >>> [seen(name, ["dev_sp"]) for name in ("dev", "dev_sp", "test")], seen("dev_clean", ["dev"])
    ([True, True, False], True)
    """
    return any(f"{name}_".startswith(f"{used}_") or f"{used}_".startswith(f"{name}_") for used in search_sets)


def set_title(results: Results, name: str) -> str:
    """The set, its size, and a warning if layers were chosen on it."""
    data = results.data[name]
    words = next(row.ref_words for row in results.rows if row.set == name)
    warning = (
        "; layers were chosen on this set, so its pruned WERs are optimistic" if seen(name, search_sets(results.search)) else ""
    )
    return results.in_units(f"{data.utterances:,} utterances, {data.hours:.2f} h, {words:,} reference words{warning}")


def markdown_table(results: Results, name: str) -> str:
    """The table of one set in GitHub's Markdown; the full model in bold."""
    align = ["---" if column in WORD_COLUMNS else "---:" for column in range(len(HEADER))]
    body = [[f"**{cell}**" if line.full else cell for cell in line.cells] for line in table_lines(results, name)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header(results), align, *body])


def screen_table(results: Results) -> Table:
    """The tables of all sets as one rich table for the terminal; the full model in bold, a rule between strategies.

    It fits 80 columns: long lists of layers are folded, and CER is left to RESULTS.md.
    """
    table = Table(title=results.exp, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("strat-\negy", no_wrap=True)
    table.add_column("depth", justify="right", no_wrap=True)
    table.add_column("layers\nkept", overflow="fold")
    for heading in ("params\n(M)", results.in_units("WER %\n[95 % CI]"), "sub", "del", "ins", "RTF", "speed-\nup"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in set_names(results):
        table.add_row(Text(name, style="italic"))
        for _, group in groupby(table_lines(results, name), key=lambda line: line.cells[0]):
            *lines, last = group
            for line in [*lines, last]:
                table.add_row(*_screen_cells(line), style="bold" if line.full else "", end_section=line is last)
    return table


def compact(layers: Sequence[int]) -> str:
    """Write ascending layer numbers with runs of three or more drawn together: 1,2,3,4,6,12 -> ``1-4,6,12``."""
    breaks = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(layers)) if b != a + 1), len(layers)]
    runs = [layers[start:end] for start, end in pairwise(breaks)]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def two_digits(value: float) -> str:
    """A small number to two significant digits, never with an exponent: 0.0061, 0.00021, 0.34."""
    decimals = 2 if value <= 0 else max(2, 1 - floor(log10(value)))
    return f"{value:.{decimals}f}"


def _cells(row: Row, strategy: str, mixed: bool, twin: str | None = None) -> tuple[str, ...]:
    low, high = row.wer_ci95
    return (
        f"{strategy}, {row.decoder} decoding" if mixed else strategy,
        str(row.depth),
        compact(row.keep) + (f" (= {twin})" if twin else ""),
        f"{row.params_m:.2f}",
        f"{row.wer:.1f} [{low:.1f}, {high:.1f}]",
        f"{row.sub}/{row.del_}/{row.ins}",
        f"{row.cer:.1f}",
        two_digits(row.rtf) if row.rtf is not None else NONE,
        f"{row.speedup:.1f}×" if row.speedup is not None else NONE,
    )


def _screen_cells(line: Line) -> list[Text]:
    """The cells as plain text: error counts in columns of their own, blanks between layers so that no number is broken."""
    strategy, depth, layers, params, wer, errors, _, *rest = line.cells
    return [Text(cell) for cell in (strategy, depth, layers.replace(",", ", "), params, wer, *errors.split("/"), *rest)]


def _twin(row: Row, rows: Sequence[Row]) -> str | None:
    """The first earlier strategy that keeps the same layers."""
    twins = {other.strategy for other in rows if other.keep == row.keep}
    first = min(twins, key=rank)
    return None if first == row.strategy else first
