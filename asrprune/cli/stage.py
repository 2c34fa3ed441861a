"""Commands that the run.sh of recipes uses: run stages, read a number of a config."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from asrprune.cli.app import app
from asrprune.cli.options import ConfigFile, ExpDir, Gpus, Overrides
from asrprune.cli.screen import say
from asrprune.runtime.errors import UserError, printable
from asrprune.runtime.signals import status_of


@app.command()
def stage(
    words: Annotated[list[str], typer.Argument(help="after --: stages and commands, each with the number of its words before")],
    config: ConfigFile,
    exp: ExpDir,
    datadir: Annotated[Path, typer.Option("--datadir", help="directory of the data directories")],
    train_set: Annotated[str, typer.Option("--train-set", help="name of the training set in it")],
    dev_set: Annotated[str, typer.Option("--dev-set", help="name of the development set")],
    test_sets: Annotated[str, typer.Option("--test-sets", help="names of the test sets, with spaces between them")],
    lm_text: Annotated[str, typer.Option("--lm-text", help="text of the language model, if not the training set's")] = "",
    first: Annotated[int, typer.Option("--first", help="first stage to run")] = 0,
    last: Annotated[int, typer.Option("--last", help="last stage to run", show_default="all")] = sys.maxsize,
    ngpu: Gpus = 0,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Run the stages of a recipe that are not done. egs/common/run.sh lists them and calls this."""
    from asrprune.config.load import read_config, resolved
    from asrprune.recipe.dependencies import Places, dependencies
    from asrprune.recipe.installation import check_installation
    from asrprune.recipe.run import Recipe, make_homes
    from asrprune.recipe.stage import read_stages

    try:
        numbers = resolved(read_config(config, set_))
        places = Places(datadir, exp, train_set, dev_set, tuple(test_sets.split()), Path(lm_text) if lm_text else None)
        recipe = Recipe(read_stages(words, dependencies(places, numbers)), numbers, say)
        if first > (end := max((stage.number for stage in recipe.stages), default=first)):
            raise UserError(f"--stage {first}: the last stage is {end}")
        make_homes(recipe.stages)
        recipe.run(first, last, lambda: check_installation(exp, ngpu))
    except UserError as error:
        _end(str(error), 1)
    except KeyboardInterrupt as error:
        _end("interrupted; run the same command again to continue", status_of(error))


@app.command()
def number(
    names: Annotated[list[str], typer.Argument(help="full names, e.g. prune.speeds")],
    config: ConfigFile,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Print numbers of a config, one per line, as text or JSON. The line is empty for null, and for numbers without effect."""
    from asrprune.config.load import read_config, resolved
    from asrprune.config.names import numbers
    from asrprune.recipe.needs import flat, numbers_of

    chosen = resolved(read_config(config, set_))
    values = dict.fromkeys(number.name for number in numbers()) | flat(chosen)
    for name in names:
        if name not in values:
            raise UserError(f"{name} is a section; give one of its numbers: {', '.join(numbers_of([name], chosen))}")
        value = "" if values[name] is None else values[name]
        say(value if isinstance(value, str) else json.dumps(value))


def _end(message: str, code: int) -> None:
    """Say in the name of the run.sh in this directory how its run ended."""
    print(printable(f"{Path.cwd().name}/run.sh: {message}"), file=sys.stderr)
    raise typer.Exit(code)
