"""What the attacks share: a file that must survive them, and how a command refuses one."""

import os
from dataclasses import dataclass
from pathlib import Path

from commands import Done

CONTENT = "still here"


@dataclass(frozen=True)
class Canary:
    """A file beside an attack. Unpickling it, or what a shell makes of its path, would change it."""

    path: Path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"rm {self.path}",)

    def is_alive(self) -> bool:
        """Whether the file is as it was, and alone."""
        alone = os.listdir(self.path.parent) == [self.path.name]
        return alone and self.path.is_file() and self.path.read_text() == CONTENT


def refused(done: Done, command: str, *parts: str) -> None:
    """Check that a command ended with a user's mistake, in one sentence that has all ``parts``."""
    assert done.code == 1, done
    assert "Traceback" not in done.err + done.out
    said = [line for line in done.err.splitlines() if line.startswith("asrprune ")]
    assert len(said) == 1, done.err
    assert said[0].startswith(f"asrprune {command}: error: "), done.err
    for part in parts:
        assert part in said[0], (part, done.err)
