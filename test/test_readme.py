"""README.md and docs/results.md show what the comparisons say, not what they said; no link is dead."""

import re
import shutil
from pathlib import Path

import pytest
from scripts import load_script

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
tables = load_script("tools/readme_tables.py")
filled = tables.filled


def test_their_tables_are_those_of_the_summaries() -> None:
    assert "<!-- table pruned_test of egs/speechocean762/conf/phones_depths.yaml -->" in (ROOT / "README.md").read_text()
    for block in ("verdict of egs/mini", "table pruned_test of egs/mini", "verdict of egs/an4", "table pruned_test of egs/an4"):
        assert f"<!-- {block}/conf/paper.yaml -->" in (ROOT / "docs/results.md").read_text()
    for name in tables.FILES:
        text = (ROOT / name).read_text()
        assert filled(text) == text, f"{name} is behind: python tools/readme_tables.py"


DOCUMENTS = [path for pattern in ("*.md", "docs/*.md", "egs/*.md", "egs/*/*.md", "tools/*/*.md") for path in ROOT.glob(pattern)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_figures_and_documents_that_are_linked_to_are_there(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_a_table_that_is_not_there_is_said(tmp_path: Path) -> None:
    recipe = tmp_path / "egs/mini"
    shutil.copytree(ROOT / "egs/mini/conf", recipe / "conf")
    shutil.copytree(ROOT / "egs/mini/paper", recipe / "paper", ignore=shutil.ignore_patterns("cells", "figures"))
    text = "before\n<!-- table {} of egs/mini/conf/paper.yaml -->\nold\n<!-- end -->\nafter\n"
    made = filled(text.format("cost"), tmp_path)
    assert "old" not in made
    assert made.startswith("before\n<!-- table cost of")
    assert "| both, once | 1 |" in made
    assert filled(made, tmp_path) == made
    with pytest.raises(
        UserError, match=r"paper\.yaml: has no table rtf; it has wer_test, pruned_test, power_test, speed, cost"
    ):
        filled(text.format("rtf"), tmp_path)


def test_a_verdict_is_that_of_the_summary(tmp_path: Path) -> None:
    recipe = tmp_path / "egs/mini"
    shutil.copytree(ROOT / "egs/mini/conf", recipe / "conf")
    shutil.copytree(ROOT / "egs/mini/paper", recipe / "paper", ignore=shutil.ignore_patterns("cells", "figures"))
    text = "before\n<!-- verdict of egs/mini/conf/paper.yaml -->\noutdated\n<!-- end -->\nafter\n"
    made = filled(text, tmp_path)
    assert made.startswith("before\n<!-- verdict of egs/mini/conf/paper.yaml -->\n\n**On test one model (both)")
    assert "outdated" not in made
    summary = read_json(recipe / "paper/summary.json")
    for test in summary["tests"]:
        test["outcome"] = "passes"
    write_json(recipe / "paper/summary.json", summary)
    assert "is not worse than models trained for each depth, plain or interctc, at any depth" in filled(made, tmp_path)
