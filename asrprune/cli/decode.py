"""Commands that run a trained model."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from asrprune.cli.app import app
from asrprune.cli.options import (
    AllowPipes,
    Context,
    DecoderName,
    ExpDir,
    Gpus,
    IsDev,
    Jobs,
    Layers,
    LmFile,
    Sbatch,
    Threads,
    Where,
    check_dev,
    decoder_given,
    distinct,
    load_experiment,
    named,
    use_threads,
    workers_of,
)
from asrprune.cli.screen import say
from asrprune.experiment.paths import ExperimentPaths
from asrprune.runtime.errors import UserError
from asrprune.runtime.planted import inside

logger = logging.getLogger(__name__)


@app.command()
def decode(
    exp: ExpDir,
    directories: Annotated[list[Path], typer.Argument(help="data directories, with features")],
    strategy: Annotated[list[str] | None, typer.Option("--strategy", help="plans to decode; default: prune.strategies")] = None,
    depth: Annotated[list[int] | None, typer.Option("--depth", help="depths to decode; default: prune.depths")] = None,
    layers: Layers = None,
    decoder: DecoderName = None,
    lm: LmFile = None,
    context: Context = None,
    executor: Where = "local",
    nj: Jobs = 1,
    sbatch: Sbatch = "",
    ngpu: Gpus = 0,
    threads: Threads = None,
) -> None:
    """Decode sets at every depth of every plan. Writes decode/SET/STRATEGY_dDEPTH/text."""
    use_threads(threads, executor)
    from asrprune.decode.choose import decoder_of
    from asrprune.decode.sweep import SubModel, decode_set, sub_models
    from asrprune.experiment.plan import parse_layers
    from asrprune.prune.find import find_plan

    if layers is not None and (strategy or depth):
        raise UserError("give either --layers, or --strategy and --depth")
    directories = distinct(directories)
    workers, experiment = workers_of(executor, nj, sbatch, exp, ngpu), load_experiment(exp)
    if layers is not None:
        wanted = [SubModel("layers_" + "".join(layers.split()).replace(",", "_"), parse_layers(layers, experiment.num_layers))]
    else:
        plans = [find_plan(experiment, name) for name in strategy or experiment.config.prune.strategies]
        wanted = sub_models(plans, depth or experiment.config.depths())
    chosen = decoder_of(experiment, decoder_given(decoder, lm, context))
    with workers:
        for directory in directories:
            for output in decode_set(experiment, directory, wanted, workers, chosen):
                say(str(output))


@app.command("tune-lm")
def tune_lm(
    exp: ExpDir,
    dev: Annotated[Path, typer.Option("--dev", help="dev directory, with features: never a test set")],
    lm: LmFile = None,
    is_dev: IsDev = False,
    executor: Where = "local",
    nj: Jobs = 1,
    sbatch: Sbatch = "",
    ngpu: Gpus = 0,
    threads: Threads = None,
) -> None:
    """Choose the weights of a language model on dev. Writes decoder.json, which beam search reads."""
    use_threads(threads, executor)
    from asrprune.config.schema import BeamConfig
    from asrprune.decode.choose import decoder_options
    from asrprune.decode.tune import tune

    check_dev(dev, is_dev)
    workers, experiment = workers_of(executor, nj, sbatch, exp, ngpu), load_experiment(exp)
    options = decoder_options(experiment, decoder_given("beam", lm, None))
    assert isinstance(options, BeamConfig)
    with workers:
        best = tune(experiment, named(dev), options, workers)
    rate = experiment.config.scoring.in_units("WER")
    say(f"{exp}/decoder.json: lm_weight {best.lm_weight:g}, word_bonus {best.word_bonus:g}: dev {rate} {best.wer:.2f} %")


@app.command()
def score(
    exp: ExpDir,
    directories: Annotated[list[Path], typer.Argument(help="decoded data directories")],
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", help="letter case does not count; default: scoring.ignore_case")
    ] = False,
) -> None:
    """Score decoded sets, as `sclite -s` does. Writes score.json and result.txt beside each text."""
    from asrprune.data.tables import open_table
    from asrprune.decode.sweep import check_decoded, check_same_set, features_now
    from asrprune.experiment.store import read_experiment_config, read_model_record
    from asrprune.scoring.sclite import write_score

    for directory in distinct(directories):
        check_same_set(ExperimentPaths(exp).decoded(directory.name), directory)
        references, speakers = open_table(directory / "text"), open_table(directory / "utt2spk")
        decoded = sorted(ExperimentPaths(exp).decoded(directory.name).glob("*/decode.json"), key=_deepest_first)
        if not decoded:
            raise UserError(f"{exp}: {directory.name} is not decoded yet; run stage 8 (`asrprune decode`)")
        config = read_experiment_config(exp)
        scoring, model_sha256 = config.scoring, read_model_record(exp, config).model_sha256
        features = features_now(directory)
        for record in decoded:
            folder = inside(record.parents[1], record.parent.name)
            hypotheses = open_table(folder / "text", allow_empty=True)
            result = write_score(
                folder, references, hypotheses, speakers, ignore_case=ignore_case or scoring.ignore_case,
                output_sha256=check_decoded(folder, model_sha256, features).output_sha256,
            )  # fmt: skip
            low, high = result.wer_ci95
            how = ", letter case ignored" if result.ignore_case else ""
            say(f"{folder}: {scoring.in_units('WER')} {result.wer:.2f} % ({low:.2f} to {high:.2f}){how}")
            if result.case_errors:
                count = result.case_errors
                logger.warning(
                    "%s: in %d errors only the letter case differs; --ignore-case does not count them", folder, count
                )
            if result.form_errors:
                logger.warning(
                    "%s: in %d errors both words look the same, but have other characters; write the transcripts in the form of"
                    " those of the training, for example: uconv -x any-nfc", folder, result.form_errors,
                )  # fmt: skip


def _deepest_first(record: Path) -> tuple[str, int]:
    """Return a sort key: results of a strategy together, the deepest sub-model first."""
    strategy, _, depth = record.parent.name.rpartition("_d")
    return strategy, -int(depth) if depth.isdecimal() else 0


@app.command()
def bench(
    exp: ExpDir,
    data: Annotated[Path, typer.Option("--data", help="data directory with the audio to time")],
    decoder: DecoderName = None,
    lm: LmFile = None,
    context: Context = None,
    allow_pipes: AllowPipes = False,
    ngpu: Gpus = 0,
) -> None:
    """Measure real-time factors by depth. Writes bench.json."""
    from asrprune.decode import benchmark

    experiment = load_experiment(exp, ngpu)
    path = benchmark.bench(
        experiment, named(data), benchmark.keeps_of(experiment), allow_pipes, decoder_given(decoder, lm, context)
    )
    for row in benchmark.Bench.read(path).rows:
        say(f"depth {row.depth}: RTF {row.rtf:.4f}, of which the decoder takes {row.decoder_rtf:.4f}")
    say(str(path))
