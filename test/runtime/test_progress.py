"""Progress: every item comes through, and a log gets a line now and then."""

import io
import logging
from collections.abc import Iterator

import pytest

from asrprune.runtime import progress
from asrprune.runtime.progress import teller, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_log_gets_a_line_every_20_seconds(clock: list[float], caplog: pytest.LogCaptureFixture, capsys: object) -> None:
    caplog.set_level(logging.INFO)
    seen = []
    for item in track(range(10), "epoch 1/2"):
        seen.append(item)
        clock[0] += 9.0
    assert seen == list(range(10))
    assert [record.getMessage() for record in caplog.records] == [
        "epoch 1/2: 3/10, 27 s, about 63 s left",
        "epoch 1/2: 6/10, 54 s, about 36 s left",
        "epoch 1/2: 9/10, 81 s, about 9 s left",
    ]


def test_work_that_is_no_list_tells_how_far_it_is(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tell = teller("talk.wav", 180, unit=" minutes")
    for minute in range(0, 60, 10):
        tell(minute)
        clock[0] += 12.0
    assert [record.getMessage() for record in caplog.records] == [
        "talk.wav: 20/180 minutes, 24 s, about 192 s left",
        "talk.wav: 40/180 minutes, 48 s, about 168 s left",
    ]


def test_quick_work_is_not_mentioned(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(track([1, 2, 3], "quick")) == [1, 2, 3]
    assert not caplog.records


def test_generator_needs_a_total(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def items() -> Iterator[int]:
        for item in range(4):
            clock[0] += 25.0
            yield item

    assert list(track(items(), "slow", 4)) == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records[:2]] == [
        "slow: 0/4, 25 s",  # nothing is done, so nothing tells how long it takes
        "slow: 1/4, 50 s, about 150 s left",
    ]
    with pytest.raises(TypeError):
        next(track(items(), "slow"))


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    assert list(track([1, 2, 3], "fbank train")) == [1, 2, 3]
    assert "fbank train" in terminal.getvalue()
    assert not caplog.records


def test_mistakes_in_the_work_come_through(clock: list[float]) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(track(broken(), "x", 2))
