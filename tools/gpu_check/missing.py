"""What pyproject.toml requires and this interpreter lacks: a requirement a line. Needs nothing but Python."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TESTS = ("pytest>=8",)  # of the extra `dev`


def requirements(pyproject: str) -> list[str]:
    """Those of the package itself.

    >>> requirements('[project]\\ndependencies = [\\n    "torch>=2.6",\\n    "pyyaml>=6.0",\\n]\\n[x]\\ny = ["z"]')
    ['torch>=2.6', 'pyyaml>=6.0']
    """
    found = re.search(r"^dependencies = \[(.*?)^\]", pyproject, re.MULTILINE | re.DOTALL)
    assert found is not None
    return re.findall(r'"(.+?)"', found[1])


def is_missing(requirement: str) -> bool:
    """Whether no version of it is installed."""
    try:
        version(re.split(r"[<>=!~ ]", requirement)[0])
    except PackageNotFoundError:
        return True
    return False


if __name__ == "__main__":
    print("\n".join(filter(is_missing, (*requirements(Path(sys.argv[1]).read_text(encoding="utf-8")), *TESTS))))
