"""The command line: its log, its signals, and the end of a command."""

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from asrprune.cli.failures import bug_message, fail
from asrprune.cli.screen import Lines, LogFile, log_only
from asrprune.runtime.errors import printable
from asrprune.runtime.failures import INTERRUPTED, user_message
from asrprune.runtime.memory import keep_freed_memory
from asrprune.runtime.progress import is_first
from asrprune.runtime.signals import raise_interrupts, status_of


class _Commands(TyperGroup):
    """The group of all commands. An error of a command becomes one sentence on stderr and an exit status."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # click's Context in old typers
        """Run the command."""
        raise_interrupts()
        keep_freed_memory()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            fail(ctx, INTERRUPTED, status_of(error))
        except Exception as error:
            if type(error).__module__.startswith(("click", "typer")):  # wrong usage, for which typer prints a message
                raise
            if sentence := user_message(error):
                fail(ctx, sentence, 1)
            fail(ctx, bug_message(error, ctx.params.get("log")), 70)


app = typer.Typer(
    cls=_Commands,
    name="asrprune",
    help="Train a speech recogniser once, run it at any depth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    log: Annotated[Path | None, typer.Option("--log", help="append the log to this file, too")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="results, warnings and errors only")] = False,
) -> None:
    screen = logging.StreamHandler()
    screen.addFilter(lambda record: record.name != log_only.name)
    handlers: list[logging.Handler] = [screen]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(LogFile(log, encoding="utf-8"))
    told = logging.INFO if is_first() else logging.ERROR  # of several training processes only one logs
    level = max(told, logging.WARNING) if quiet else told
    for handler in handlers:
        handler.setFormatter(Lines("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=handlers, force=True)
    log_only.setLevel(told)
    log_only.info("$ %s", printable(shlex.join(["asrprune", *sys.argv[1:]])))
    for noisy in ("lightning_fabric", "lightning", "matplotlib", "fontTools", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
