"""Commands that train."""

from pathlib import Path
from typing import Annotated

import typer

from asrprune.cli.app import app
from asrprune.cli.options import ConfigFile, ExpDir, IsDev, Overrides, Threads, check_dev, use_threads
from asrprune.cli.screen import say


@app.command()
def train(
    config: ConfigFile,
    exp: ExpDir,
    train_dir: Annotated[Path, typer.Option("--train", help="training data directory, with features")],
    dev_dir: Annotated[Path, typer.Option("--dev", help="development data directory, with features")],
    bpe_model: Annotated[Path, typer.Option("--bpe", help="bpe.model")],
    cmvn: Annotated[Path, typer.Option("--cmvn", help="CMVN statistics")],
    is_dev: IsDev = False,
    ngpu: Annotated[int, typer.Option("--ngpu", min=0, help="GPUs of each machine, one process per GPU; 0: the CPU")] = 0,
    nproc: Annotated[int, typer.Option("--nproc", min=1, help="processes of each machine, on the CPU")] = 1,
    num_nodes: Annotated[int, typer.Option("--num-nodes", min=1, help="number of machines; start this command on each")] = 1,
    threads: Threads = None,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Train a model, or continue a killed run."""
    automatic = use_threads(threads, num_processes=max(ngpu, nproc))
    from asrprune.config.load import read_config
    from asrprune.train.start import train as run

    check_dev(dev_dir, is_dev)
    run(read_config(config, set_), exp, train_dir, dev_dir, bpe_model, cmvn, ngpu, nproc, num_nodes, automatic)


@app.command()
def average(
    exp: ExpDir,
    count: Annotated[int | None, typer.Option("--count", min=1, help="best epochs to average; default: train.average")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="licence of the training data, for the model card")] = None,
) -> None:
    """Average the best epochs into model.safetensors."""
    from asrprune.experiment.store import read_experiment_config
    from asrprune.train.average import average_best

    rate = read_experiment_config(exp).scoring.in_units("WER")
    for member in average_best(exp, count, licence):
        say(f"epoch {member.epoch}: dev {rate} {member.wer:.2f} %")
    say(f"{exp / 'model.safetensors'}")
