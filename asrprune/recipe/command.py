"""Running a command of a stage: its log, and the signals for it."""

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
    """Run a command, append its output to ``log``, and return its exit status.

    An asrprune command writes the log itself, so its output can go to the terminal directly. The output of any other command
    is copied to the log.

    Raises:
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP was received; the command received it, too, and has ended.
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
    """Return the exit status of a command; with ``log``, copy its output there."""
    captured = {} if log is None else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with _signals_kept() as signals, subprocess.Popen(command, **captured) as process:  # type: ignore[call-overload]
        signals.pass_on_to(process)
        if log is not None:
            _copy(process.stdout.fileno(), log)
        status = process.wait()
    if signals.received or status in (130, -signal.SIGINT):  # the command may receive Ctrl-C before this process
        raise KeyboardInterrupt
    return 128 - status if status < 0 else status  # 128 + signal, as in shells


def _copy(source: int, log: Path) -> None:
    """Copy bytes to stdout and to the end of the log as they come."""
    with open(log, "ab", buffering=0, opener=no_link) as sink:
        while block := os.read(source, 1 << 16):
            sink.write(block)
            sys.stdout.buffer.write(block)
            sys.stdout.flush()


class _Signals:
    """The signals received so far, which are passed on to a process, even if they arrived before it started."""

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
    """Catch signals in this block; ignored signals stay ignored, for nohup."""
    signals = _Signals()
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signals.handle) for number in heard}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
