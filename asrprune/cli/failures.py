"""The end of a command that fails: one sentence on stderr and in the log, and an exit status."""

import contextlib
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from asrprune.cli.screen import log_only
from asrprune.runtime.errors import printable


def bug_message(error: Exception, log: Path | None) -> str:
    """Write the traceback of a bug to the log, or to stderr without a log; return a sentence about it."""
    if log:
        log_only.error("".join(traceback.format_exception(error)))
    else:
        traceback.print_exception(error)
    where = f"in {log}" if log else "above"
    return f"{type(error).__name__}: {error}; this is a bug of asrprune, please report it; the traceback is {where}"


def fail(command: str, message: str, code: int) -> NoReturn:
    """Write the message of a command to stderr and to the log, and exit."""
    message = printable(message)
    between = "\n" if "\n" in message else " "
    print(f"{command}: error:{between}{message}", file=sys.stderr)
    with contextlib.suppress(OSError):  # a full disk has been reported already
        log_only.error("%s", message)
    sys.exit(code)
