"""Write the report of an experiment: results.json, then the figures, RESULTS.md and report.html drawn from it."""

import shutil
from pathlib import Path, PurePosixPath

from asrprune.experiment.paths import ExperimentPaths
from asrprune.report.html import html
from asrprune.report.markdown import markdown
from asrprune.report.plots import CAPTIONS, draw
from asrprune.report.results import collect
from asrprune.runtime.files import atomic_path, read_json, write_json, write_text
from asrprune.runtime.planted import inside


def write_report(exp: Path, figures_dir: str = "figures") -> Path:
    """Write the report into the experiment directory ``exp`` and return the path of ``report.html``.

    ``figures_dir`` is the folder of the figures below ``exp``; RESULTS.md links to it relatively.

    Raises:
        UserError: as :func:`asrprune.report.results.collect`.
    """
    paths = ExperimentPaths(exp)
    write_json(paths.results, collect(exp))
    results = read_json(paths.results)  # what is drawn is what is on disk
    figures = draw(results, exp, inside(exp, figures_dir))
    write_text(paths.tables, markdown(results, figures, PurePosixPath(figures_dir)))
    write_text(paths.page, html(results, figures))
    return paths.page


def copy_report(exp: Path, target: Path, figures_dir: str = "figures") -> None:
    """Copy RESULTS.md and its figures to ``target``, say a recipe's directory; delete figures there that it no longer has."""
    figures = [exp / figures_dir / f"{name}.png" for name in CAPTIONS]
    for source in (ExperimentPaths(exp).tables, *figures):
        copy = target / source.relative_to(exp)
        if source.exists():
            with atomic_path(copy) as temporary:
                shutil.copyfile(source, temporary)
        else:
            copy.unlink(missing_ok=True)
