"""Progress of long work: a bar on a terminal, or a log line every 20 seconds."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)
T = TypeVar("T")
_LOG_EVERY_S = 20.0


def is_first() -> bool:
    """Return whether this process is the first of several training processes, or the only one: it writes logs and files."""
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK")  # torchrun sets all three
    return all(os.environ.get(name, "0") == "0" for name in names)


def track(items: Iterable[T], label: str, total: int | None = None, note: Callable[[], str] = lambda: "") -> Iterator[T]:
    """Yield ``items`` and show the progress, and ``note()``: a bar if stderr is a terminal, else a log line every 20 seconds.

    With several training processes only the first one shows the progress.
    """
    if total is None:
        total = len(items)  # type: ignore[arg-type]
    if not is_first():
        yield from items
    elif sys.stderr.isatty():
        yield from _with_bar(items, label, total, note)
    else:
        yield from _with_lines(items, label, total, note)


def _with_bar(items: Iterable[T], label: str, total: int, note: Callable[[], str]) -> Iterator[T]:
    from rich.console import Console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    last = TextColumn("{task.fields[note]}")
    # Without redirect_stdout=False, rich would send the output on stdout to stderr.
    with Progress(*columns, last, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(label, total=total, note="")
        for item in items:
            yield item
            progress.update(task, advance=1, note=note())


def _with_lines(items: Iterable[T], label: str, total: int, note: Callable[[], str]) -> Iterator[T]:
    tell = teller(label, total, note)
    for done, item in enumerate(items):
        tell(done)
        yield item


def teller(label: str, total: float, note: Callable[[], str] = lambda: "", unit: str = "") -> Callable[[float], None]:
    """Return a function that is called with what is done of ``total``, and logs it every 20 seconds."""
    started = said = time.monotonic()

    def tell(done: float) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _LOG_EVERY_S:
            left = f", about {(now - started) / done * (total - done):.0f} s left" if done else ""
            logger.info("%s: %.0f/%.0f%s, %.0f s%s%s", label, done, total, unit, now - started, left, note())
            said = now

    return tell
