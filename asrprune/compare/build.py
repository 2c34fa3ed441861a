"""Write the comparison of a grid, from the records alone: summary.json, tables, figures and RESULTS.md."""

from collections.abc import Mapping
from pathlib import Path

from asrprune.compare.figures import CAPTIONS, draw
from asrprune.compare.grid import Cell, Grid, cells, read_grid
from asrprune.compare.record import CellRecord, read_records
from asrprune.compare.summarise import summarise
from asrprune.compare.summary import Summary
from asrprune.compare.tables import tables
from asrprune.compare.verdict import verdict
from asrprune.report.result_table import seen
from asrprune.report.table import Table, latex, markdown
from asrprune.runtime.files import write_text

_INTERVALS = (
    "Intervals: hierarchical bootstrap. Speakers, each with all utterances, and seeds are drawn with replacement, the same for"
    " both systems of a comparison (formula and sources: asrprune/compare/hierarchical.py)."
)


def write_comparison(grid_file: Path, output: Path) -> list[Table]:
    """Compare the recorded cells of a grid, write the comparison, and return its tables. Run it in the directory of a recipe.

    Args:
        grid_file: the grid.
        output: the directory with ``cells/``; summary.json, tables.tex, RESULTS.md and figures/ are written into it.

    Raises:
        UserError: see ``summarise``.
    """
    grid = read_grid(grid_file)
    wanted = cells(grid)
    records = read_records(output, wanted)
    summary = summarise(grid, records, wanted[0].config.scoring)
    summary.write(output / "summary.json")
    made = tables(summary, grid)
    figures = draw(summary, grid, output / "figures")
    write_text(output / "tables.tex", "\n".join(map(latex, made)))
    write_text(output / "RESULTS.md", _page(summary, grid, wanted, made, figures, _decoders(records)))
    return made


def _page(summary: Summary, grid: Grid, wanted: list[Cell], made: list[Table], figures: list[Path], decoders: str) -> str:
    seeds = sorted({row.seed for row in summary.cost})
    sets = ", ".join(f"`{name}`: {data.utterances:,} utterances, {data.hours:.2f} h" for name, data in summary.data.items())
    parts = [
        "# One prunable model against models trained for each depth",
        "Written by `asrprune compare` from the records in cells/; do not edit.",
    ]
    parts += [verdict_markdown(summary, grid)]
    parts += [f"{sets}. Seeds: {', '.join(map(str, seeds))}. {decoders} {_chosen_on(summary)} {_INTERVALS}"]
    if missing := [cell.name for cell in wanted if cell.name not in summary.runs]:
        parts.append(f"> Not recorded yet, and therefore not below: {', '.join(missing)}.")
    parts += [markdown(table) for table in made]
    parts.append("## Figures")
    for figure in figures:
        parts += [f"![{figure.stem}](figures/{figure.name})", summary.in_units(CAPTIONS[figure.stem])]
    parts += ["## Methods", "\n".join(_method(name, numbers) for name, numbers in grid.methods.items())]
    shared = ", ".join(f"{name} {value}" for name, value in grid.numbers.items())
    parts.append(f"All methods: `{grid.config}`" + (f" with {shared}." if shared else "."))
    parts.append(_alone(grid, wanted))
    return "\n\n".join(parts) + "\n"


def verdict_markdown(summary: Summary, grid: Grid, brief: bool = False) -> str:
    """Return the verdicts on all sets, one paragraph each, with the claim in bold; ``brief``: only the claims."""
    said = [verdict(summary, grid, name) for name in sorted(summary.data)]
    return "\n\n".join(" ".join((f"**{claim}**", *(() if brief else others))) for claim, *others in said)


def _decoders(records: Mapping[str, CellRecord]) -> str:
    """Name the decoders of all texts."""
    found = sorted({row.decoder for record in records.values() for row in record.rows})
    greedy = all(decoder.startswith("greedy") for decoder in found)
    return "Greedy CTC, no language model." if greedy else f"Decoded with: {'; '.join(found)}."


def _chosen_on(summary: Summary) -> str:
    """Name the sets on which layers were chosen, and those of them that are also scored."""
    if not summary.search_sets:
        return "No plan needed a dev set."
    listed = ", ".join(f"`{name}`" for name in summary.search_sets)
    scored = ", ".join(f"`{name}`" for name in summary.data if seen(name, summary.search_sets))
    return f"Layers were chosen on {listed}" + (f"; the results on {scored} are therefore optimistic." if scored else " alone.")


def _method(name: str, numbers: dict[str, object]) -> str:
    changed = ", ".join(f"{key} {value}" for key, value in numbers.items())
    return f"- **{name}**: {changed or 'as configured'}."


def _alone(grid: Grid, wanted: list[Cell]) -> str:
    """Name the taps of the models trained for each depth: they differ from those of the full model, and WER depends on them."""
    told = []
    for method in grid.alone.methods:
        taps = {cell.depth: list(cell.config.model.tap_layers) for cell in wanted if cell.method == method and cell.alone}
        told += [f"{method} of {depth} layers: {found}" for depth, found in taps.items() if found]
    where = f"after a quarter and half of the layers ({'; '.join(told)})" if told else "after a quarter and half of the layers"
    return f"Models trained for each depth have the numbers of their method, and its taps, if it has any, {where}."
