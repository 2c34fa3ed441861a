"""Commands that compare and report, and the doctor."""

from pathlib import Path
from typing import Annotated

import typer

from asrprune.cli.app import app
from asrprune.cli.options import Gpus
from asrprune.cli.screen import say, show
from asrprune.experiment.paths import ExperimentPaths
from asrprune.runtime.errors import UserError


@app.command()
def report(
    exp: Annotated[Path | None, typer.Option("--exp", help="experiment directory  [required]")] = None,
    copy_to: Annotated[Path | None, typer.Option("--copy-to", help="also put RESULTS.md and figures/ here")] = None,
    # --grid and --output: how earlier versions spelt `asrprune compare --no-train`
    grid_file: Annotated[Path | None, typer.Option("--grid", hidden=True)] = None,
    output: Annotated[Path | None, typer.Option("--output", hidden=True)] = None,
) -> None:
    """Write the report of an experiment. Writes RESULTS.md, figures, report.html and results.json."""
    from asrprune.report.build import copy_report, write_report
    from asrprune.report.result_table import screen_table

    if grid_file is not None and exp is None and copy_to is None:
        compare(grid_file, output=output, no_train=True)
        return
    if exp is None or grid_file is not None or output is not None:
        raise UserError("give an experiment, --exp DIR; to compare a grid of models, use `asrprune compare FILE`")
    results = write_report(exp)
    if copy_to is not None:
        copy_report(exp, copy_to)
    show(screen_table(results))
    say(f"report: {ExperimentPaths(exp).page.resolve()}")


@app.command("grid", hidden=True)  # its name in earlier versions
@app.command()
def compare(
    grid_file: Annotated[Path, typer.Argument(help="methods, depths and seeds, e.g. conf/paper.yaml")],
    options: Annotated[list[str] | None, typer.Argument(help="options after -- go to run.sh")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="directory of records, tables and figures; default: the grid file's name")
    ] = None,
    expdir: Annotated[
        Path | None,
        typer.Option("--expdir", help="directory of the experiments; default: exp/NAME for the grid file NAME.yaml"),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="runs at a time; they share the cores and the GPUs")] = 1,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="train these models alone, e.g. '*_2l_s1'; may be repeated")
    ] = None,
    no_train: Annotated[bool, typer.Option("--no-train", help="compare the models recorded so far; train nothing")] = False,
) -> None:
    """Train a grid of models and compare them. Run this in a recipe; recorded models are not trained again."""
    from asrprune.compare.build import write_comparison
    from asrprune.compare.run import run_grid
    from asrprune.report.table import on_screen

    if no_train and (options or only):
        raise UserError("--no-train trains nothing; remove it, or remove --only and the options after --")
    output = output or Path(grid_file.stem)
    if not no_train:
        run_grid(grid_file, output, expdir or Path("exp") / grid_file.stem, jobs, options or [], only or ["*"])
    for table in write_comparison(grid_file, output):
        show(on_screen(table))
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
