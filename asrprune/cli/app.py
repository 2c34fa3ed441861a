"""The command line itself: its log, its signals, and how a command ends."""

import logging
import math
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from asrprune.cli.failures import fail, our_part, users_part
from asrprune.cli.screen import Lines, LogFile, log_only
from asrprune.runtime.memory import keep_freed_memory
from asrprune.runtime.progress import is_first

_SAME_SIGNAL_S = 1.0  # signals that are no further apart are one


def _interrupt() -> Callable[[int, FrameType | None], None]:
    """A handler of signals that raises KeyboardInterrupt, but not for a signal that follows at once.

    Ctrl-C in a recipe comes twice, from the terminal and from `asrprune stage`; the second must not cut the cleaning up short.
    """
    last = -math.inf

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _SAME_SIGNAL_S:
            raise KeyboardInterrupt

    return handle


class _Commands(TyperGroup):
    """All commands; whatever one of them raises becomes one sentence on stderr and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # click's Context in old typers
        """Run what the command line asks for."""
        interrupt = _interrupt()
        signal.signal(signal.SIGTERM, interrupt)  # a stopped job cleans up as an interrupted one does
        for number in (signal.SIGINT, signal.SIGHUP):  # as one whose terminal is gone; nohup ignores it
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupt)
        keep_freed_memory()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail(ctx, "interrupted; nothing is half-written, run the same command again", 130)
        except Exception as error:
            if type(error).__module__.startswith(("click", "typer")):  # wrong usage, which typer explains
                raise
            if sentence := users_part(error):
                fail(ctx, sentence, 1)
            fail(ctx, our_part(error, ctx.params.get("log")), 70)


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
    told = logging.INFO if is_first() else logging.ERROR  # of several processes one speaks
    level = max(told, logging.WARNING) if quiet else told
    for handler in handlers:
        handler.setFormatter(Lines("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=handlers, force=True)
    log_only.setLevel(told)
    log_only.info("$ %s", shlex.join(["asrprune", *sys.argv[1:]]))
    for noisy in ("lightning_fabric", "lightning", "matplotlib", "fontTools", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
