"""The command line: its log, its signals, and the end of a command."""

import contextlib
import logging
import os
import resource
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from asrprune.cli.failures import bug_message, fail
from asrprune.cli.screen import Lines, LogFile, log_only
from asrprune.runtime.errors import UserError, printable
from asrprune.runtime.failures import INTERRUPTED, user_message
from asrprune.runtime.memory import keep_freed_memory
from asrprune.runtime.progress import is_first
from asrprune.runtime.signals import raise_interrupts, status_of
from asrprune.runtime.threads import wait_briefly
from asrprune.runtime.version import version


def _open_many_files() -> None:
    """Raise the limit on open files as far as the system allows: macOS begins with 256, which a training may use up."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # "unlimited" is refused on macOS
        resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else 10240, most))


def _check_here() -> None:
    """Raise a ``UserError`` if the current directory is gone: libraries end the program in ways of their own."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the current directory has been deleted; change to another one: cd /PATH") from None


class _Commands(TyperGroup):
    """The group of all commands. An error of a command becomes one sentence on stderr and an exit status."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # click's Context in old typers
        """Run the command."""
        try:
            raise_interrupts()
            keep_freed_memory()
            wait_briefly()
            _open_many_files()
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            fail(_name(ctx), INTERRUPTED, status_of(error))
        except Exception as error:
            if type(error).__module__.startswith(("click", "typer")):  # wrong usage, for which typer prints a message
                raise
            if sentence := user_message(error):
                fail(_name(ctx), sentence, 1)
            fail(_name(ctx), bug_message(error, ctx.params.get("log")), 70)


def _name(ctx: typer.Context) -> str:
    """Return the name of a command for messages; it is not known before the command begins."""
    return f"asrprune {ctx.invoked_subcommand or ''}".rstrip()


app = typer.Typer(
    cls=_Commands,
    name="asrprune",
    help="Train a speech recogniser once, run it at any depth.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # of all commands
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"asrprune {version()}")
        raise typer.Exit


@app.callback()
def _options(
    log: Annotated[Path | None, typer.Option("--log", help="append the log to this file, too")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="results, warnings and errors only")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    _check_here()
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
