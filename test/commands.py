"""A command of asrprune as a test sees it, run in this process: importing torch anew for each would take seconds."""

import contextlib
import io
import logging
import sys
from dataclasses import dataclass
from unittest.mock import patch

from asrprune.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def asrprune(*arguments: object) -> Done:
    """Run ``asrprune ARGUMENTS``."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    argv = ["asrprune", *map(str, arguments)]
    with patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for handler in root.handlers:
                with contextlib.suppress(OSError):  # a log on a full disk
                    handler.close()
            root.handlers[:] = before
            root.setLevel(level)
    return Done(code, out.getvalue(), err.getvalue())
