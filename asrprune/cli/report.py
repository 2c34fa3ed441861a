"""Commands that compare and report, and the doctor."""

from pathlib import Path
from typing import Annotated

import typer

from asrprune.cli.app import app
from asrprune.cli.options import Gpus, GridOutput
from asrprune.cli.screen import say, show
from asrprune.experiment.paths import ExperimentPaths
from asrprune.runtime.errors import UserError


@app.command()
def report(
    exp: Annotated[Path | None, typer.Option("--exp", help="experiment directory")] = None,
    copy_to: Annotated[Path | None, typer.Option("--copy-to", help="also put RESULTS.md and figures/ here")] = None,
    grid_file: Annotated[Path | None, typer.Option("--grid", help="compare the recorded models of this grid instead")] = None,
    output: GridOutput = None,
) -> None:
    """Write the report of an experiment, or of a grid. Writes tables, figures and a file with all numbers."""
    from asrprune.report.build import copy_report, write_report
    from asrprune.report.tables import screen_table

    if (exp is None) == (grid_file is None):
        raise UserError("give either an experiment, --exp DIR, or a grid, --grid FILE")
    if exp is None:
        assert grid_file is not None
        if copy_to is not None:
            raise UserError("--copy-to needs --exp; for a grid use --output")
        _compare(grid_file, output or Path(grid_file.stem))
        return
    if output is not None:
        raise UserError("--output needs --grid; the report of an experiment goes to --exp, and --copy-to copies it")
    results = write_report(exp)
    if copy_to is not None:
        copy_report(exp, copy_to)
    show(screen_table(results))
    say(f"report: {ExperimentPaths(exp).page.resolve()}")


@app.command()
def grid(
    grid_file: Annotated[Path, typer.Argument(help="methods, depths and seeds, e.g. conf/paper.yaml")],
    options: Annotated[list[str] | None, typer.Argument(help="options after -- go to run.sh")] = None,
    output: GridOutput = None,
    expdir: Annotated[
        Path | None, typer.Option("--expdir", help="directory of the experiments; default: exp/ and the grid file's name")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="runs at a time; they share the cores and the GPUs")] = 1,
) -> None:
    """Train and compare a grid of models. Run this in a recipe; recorded models are not trained again."""
    from asrprune.compare.run import run_grid

    output = output or Path(grid_file.stem)
    run_grid(grid_file, output, expdir or Path("exp") / grid_file.stem, jobs, options or [])
    _compare(grid_file, output)


def _compare(grid_file: Path, output: Path) -> None:
    from asrprune.compare.build import write_comparison
    from asrprune.compare.tables import screen_table

    for table in write_comparison(grid_file, output):
        show(screen_table(table))
    say(f"report: {(output / 'RESULTS.md').resolve()}")


@app.command()
def doctor(ngpu: Gpus = 0) -> None:
    """List what is missing on this machine, and how to install it."""
    from asrprune.runtime.doctor import diagnose, doctor_ok, format_report

    checks = diagnose()
    say(format_report(checks))
    if not doctor_ok(checks):
        raise typer.Exit(1)
    if ngpu:
        from asrprune.runtime.hardware import check_gpus  # needs torch, which is checked above

        check_gpus(ngpu)
