"""The output of a command: results go to stdout and to the log."""

import logging
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table


log_only = logging.getLogger("asrprune.log_only")  # messages for the log file only
log_only.addHandler(logging.NullHandler())


class LogFile(logging.FileHandler):
    """A log file that raises an error if it cannot be written."""

    def handleError(self, record: logging.LogRecord) -> NoReturn:
        """Raise the exception; logging would print its traceback and continue."""
        raise


def show(table: "Table") -> None:
    """Print a table on stdout; outside a terminal it is 160 columns wide."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


def say(text: str) -> None:
    """Print a result on stdout and write it to the log."""
    typer.echo(text)
    log_only.info("%s", text)
