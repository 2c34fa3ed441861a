"""The output of a command: results on stdout, and all of it in the log."""

import logging
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table


log_only = logging.getLogger("asrprune.log_only")  # to the log file alone: the screen gets it in another form
log_only.addHandler(logging.NullHandler())


class LogFile(logging.FileHandler):
    """The log file; that it cannot be written is an error like any other."""

    def handleError(self, record: logging.LogRecord) -> NoReturn:
        """Let the exception out, where logging would print its traceback and go on."""
        raise


def show(table: "Table") -> None:
    """Print a table on stdout; outside a terminal it is 160 columns wide."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


def say(text: str) -> None:
    """Print a result on stdout, and write it into the log."""
    typer.echo(text)
    log_only.info("%s", text)
