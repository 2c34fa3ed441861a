"""The output of a command: results go to stdout and to the log."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from asrprune.runtime.errors import printable
from asrprune.runtime.planted import no_link

if TYPE_CHECKING:
    from rich.table import Table


log_only = logging.getLogger("asrprune.log_only")  # messages for the log file only
log_only.addHandler(logging.NullHandler())


class Lines(logging.Formatter):
    """The format of lines of the log and the screen. Control characters, which a terminal would obey, are spelt out."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as logging does, but printable."""
        return printable(super().format(record))


class LogFile(logging.FileHandler):
    """A log file that raises an error if it cannot be written."""

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=no_link)

    def handleError(self, record: logging.LogRecord) -> NoReturn:
        """Raise the exception; logging would print its traceback and continue."""
        raise


def open_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed (``>&-``): else the next file would get its descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (open as long as the process)


def show(table: "Table") -> None:
    """Print a table on stdout; outside a terminal it is 160 columns wide."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    console = Console(width=None if sys.stdout.isatty() else 160)
    drawn = [Segment(printable(text), style, control) for text, style, control in console.render(table)]
    with _read_by_somebody():
        console.print(Segments(drawn), end="")


def say(text: str, only_here: bool = False) -> None:
    """Print a result on stdout, and write it to the log.

    If nobody reads stdout any more, as after ``| head -1``, the command finishes its work, which is in files. With
    ``only_here`` the result is in no file, and the command ends.
    """
    text = printable(text)
    with _read_by_somebody(only_here):
        typer.echo(text)
    log_only.info("%s", text)


@contextlib.contextmanager
def _read_by_somebody(only_here: bool = False) -> Iterator[None]:
    """Send stdout to nowhere, or end the command, when its reader has gone."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the same descriptor: Python flushes it at its end
        if only_here:
            raise typer.Exit(128 + signal.SIGPIPE) from None
