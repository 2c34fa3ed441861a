"""Commands that write models for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from asrprune.cli.app import app
from asrprune.cli.options import ExpDir, PlanName, load_experiment
from asrprune.cli.screen import say
from asrprune.runtime.errors import UserError


@app.command()
def export(
    exp: ExpDir,
    to: Annotated[Path, typer.Option("--to", help="ONNX file to write; its depths go into FILE.onnx.json")],
    form: Annotated[
        Literal["any-depth", "depth"], typer.Option("--form", help="all layers, run at any depth; or the layers of one depth")
    ] = "any-depth",
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="depth that runs by default; default: all layers")] = None,
    plan: PlanName = None,
    dev: Annotated[
        Path | None, typer.Option("--dev", help="directory with features: compare the texts of 50 utterances, too")
    ] = None,
) -> None:
    """Write a model as an ONNX file, after a check against torch."""
    from asrprune.export.build import export as run
    from asrprune.prune.find import find_plan

    if form == "depth" and depth is None:
        raise UserError("--form depth: give the depth, for example --depth 6")
    experiment = load_experiment(exp)
    exported = run(experiment, find_plan(experiment, plan), to, depth, form == "depth", dev)
    depths = ", ".join(str(row.depth) for row in exported.depths)
    say(f"{to}: {to.stat().st_size / 1e6:.1f} MB, depths {depths}; runs {exported.depth} layers by default")


@app.command()
def set_depth(
    file: Annotated[Path, typer.Argument(help="an ONNX file of `asrprune export`")],
    depth: Annotated[int, typer.Argument(min=1, help="number of layers that run by default from now on")],
) -> None:
    """Change the depth that an exported model runs by default."""
    from asrprune.export.build import set_depth as run

    exported = run(file, depth)
    say(f"{file}: runs layers {','.join(map(str, exported.at(depth).keep))} by default")
