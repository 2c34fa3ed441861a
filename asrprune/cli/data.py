"""Commands on data directories."""

import logging
import re
from pathlib import Path
from typing import Annotated

import typer

from asrprune.cli.app import app
from asrprune.cli.options import AllowPipes, ConfigFile, DataDir, Jobs, Overrides, Sbatch, Where, workers_of
from asrprune.cli.screen import say
from asrprune.runtime.errors import UserError

logger = logging.getLogger(__name__)


@app.command("check-data")
def check_data(
    directories: Annotated[list[Path], typer.Argument(help="Kaldi data directories")],
    audio: Annotated[bool, typer.Option("--audio/--no-audio", help="open every recording, too")] = True,
    features: Annotated[
        bool, typer.Option("--features/--no-features", help="read all features, too, if they are computed")
    ] = True,
    allow_pipes: AllowPipes = False,
) -> None:
    """Check data directories, the training set first. Every fault is printed as file:line: id: what is wrong; how to fix it."""
    from asrprune.data.check import check_data_dir
    from asrprune.data.survey import leaks, lookalikes, sizes

    checked = [check_data_dir(directory, audio, allow_pipes, features) for directory in directories]
    if faults := [fault for one in checked for fault in one.faults]:
        raise UserError("\n".join(faults))
    say(f"{', '.join(map(str, directories))}: no faults")
    for sentence in sizes(checked):
        say(sentence)
    for sentence in (*leaks(checked), *lookalikes(checked)):
        logger.warning(sentence)


@app.command("fix-data")
def fix_data(directory: DataDir) -> None:
    """Sort a data directory and drop broken lines. The original files are kept in .backup/."""
    from asrprune.data.fix import fix_data_dir

    for sentence in fix_data_dir(directory) or [f"{directory}: nothing to correct"]:
        say(sentence)


@app.command()
def perturb(
    source: DataDir,
    target: Annotated[Path, typer.Argument(help="data directory to write")],
    config: ConfigFile,
    search: Annotated[bool, typer.Option("--search", help="use prune.speeds instead of augment.speeds")] = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Copy a data directory at each speed of augment.speeds."""
    from asrprune.config.load import read_config
    from asrprune.data.perturb import write_speed_copies

    numbers = read_config(config, set_)
    copies = write_speed_copies(source, target, numbers.prune.speeds if search else numbers.augment.speeds)
    say(f"{target}: {copies} utterances")


@app.command()
def fbank(
    directories: Annotated[list[Path], typer.Argument(help="Kaldi data directories")],
    config: ConfigFile,
    cmvn: Annotated[Path | None, typer.Option("--cmvn", help="write CMVN statistics of the first directory here")] = None,
    executor: Where = "local",
    nj: Jobs = 1,
    sbatch: Sbatch = "",
    allow_pipes: AllowPipes = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Compute features and CMVN statistics. Existing features are kept."""
    from asrprune.config.load import read_config
    from asrprune.data import extract as features

    options = read_config(config, set_).frontend
    with workers_of(executor, nj, sbatch, directories[0].parent) as workers:
        for directory in directories:
            computed = features.extract(directory, options, workers, allow_pipes)
            say(f"{directory}: archives computed: {computed}" if computed else f"{directory}: features exist already")
    if cmvn is not None:
        features.write_cmvn(cmvn, features.compute_cmvn(directories[0]))


@app.command()
def bpe(
    directory: DataDir,
    output: Annotated[Path, typer.Argument(help="directory for bpe.model and tokens.txt")],
    config: ConfigFile,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Train text units on the transcripts of a data directory."""
    from asrprune.config.load import read_config
    from asrprune.data.packed import Packed
    from asrprune.data.tables import open_table
    from asrprune.data.tokenizer import train_tokenizer

    texts = Packed(text for _, text in open_table(directory / "text"))
    tokenizer = train_tokenizer(texts, read_config(config, set_).tokenizer, output)
    say(f"{output}: {len(tokenizer)} text units, including the blank")


@app.command()
def lm(
    texts: Annotated[
        list[Path], typer.Argument(help="files with one sentence per line: Kaldi's `text`, or plain text with --plain")
    ],
    output: Annotated[Path, typer.Argument(help="ARPA file to write: NAME.arpa, or NAME.arpa.gz to gzip it")],
    order: Annotated[
        int | None,
        typer.Option("--order", min=1, max=6, help="words in an n-gram; default: from a file name such as 3gram.arpa"),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="lines do not begin with an utterance id")] = False,
) -> None:
    """Train an n-gram language model for `--decoder beam`. Smoothing: interpolated modified Kneser-Ney."""
    from asrprune.lm.arpa import write_arpa
    from asrprune.lm.kneser_ney import estimate, read_sentences

    if not output.name.endswith((".arpa", ".arpa.gz")):  # it could be a forgotten output: a text, which would be replaced
        raise UserError(f"{output}: the name of a language model ends in .arpa or .arpa.gz; give such a name as the last one")
    if order is None:
        if not (named := re.match(r"([1-6])gram\b", output.name)):
            raise UserError(f"{output}: the order of the model is not known; add --order N, or use a name such as 3gram.arpa")
        order = int(named[1])
    model = estimate(read_sentences(texts, plain), order)
    write_arpa(output, model)
    counts = ", ".join(f"{len(grams.word)} {number}-grams" for number, grams in enumerate(model.orders, 1))
    say(f"{output}: {counts}")
