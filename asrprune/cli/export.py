"""Commands that write models for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from asrprune.cli.app import app
from asrprune.cli.options import ExpDir, PlanName, load_experiment
from asrprune.cli.screen import say
from asrprune.runtime.errors import UserError

Form = Literal["any-depth", "early-exit", "required-keep", "depth"]
Input = Literal["features", "waveform"]


@app.command()
def export(
    exp: ExpDir,
    to: Annotated[Path | None, typer.Option("--to", help="ONNX file to write; its depths go into FILE.onnx.json")] = None,
    web: Annotated[
        Path | None, typer.Option("--web", help="directory to write instead: a page that recognises speech in a browser")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--form",
            metavar="<form>",
            help="any-depth (default): all layers, run at any depth; early-exit: the same, and layers run until the model is"
            " sure enough; required-keep: as any-depth, for onnxruntime-web; depth: the layers of one depth",
        ),
    ] = None,
    source: Annotated[
        Input | None, typer.Option("--input", help="what the file takes: log-mel features (default), or the waveform")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit integers in linear layers: smaller and faster")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="16-bit weights: half of the size")] = False,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="depth that runs by default; default: all layers")] = None,
    plan: PlanName = None,
    dev: Annotated[Path | None, typer.Option("--dev", help="data directory with features: compare texts, too")] = None,
    utterances: Annotated[
        int | None,
        typer.Option("--utterances", min=1, help="number of utterances of --dev; default: 50, with --int8 and --fp16 all"),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            "--max-loss", min=0, help="with --int8: leave layers in float32 until no depth loses more points of WER on --dev"
        ),
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="licence of the model, for the model card")] = None,
) -> None:
    """Write a model as an ONNX file, after a check against torch."""
    from asrprune.export.build import Options
    from asrprune.export.build import export as to_file
    from asrprune.export.page import MODEL, export_page
    from asrprune.prune.find import find_plan

    if (to is None) == (web is None):
        raise UserError("give either --to FILE.onnx or --web DIR")
    if web and (form or source):
        raise UserError("--form and --input have no effect with --web, which needs required-keep and waveform; remove them")
    if form == "depth" and depth is None:
        raise UserError("--form depth: give the depth, for example --depth 6")
    if form == "early-exit" and depth is not None:
        raise UserError("--form early-exit: each utterance has a depth of its own; remove --depth")
    if form == "required-keep" and depth is not None:
        raise UserError("--form required-keep: the program gives the layers in each call; remove --depth")
    if int8 and fp16:
        raise UserError("give --int8 or --fp16, not both")
    if utterances and dev is None:
        raise UserError("--utterances has no effect without --dev; give --dev DIR")
    if max_loss is not None and (not int8 or dev is None or form == "depth"):
        raise UserError("--max-loss needs --int8 and --dev, and all layers, not --form depth; correct the options")
    options = Options(
        form=form or "any-depth", input=source or "features", precision="int8" if int8 else "fp16" if fp16 else "float32",
        depth=depth, dev=dev, utterances=utterances, max_loss=max_loss, licence=licence,
    )  # fmt: skip
    experiment = load_experiment(exp)
    found = find_plan(experiment, plan)
    if web:
        path = web / MODEL
        exported = export_page(experiment, found, web, options)
    else:
        assert to is not None
        path = to
        exported = to_file(experiment, found, path, options)
    depths = ", ".join(str(row.depth) for row in exported.depths)
    size, default = f"{path.stat().st_size / 1e6:.1f} MB", f"; runs {exported.depth} layers by default"
    say(f"{path}: {size}, depths {depths}{default if exported.form == 'any-depth' else ''}")
    if web:
        say(f"next: cd {web} && npm install onnxruntime-web && python3 -m http.server")


@app.command()
def set_depth(
    file: Annotated[Path, typer.Argument(help="an ONNX file of `asrprune export`")],
    depth: Annotated[int, typer.Argument(min=1, help="number of layers that run by default from now on")],
) -> None:
    """Change the depth that an exported model runs by default."""
    from asrprune.export.build import set_depth as run

    exported = run(file, depth)
    say(f"{file}: runs layers {','.join(map(str, exported.at(depth).keep))} by default")
