"""Commands that choose layers."""

from pathlib import Path
from typing import Annotated

import typer

from asrprune.cli.app import app
from asrprune.cli.options import (
    Context,
    DecoderName,
    Depth,
    ExpDir,
    Gpus,
    IsDev,
    Jobs,
    Layers,
    LmFile,
    PlanName,
    Sbatch,
    Threads,
    Where,
    check_dev,
    decoder_given,
    distinct,
    kept_layers,
    load_experiment,
    named,
    use_threads,
    workers_of,
)
from asrprune.cli.screen import say
from asrprune.config.strategies import STRATEGY_NAMES
from asrprune.runtime.errors import UserError


@app.command()
def svcca(
    exp: ExpDir,
    data: Annotated[Path, typer.Option("--data", help="dev directory, with features")],
    ngpu: Gpus = 0,
    threads: Threads = None,
) -> None:
    """Measure the similarity and the influence of the layers. Writes svcca/SET.npz and a figure."""
    use_threads(threads)
    from asrprune.analysis.measure import measure_layers
    from asrprune.report.plots import draw_svcca

    path = measure_layers(load_experiment(exp, ngpu), named(data))
    say(f"{path}\n{draw_svcca(path)}")


@app.command()
def search(
    exp: ExpDir,
    dev: Annotated[Path, typer.Option("--dev", help="dev directory, with features: never a test set")],
    is_dev: IsDev = False,
    strategy: Annotated[
        list[str] | None, typer.Option("--strategy", help=f"{', '.join(STRATEGY_NAMES)}; default: prune.strategies")
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", "--objective", help="wer or ctc; default: prune.metric")] = None,
    beam: Annotated[
        int | None, typer.Option("--beam", min=1, help="width of the iterative search; default: prune.beam")
    ] = None,
    rerank: Annotated[
        int | None,
        typer.Option("--rerank", min=1, help="proposals of svcca among which the dev set chooses; default: prune.rerank"),
    ] = None,
    decoder: DecoderName = None,
    lm: LmFile = None,
    context: Context = None,
    executor: Where = "local",
    nj: Jobs = 1,
    sbatch: Sbatch = "",
    ngpu: Gpus = 0,
    threads: Threads = None,
) -> None:
    """Find the layers to remove. Writes plans/STRATEGY.json."""
    use_threads(threads, executor)
    from asrprune.config.mistakes import changed
    from asrprune.decode.choose import decoder_of
    from asrprune.experiment.plan import plan_path
    from asrprune.prune.search import check_measured, make_plan

    check_dev(dev, is_dev)
    dev = named(dev)
    workers, experiment = workers_of(executor, nj, sbatch, exp, ngpu), load_experiment(exp)
    asked = {"strategies": strategy, "metric": metric, "beam": beam, "rerank": rerank}
    given = {key: value for key, value in asked.items() if value}
    options = changed(experiment.config.prune, given, "prune")
    if (reason := options.idle().get("metric")) and (decoder or lm or context):
        raise UserError(f"--decoder, --lm and --context have no effect {reason}; leave them out")
    check_measured(experiment, options.strategies, dev)  # before the search, which may take hours
    chosen = decoder_of(experiment, decoder_given(decoder, lm, context))
    with workers:
        for name in options.strategies:
            plan = make_plan(experiment, name, dev, options, workers, chosen)
            rate = experiment.config.scoring.in_units((plan.metric or "").upper()).lower()
            for step in plan.steps:
                score = "" if step.score is None else f", dev {rate} {step.score:.2f}"
                say(f"{name}: depth {step.depth}: {','.join(map(str, step.keep))}{score}")
            say(f"{plan_path(exp, name)}")


@app.command("early-exit")
def early_exit(
    exp: ExpDir,
    dev: Annotated[Path, typer.Option("--dev", help="dev directory, with features: never a test set")],
    sets: Annotated[list[Path] | None, typer.Argument(help="other directories to measure on; the choice ignores them")] = None,
    margin: Annotated[
        float,
        typer.Option("--margin", min=0.0, max=100.0, help="points of WER that early exit may cost on the dev set (95 % bound)"),
    ] = 0.5,
    is_dev: IsDev = False,
    decoder: DecoderName = None,
    lm: LmFile = None,
    context: Context = None,
    executor: Where = "local",
    nj: Jobs = 1,
    sbatch: Sbatch = "",
    ngpu: Gpus = 0,
    threads: Threads = None,
) -> None:
    """Choose how sure a tap must be for an utterance to end there. Writes early_exit.json and a figure."""
    use_threads(threads, executor)
    from asrprune.data.dataset import Corpus
    from asrprune.decode.choose import decoder_of
    from asrprune.decode.threshold import early_exit as run
    from asrprune.experiment.paths import ExperimentPaths
    from asrprune.report.early_exit import draw_early_exit

    check_dev(dev, is_dev)
    directories, given = distinct([dev, *(sets or [])]), decoder_given(decoder, lm, context)
    workers, experiment = workers_of(executor, nj, sbatch, exp, ngpu), load_experiment(exp)
    chosen_on, *others = [Corpus(directory, experiment.tokenizer) for directory in directories]
    with workers:
        made = run(experiment, chosen_on, others, margin, decoder_of(experiment, given), workers)
    path, rate = ExperimentPaths(exp).early_exit, experiment.config.scoring.in_units("WER")
    made.write(path)
    draw_early_exit(made, rate, path.with_suffix(".png"))
    usable = [(exit, threshold) for exit, threshold in zip(made.exits, made.thresholds, strict=False) if threshold <= 1.0]
    shown = ", ".join(f"layer {exit}: {threshold:.3f}" for exit, threshold in usable) or "none before the last layer"
    say(f"{path}: exits and the confidence that they need: {shown}")
    for name, curve in made.curves.items():
        last = curve.by_exit[-1]
        say(f"{name}: {curve.chosen.layers:.1f} layers, {rate} {curve.chosen.wer:.2f} %; all {last.layers:g}: {last.wer:.2f} %")


@app.command()
def prune(
    exp: ExpDir,
    output: Annotated[Path, typer.Argument(help="experiment directory to write")],
    depth: Depth = None,
    layers: Layers = None,
    plan: PlanName = None,
) -> None:
    """Write an experiment that contains only the kept layers."""
    from asrprune.prune import surgery

    experiment = load_experiment(exp)
    keep = kept_layers(experiment, depth, layers, plan)
    surgery.prune(experiment, keep, output)
    say(f"{output}: layers {','.join(map(str, keep))} of {exp}")
