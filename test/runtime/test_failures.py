"""The end of a script: one sentence and a status, whatever stopped it; a bug keeps its traceback."""

import signal
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status, user_message

pytestmark = pytest.mark.usefixtures("handlers")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("no speech here"), "no speech here\n"),
        (OSError(28, "", "x.wav"), "x.wav: no space left on device; free some disk space, then run the command again\n"),
        (BrokenProcessPool("terminated abruptly"), "a worker process was killed, perhaps for lack of memory; lower --nj"),
    ],
)
def test_an_error_that_the_user_can_mend_is_one_sentence(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert exit_status(fail) == 1
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_the_sentence_of_a_worker_is_found_at_once() -> None:
    caught = "Caught UserError in DataLoader worker process 0.\n"
    whole = (
        f"{caught}Original Traceback (most recent call last):\n  f()\nasrprune.runtime.errors.UserError: a.ark: is damaged\n"
    )
    assert user_message(UserError(whole)) == "a.ark: is damaged"
    started = time.process_time()
    faults = f"utt2spk:1: the speaker id `{caught[:-1]}` contains a space\n" * 5000  # of a stranger's directory
    assert user_message(UserError(faults)) == faults.rstrip()
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_script_as_ctrl_c_does(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    signal.signal(number, signal.SIG_DFL)
    assert exit_status(lambda: signal.raise_signal(number)) == 128 + number
    assert capsys.readouterr().err == "interrupted; no file is incomplete, run the same command again\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 / 0)
    assert exit_status(lambda: None) == 0
