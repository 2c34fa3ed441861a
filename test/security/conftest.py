"""A canary for each attack, and copies that may be spoilt."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attacks import CONTENT, Canary


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """An attack that hangs fails."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(120)
    yield
    signal.alarm(0)


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    """A file in a directory of its own."""
    path = tmp_path / "home" / "canary"
    path.parent.mkdir()
    path.write_text(CONTENT)
    return Canary(path)


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """``copy(tiny_data)``: one that may be changed."""
    return lambda source: Path(shutil.copytree(source, tmp_path / source.name))
