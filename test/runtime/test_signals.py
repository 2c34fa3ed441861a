"""Signals raise one error, can be deferred, and reach a process whose parent was killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from asrprune.runtime.signals import ENDING, Interrupted, deferred, raise_interrupts, status_of


@pytest.fixture(autouse=True)
def raised(handlers: None) -> None:
    """Signals raise ``Interrupted`` in the test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    raise_interrupts()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_status_is_that_of_shells(number: signal.Signals, status: int) -> None:
    with pytest.raises(Interrupted) as error:
        signal.raise_signal(number)
    assert status_of(error.value) == status
    assert status_of(KeyboardInterrupt()) == 130


def test_deferred_signals_come_at_the_end() -> None:
    seen: list[list[int]] = []

    def work() -> None:
        with deferred() as noted:
            seen.append([*noted])
            signal.raise_signal(signal.SIGTERM)
            seen.append([*noted])

    with pytest.raises(Interrupted, match="SIGTERM"):
        work()
    assert seen == [[], [signal.SIGTERM]]


def test_a_second_signal_is_deferred_unless_it_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    came: list[float] = []

    def work(insistent: bool) -> None:
        nonlocal now
        with deferred(insistent):
            for seconds in (0.5, 2.0, 0.0):  # Ctrl-C in a recipe comes twice within a second
                signal.raise_signal(signal.SIGINT)
                came.append(now)
                now += seconds

    for insistent, times in ((False, [0.0, 0.5, 2.5]), (True, [0.0, 0.5])):
        now = 0.0
        raise_interrupts()
        came.clear()
        with pytest.raises(Interrupted):
            work(insistent)
        assert came == times


def test_nothing_is_raised_without_a_signal() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with deferred() as noted:
        pass
    assert noted == []
    assert [signal.getsignal(number) for number in ENDING] == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_process_is_told_that_its_parent_was_killed() -> None:
    child = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('told', flush=True), sys.exit()))"
    child += "; print('waits', flush=True); time.sleep(60)"
    parent = "import subprocess, sys; from asrprune.runtime.signals import ended_with_parent"
    parent += f"; subprocess.run([sys.executable, '-c', {child!r}], preexec_fn=ended_with_parent())"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        os.kill(process.pid, signal.SIGKILL)
        assert process.stdout.readline() == "told\n"
