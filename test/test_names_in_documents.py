"""The documents name commands, options and numbers that exist."""

import re
from pathlib import Path

import pytest
import typer
from test_readme import DOCUMENTS, ROOT

from asrprune.cli.commands import app
from asrprune.config.names import numbers

COMMANDS = typer.main.get_command(app).commands
NUMBERS = {number.name for number in numbers()}
SECTIONS = {name.rpartition(".")[0] for name in NUMBERS}


def code(text: str) -> list[str]:
    """Return the lines of code blocks, and what stands between backticks; continued lines are one line."""
    text = re.sub(r"\\\n\s*", " ", text)
    blocks = [line for block in re.findall(r"```.*?\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return blocks + re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL).replace("\n", " "))


def faults(text: str) -> list[str]:
    """Return the commands, options and numbers of a document that do not exist."""
    found = []
    for line in code(text):
        for name, rest in re.findall(r"(?:^|[ ;&|(])(?<!from )asrprune ([a-z][a-z-]+)([^;&|#]*)", line.partition(" -- ")[0]):
            if name not in COMMANDS:
                found.append(name)
                continue
            known = {"--help", *(option for parameter in COMMANDS[name].params for option in parameter.opts)}
            found += [f"{name} {option}" for option in re.findall(r" (--[a-z][\w-]*)", rest) if option not in known]
        named = re.findall(r"--set [\"']?([a-z][a-z_.]*)=", line)
        found += [f"--set {name}" for name in named if name not in NUMBERS | SECTIONS]
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_options_and_numbers_exist(path: Path) -> None:
    assert faults(path.read_text()) == []


def test_what_does_not_exist_is_found() -> None:
    text = (
        "Run `asrprune\nserch --exp x` or\n```\nasrprune train --ex \\\n    x --set train.epoch=2 --set model.layer={}\n```\n"
    )
    assert faults(text) == ["train --ex", "--set train.epoch", "serch"]
