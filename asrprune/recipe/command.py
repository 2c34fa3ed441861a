"""Running a command of a stage: its log, and the signals for it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from asrprune.runtime.planted import no_link
from asrprune.runtime.signals import ENDING, Interrupted, deferred, ended_with_parent


def run_command(command: Sequence[str], log: Path) -> int:
    """Run a command, append its output to ``log``, and return its exit status.

    An asrprune command writes the log itself, so its output can go to the terminal directly. The output of any other command
    is copied to the log.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP was received; the command received it, too, and has ended.
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
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int) -> None:
        for process in running:
            process.send_signal(number)

    with (
        deferred(tell=pass_on) as noted,
        subprocess.Popen(command, preexec_fn=ended_with_parent(), **captured) as process,  # type: ignore[call-overload]
    ):
        running.append(process)
        for number in noted:  # they came before it started
            process.send_signal(number)
        if log is not None:
            _copy(process.stdout.fileno(), log)
        status = process.wait()
    status = 128 - status if status < 0 else status  # 128 + signal, as in shells
    if status - 128 in ENDING:  # the command may receive Ctrl-C before this process
        raise Interrupted(status - 128)
    return status


def _copy(source: int, log: Path) -> None:
    """Copy bytes to stdout and to the end of the log as they come."""
    with open(log, "ab", buffering=0, opener=no_link) as sink:
        while block := os.read(source, 1 << 16):
            sink.write(block)
            sys.stdout.buffer.write(block)
            sys.stdout.flush()
