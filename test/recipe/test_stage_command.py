"""Running a command of a stage: log, exit status, signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import wait_for

from asrprune.recipe.command import run_command

# Runs a command that tells when it is there and which signal ended it, and says how run_command ended.
PARENT = """
import sys
from pathlib import Path
from asrprune.recipe.command import run_command
from asrprune.runtime.signals import raise_interrupts
raise_interrupts()
try:
    print("status", run_command(sys.argv[2:], Path(sys.argv[1])))
except KeyboardInterrupt:
    print("interrupted")
"""
# In Python, because bash sometimes misses a SIGINT that comes just as a command that it waits for ends.
CHILD = """
import os, signal, sys, time
from pathlib import Path

def tell(number, frame):
    print("got", signal.Signals(number).name[3:], flush=True)
    sys.exit(0 if number == signal.SIGTERM else 7)

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, tell)
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(30)
"""


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_is_shown_and_appended_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    code = "import sys; print('out', flush=True); print('err \\xe4', file=sys.stderr, flush=True)"
    assert run_command(_python(code), log) == 0
    assert log.read_text(encoding="utf-8") == "before\nout\nerr ä\n"
    assert capfd.readouterr().out == "out\nerr ä\n"


def test_asrprune_writes_its_log_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/asrprune"
    program.parent.mkdir()
    program.write_text('#!/usr/bin/env bash\necho "$#: $*" > "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    log = tmp_path / "a log"
    assert run_command(["asrprune", "train", "--exp", "x"], log) == 0
    assert log.read_text() == f"5: --log {log} train --exp x\n"


@pytest.mark.parametrize(("code", "status"), [("exit 3", 3), ("kill -9 $$", 137), ("true", 0)])
def test_the_exit_status_is_that_of_shells(code: str, status: int, tmp_path: Path) -> None:
    assert run_command(["bash", "-c", code], tmp_path / "log") == status


def test_a_command_that_is_not_there_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["no-such-program", "x"], tmp_path / "log") == 127
    assert capfd.readouterr().err == "no-such-program: command not found\n"


@pytest.mark.parametrize("code", ["exit 130", "kill -INT $$", "exit 143", "kill -TERM $$"])
def test_a_command_that_noticed_the_signal_first_was_interrupted(code: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_command(["bash", "-c", code], tmp_path / "log")


def _start(tmp_path: Path, ignored: tuple[signal.Signals, ...] = ()) -> tuple["subprocess.Popen[str]", int]:
    """A process in ``run_command``, and the id of the command that it runs."""

    def listen() -> None:  # background jobs of a shell ignore SIGINT
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    there = tmp_path / "there"
    command = [*_python(PARENT), str(tmp_path / "log"), *_python(CHILD), str(there)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=listen)
    wait_for(lambda: there.exists() and there.read_text().strip() != "", 60)
    return process, int(there.read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_command_which_is_waited_for(number: signal.Signals, tmp_path: Path) -> None:
    process, child = _start(tmp_path)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert out == f"got {number.name[3:]}\ninterrupted\n", "even if the command ended well"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_killed_run_ends_its_command(tmp_path: Path) -> None:
    process, child = _start(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not Path(f"/proc/{child}").exists(), 10)


def test_nohup_stays_nohup(tmp_path: Path) -> None:
    process, _ = _start(tmp_path, ignored=(signal.SIGHUP,))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert out == "got TERM\ninterrupted\n"


def test_handlers_are_as_before_afterwards(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run_command(["true"], tmp_path / "log")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
