"""A file that must survive the attacks."""

import os
from dataclasses import dataclass
from pathlib import Path

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
