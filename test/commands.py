"""A command of asrprune as a test sees it, run in this process: importing torch anew for each would take seconds."""

import contextlib
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from asrprune.cli import main
from asrprune.runtime.errors import UserError


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def asrprune(*arguments: object) -> Done:
    """Run ``asrprune ARGUMENTS``."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    argv = ["asrprune", *map(str, arguments)]
    with patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for handler in root.handlers:
                with contextlib.suppress(OSError):  # a log on a full disk
                    handler.close()
            root.handlers[:] = before
            root.setLevel(level)
    return Done(code, out.getvalue(), err.getvalue())


def refused(done: Done, command: str, *parts: str, faults: int = 1) -> None:
    """Check that ``command`` ended with a user's mistake, said in one sentence (or one each), that has all ``parts``."""
    assert done.code == 1, done
    assert "Traceback" not in done.err + done.out
    said = [line for line in done.err.splitlines() if not re.match(r"\d\d:\d\d:\d\d (INFO|WARNING) ", line)]
    heading = f"asrprune {command}: error:"
    assert said[0].startswith(heading), done.err
    assert len(said) == (1 if faults == 1 else faults + 1), done.err
    for part in parts:
        assert part in " ".join(said), (part, done.err)


def refusal(call: Callable[[], object]) -> str:
    """What a call says that is a user's mistake: one sentence."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with what is in it; locks are empty and may stay."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Check that no file below a folder changes, comes or goes."""
    before = tree(folder)
    yield
    after = tree(folder)
    assert sorted(after) == sorted(before)
    assert after == before
