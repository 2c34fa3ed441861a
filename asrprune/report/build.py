"""Write the report of an experiment: results.json, then the figures, RESULTS.md and report.html drawn from it."""

from pathlib import Path, PurePosixPath

from asrprune.files import read_json, write_json, write_text
from asrprune.report.html import html
from asrprune.report.markdown import markdown
from asrprune.report.plots import draw
from asrprune.report.results import collect


def write_report(exp: Path, figures_dir: str = "figures") -> Path:
    """Write the report into the experiment directory ``exp`` and return the path of ``report.html``.

    ``figures_dir`` is the folder of the figures below ``exp``. RESULTS.md links to it relatively, so a recipe may copy
    RESULTS.md and this folder side by side to wherever it shows its results.

    Raises:
        UserError: as :func:`asrprune.report.results.collect`.
    """
    write_json(exp / "results.json", collect(exp))
    results = read_json(exp / "results.json")  # what is drawn is what is on disk
    figures = draw(results, exp, exp / figures_dir)
    write_text(exp / "RESULTS.md", markdown(results, figures, PurePosixPath(figures_dir)))
    write_text(exp / "report.html", html(results, figures))
    return exp / "report.html"
