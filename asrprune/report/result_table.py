"""The result table of each set, from `results.json` alone."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from math import floor, log10
from typing import Protocol

import rich.table
from rich import box
from rich.text import Text

from asrprune.experiment.plan import Search
from asrprune.prune.strategies.table import rank
from asrprune.report.results import Results, Row
from asrprune.report.table import NONE, Table

HEADER = ("strategy", "depth", "layers kept", "params (M)", "WER % [95 % CI]", "sub/del/ins", "CER %", "RTF", "speed-up")
FULL = "full"


class Rate(Protocol):
    """A row with an error rate."""

    @property
    def wer(self) -> float: ...
    @property
    def wer_ci95(self) -> tuple[float, float]: ...


def result_table(results: Results, name: str) -> Table:
    """Tabulate the set ``name``: first the full model, in bold, then each strategy from deep to shallow.

    The full model is one row, because it is the same for all strategies. If an earlier strategy chose the same layers, a row
    names that strategy.
    """
    rows = [row for row in results.rows if row.set == name]
    full = {(row.decoder, row.wer): row for row in rows if row.depth == results.model.num_layers}
    pruned = [row for row in rows if row.depth != results.model.num_layers]
    mixed = len({row.decoder for row in rows}) > 1
    lines = [_cells(row, FULL, mixed) for row in full.values()]
    lines += [_cells(row, row.strategy, mixed, _twin(row, pruned)) for row in pruned]
    return Table(name, "", tuple(map(results.in_units, HEADER)), tuple(lines), words=(0, 2), bold=len(full))


def set_names(results: Results) -> list[str]:
    """Return the decoded sets: first those that had no part in the search, then those on which layers were chosen."""
    return sorted(results.data, key=lambda name: (seen(name, search_sets(results.search)), name))


def search_sets(plans: Mapping[str, Search]) -> set[str]:
    """Return the sets on whose errors or activations layers were chosen."""
    return {plan.dev_set for plan in plans.values() if plan.dev_set}


def seen(name: str, search_sets: Collection[str]) -> bool:
    """Return whether layers were chosen on a set, on a part of it, or on a set of which it is a part, judged by the names.

    >>> [seen(name, ["dev_sp"]) for name in ("dev", "dev_sp", "test")], seen("dev_clean", ["dev"])
    ([True, True, False], True)
    """
    return any(f"{name}_".startswith(f"{used}_") or f"{used}_".startswith(f"{name}_") for used in search_sets)


def set_title(results: Results, name: str) -> str:
    """Return the size of a set, and a warning if layers were chosen on it."""
    data = results.data[name]
    words = next(row.ref_words for row in results.rows if row.set == name)
    warning = (
        "; layers were chosen on this set, so its pruned WERs are optimistic" if seen(name, search_sets(results.search)) else ""
    )
    how = "; letter case does not count" if data.ignore_case else ""
    return results.in_units(f"{data.utterances:,} utterances, {data.hours:.2f} h, {words:,} reference words{how}{warning}")


def screen_table(results: Results) -> rich.table.Table:
    """Draw the tables of all sets as one table for the terminal, with a rule between strategies.

    It fits 80 columns: long lists of layers are folded, and CER is left to RESULTS.md.
    """
    drawn = rich.table.Table(title=results.exp, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    drawn.add_column("strategy", no_wrap=True)
    drawn.add_column("depth", justify="right", no_wrap=True)
    drawn.add_column("layers\nkept", overflow="fold")
    for heading in ("params\n(M)", results.in_units("WER %\n[95 % CI]"), "sub", "del", "ins", "RTF", "speed-\nup"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for name in set_names(results):
        drawn.add_row(Text(name, style="italic"))
        table = result_table(results, name)
        strategies = [cells[0] for cells in table.rows]
        for place, cells in enumerate(table.rows):
            last = strategies[place + 1 : place + 2] != [cells[0]]
            drawn.add_row(*_screen_cells(cells), style="bold" if place < table.bold else "", end_section=last)
    return drawn


def compact(layers: Sequence[int]) -> str:
    """Write ascending layer numbers, with runs of three or more as a range: 1,2,3,4,6,12 -> ``1-4,6,12``."""
    breaks = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(layers)) if b != a + 1), len(layers)]
    runs = [layers[start:end] for start, end in pairwise(breaks)]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def two_digits(value: float) -> str:
    """Write a small number to two significant digits, never with an exponent: 0.0061, 0.00021, 0.34."""
    decimals = 2 if value <= 0 else max(2, 1 - floor(log10(value)))
    return f"{value:.{decimals}f}"


def wer_cell(row: Rate) -> str:
    """Write a WER and its interval: ``5.2 [4.6, 6.0]``."""
    low, high = row.wer_ci95
    return f"{row.wer:.1f} [{low:.1f}, {high:.1f}]"


def _cells(row: Row, strategy: str, mixed: bool, twin: str | None = None) -> tuple[str, ...]:
    return (
        f"{strategy}, {row.decoder} decoding" if mixed else strategy,
        str(row.depth),
        compact(row.keep) + (f" (= {twin})" if twin else ""),
        f"{row.params_m:.2f}",
        wer_cell(row),
        f"{row.sub}/{row.del_}/{row.ins}",
        f"{row.cer:.1f}",
        two_digits(row.rtf) if row.rtf is not None else NONE,
        f"{row.speedup:.1f}×" if row.speedup is not None else NONE,
    )


def _screen_cells(cells: tuple[str, ...]) -> list[Text]:
    """Split the error counts into three columns; put blanks between layers, so that no number is broken."""
    strategy, depth, layers, params, wer, errors, _, *rest = cells
    return [Text(cell) for cell in (strategy, depth, layers.replace(",", ", "), params, wer, *errors.split("/"), *rest)]


def _twin(row: Row, rows: Sequence[Row]) -> str | None:
    """Return the first earlier strategy that keeps the same layers; None if there is none."""
    twins = {other.strategy for other in rows if other.keep == row.keep}
    first = min(twins, key=rank)
    return None if first == row.strategy else first
