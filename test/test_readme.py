"""README.md shows what the comparisons say, not what they said."""

import re
import shutil
from pathlib import Path

import pytest
from scripts import load_script

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
filled = load_script("tools/readme_tables.py").filled


def test_its_tables_are_those_of_the_summaries() -> None:
    text = (ROOT / "README.md").read_text()
    for block in ("verdict of egs/mini", "table pruned_test of egs/mini", "verdict of egs/an4", "table pruned_test of egs/an4"):
        assert f"<!-- {block}/conf/paper.yaml -->" in text
    assert filled(text) == text, "README.md is behind: python tools/readme_tables.py"


def test_figures_and_documents_that_it_links_to_are_there() -> None:

    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


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
