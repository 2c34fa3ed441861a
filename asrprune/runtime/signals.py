"""Signals that end a program: raised as ``Interrupted``, deferred to the end of a block, sent when the parent ends."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed
_SAME_S = 1.0  # signals within this time count as one
_PR_SET_PDEATHSIG = 1  # of prctl.h


class Interrupted(KeyboardInterrupt):
    """The error that a signal raises. ``status``: the exit status of shells, 128 + the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"received {signal.Signals(number).name}")
        self.status = 128 + number


def status_of(error: KeyboardInterrupt) -> int:
    """Return the exit status of an interrupted program. A ``KeyboardInterrupt`` of Python itself means Ctrl-C."""
    return error.status if isinstance(error, Interrupted) else 128 + signal.SIGINT


def raise_interrupts() -> None:
    """Let signals raise ``Interrupted`` from now on, so that the program cleans up. Ignored signals (nohup) stay ignored.

    A second signal within a second raises nothing. In a recipe Ctrl-C arrives twice, from the terminal and from
    `asrprune stage`, and the second one must not interrupt the clean-up.
    """
    last = -float("inf")

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _SAME_S:
            raise Interrupted(number)

    for number in ENDING:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


@contextmanager
def deferred(insistent: bool = False, tell: Callable[[int], object] = lambda number: None) -> Iterator[list[int]]:
    """Defer signals to the end of the block. Yield the list of those that have come so far.

    Args:
        insistent: raise a signal at once if it comes a second or more after the first one.
        tell: called with the number of each signal when it comes.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
        yield noted
        return
    handlers = {number: signal.getsignal(number) for number in ENDING}
    before = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    first = float("inf")

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        first = min(first, time.monotonic())
        if insistent and noted and time.monotonic() - first > _SAME_S:
            _restore(before)
            signal.raise_signal(number)
        noted.append(number)
        tell(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        _restore(before)
        if noted:
            signal.raise_signal(noted[0])


def _restore(handlers: "Mapping[signal.Signals, signal._HANDLER]") -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def ended_with_parent() -> Callable[[], None]:
    """Return a ``preexec_fn``: when this process ends, even if it is killed, the system sends SIGTERM to the new process.

    Only Linux can do this; elsewhere the function does nothing.
    """
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def prepare() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # the parent ended before prctl
                os.kill(os.getpid(), signal.SIGTERM)

    return prepare
