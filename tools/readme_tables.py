#!/usr/bin/env python3
"""Put the verdicts and tables of the recipes' comparisons into README.md and docs/results.md.

They go between `<!-- verdict of GRID FILE -->` or `<!-- table NAME of GRID FILE -->` and `<!-- end -->`.

python tools/readme_tables.py [FILE ...]      default: these two; after `asrprune compare`, else `make test` complains
"""

import re
import sys
from pathlib import Path

from asrprune.compare.build import verdict_markdown
from asrprune.compare.grid import read_grid
from asrprune.compare.summary import Summary
from asrprune.compare.tables import tables
from asrprune.report.table import markdown
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status
from asrprune.runtime.files import write_text

ROOT = Path(__file__).resolve().parents[1]
FILES = ("README.md", "docs/results.md")
BLOCK = re.compile(r"(<!-- (?:verdict|table (\S+)) of (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, root: Path = ROOT) -> str:
    """The text with every block written anew from ``<name of the grid file>/summary.json`` of its recipe below ``root``.

    Raises:
        UserError: a comparison has no table of that name, or is not there.
    """
    return BLOCK.sub(lambda block: f"{block[1]}\n{_block(block[2], root / block[3])}\n\n{block[4]}", text)


def _block(name: str | None, grid_file: Path) -> str:
    """The table of a name, or the claim."""
    summary, grid = Summary.read(grid_file.parents[1] / grid_file.stem / "summary.json"), read_grid(grid_file)
    if name is None:
        return verdict_markdown(summary, grid, brief=True)
    made = {table.name: table for table in tables(summary, grid)}
    if name not in made:
        raise UserError(f"{grid_file}: has no table {name}; it has {', '.join(made)}")
    return markdown(made[name])


def rewrite(files: list[str]) -> None:
    """Fill the files in place."""
    for path in map(Path, files):
        write_text(path, filled(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: rewrite(sys.argv[1:] or [str(ROOT / name) for name in FILES])))
