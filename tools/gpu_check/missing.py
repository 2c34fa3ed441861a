"""What pyproject.toml requires and this interpreter lacks: a requirement a line. Needs nothing but Python."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TESTS = ("pytest>=8",)  # of the extra `dev`


def requirements(pyproject: str) -> list[str]:
    """Those of the package itself, and of training.

    >>> requirements('dependencies = [\\n    "numpy>=1.26",\\n]\\ny = ["z"]\\ntrain = [\\n    "torch>=2.6",\\n]\\n')
    ['numpy>=1.26', 'torch>=2.6']
    """
    lists = re.findall(r"^(?:dependencies|train) = \[(.*?)^\]", pyproject, re.MULTILINE | re.DOTALL)
    assert len(lists) == 2
    return [requirement for block in lists for requirement in re.findall(r'"(.+?)"', block)]


def is_missing(requirement: str) -> bool:
    """Whether no version of it is installed."""
    try:
        version(re.split(r"[<>=!~ ]", requirement)[0])
    except PackageNotFoundError:
        return True
    return False


if __name__ == "__main__":
    print("\n".join(filter(is_missing, (*requirements(Path(sys.argv[1]).read_text(encoding="utf-8")), *TESTS))))
