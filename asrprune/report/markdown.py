"""RESULTS.md: the tables, the figures and how the numbers were made."""

from collections.abc import Sequence
from pathlib import Path

from asrprune.report import table
from asrprune.report.plots import CAPTIONS
from asrprune.report.result_table import result_table, set_names, set_title
from asrprune.report.results import Results
from asrprune.report.sentences import headlines, how_made


def markdown(results: Results, figures: Sequence[Path]) -> str:
    """Return the text of RESULTS.md; its links lead to ``figures`` in the directory figures/ beside it."""
    parts = [f"# {results.exp}", "Written by `asrprune report` from the files of the run; do not edit.", *headlines(results)]
    parts += [f"> {sentence}" for sentence in results.missing]
    parts += [results.in_units("## Word error rates")]
    for name in set_names(results):
        parts += [f"### {name}", f"{set_title(results, name)}.", table.markdown(result_table(results, name))]
    parts += ["`sub/del/ins` are counts. `(= strategy)`: that strategy keeps the same layers.", "## Figures"]
    for figure in figures:
        parts += [f"![{figure.stem}](figures/{figure.name})", results.in_units(CAPTIONS[figure.stem])]
    parts += ["## How these numbers were made", "\n".join(f"- **{term}.** {text}" for term, text in how_made(results))]
    return "\n\n".join(parts).replace("<", "&lt;") + "\n"  # the name of a set or strategy must not act as HTML
