"""RESULTS.md: the tables, the figures and how the numbers were made."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from asrprune.report.facts import facts, headlines
from asrprune.report.plots import CAPTIONS
from asrprune.report.results import Results
from asrprune.report.tables import markdown_table, set_names, set_title


def markdown(results: Results, figures: Sequence[Path], link_dir: PurePosixPath) -> str:
    """The text of RESULTS.md, which finds each of ``figures`` by its name in the relative folder ``link_dir``."""
    parts = [f"# {results['exp']}", "Written by `asrprune report` from the files of the run; do not edit.", *headlines(results)]
    parts += [f"> {sentence}" for sentence in results["missing"]]
    parts += ["## Word error rates"]
    for name in set_names(results):
        parts += [f"### {name}", f"{set_title(results, name)}.", markdown_table(results, name)]
    parts += ["`sub/del/ins` are counts. `(= strategy)`: the same layers as that strategy's.", "## Figures"]
    for figure in figures:
        parts += [f"![{figure.stem}]({link_dir / figure.name})", CAPTIONS[figure.stem]]
    parts += ["## How these numbers were made", "\n".join(f"- **{term}.** {text}" for term, text in facts(results))]
    return "\n\n".join(parts).replace("<", "&lt;") + "\n"  # a name is no HTML
