"""Write the report of an experiment: results.json, and from it the figures, RESULTS.md and report.html."""

import shutil
from pathlib import Path

from asrprune.experiment.paths import ExperimentPaths
from asrprune.report.html import html
from asrprune.report.markdown import markdown
from asrprune.report.plots import CAPTIONS, draw
from asrprune.report.results import Results, collect
from asrprune.runtime.files import atomic_path, write_text
from asrprune.runtime.planted import inside


def write_report(exp: Path) -> Results:
    """Write the report into the experiment directory ``exp`` and return its numbers.

    Raises:
        UserError: see ``collect``.
    """
    paths = ExperimentPaths(exp)
    results = collect(exp)
    results.write(paths.results)
    figures = draw(results, exp, inside(exp, "figures"))
    write_text(paths.tables, markdown(results, figures))
    write_text(paths.page, html(results, figures))
    return results


def copy_report(exp: Path, target: Path) -> None:
    """Copy RESULTS.md and the figures to ``target``, such as the directory of a recipe; delete old figures there."""
    figures = [exp / "figures" / f"{name}.png" for name in CAPTIONS]
    for source in (ExperimentPaths(exp).tables, *figures):
        copy = target / source.relative_to(exp)
        if source.exists():
            with atomic_path(copy) as temporary:
                shutil.copyfile(source, temporary)
        else:
            copy.unlink(missing_ok=True)
