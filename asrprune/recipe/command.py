"""Run a command of a stage: its log, and the signals that are meant for it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from asrprune.runtime.planted import no_link

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_command(command: Sequence[str], log: Path) -> int:
    """Run a command and wait for it, and append to ``log`` all that it says; returns its exit status.

    asrprune writes its log itself, so its output stays a terminal's; that of any other command is copied.

    Raises:
        KeyboardInterrupt: there was a SIGINT, SIGTERM or SIGHUP; the command got it, too, and has ended.
    """
    program, *arguments = command
    try:
        if program == "asrprune":
            return _wait([program, "--log", str(log), *arguments])
        return _wait(command, log)
    except FileNotFoundError:
        print(f"{program}: command not found", file=sys.stderr)
        return 127


def _wait(command: Sequence[str], log: Path | None = None) -> int:
    """The exit status of a command; with ``log`` its output is copied there, too."""
    captured = {} if log is None else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with _signals_kept() as signals, subprocess.Popen(command, **captured) as process:  # type: ignore[call-overload]
        signals.pass_on_to(process)
        if log is not None:
            _copy(process.stdout.fileno(), log)
        status = process.wait()
    if signals.received or status in (130, -signal.SIGINT):  # a command may notice Ctrl-C first
        raise KeyboardInterrupt
    return 128 - status if status < 0 else status  # as shells count signals


def _copy(source: int, log: Path) -> None:
    """Copy bytes to stdout and to the end of the log as they come."""
    with open(log, "ab", buffering=0, opener=no_link) as sink:
        while block := os.read(source, 1 << 16):
            sink.write(block)
            sys.stdout.buffer.write(block)
            sys.stdout.flush()


class _Signals:
    """Signals that arrived, and the process that they are passed on to, those that arrived before it included."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if self._process is not None:
            self._process.send_signal(number)

    def pass_on_to(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        for number in self.received:
            process.send_signal(number)


@contextmanager
def _signals_kept() -> Iterator[_Signals]:
    """Catch signals instead of ending; those that this process ignores stay ignored, as nohup wants it."""
    signals = _Signals()
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signals.handle) for number in heard}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
