"""Readers of files, whatever is in them: only a UserError may come out. tools/fuzz looks longer."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scripts import load_script

fuzz = load_script("tools/fuzz/parsers.py")
SHORT = settings(
    max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)  # fmt: skip


@pytest.mark.parametrize("name", fuzz.PARSERS)
def test_the_seeds_are_read(name: str, tmp_path: Path) -> None:
    parser = fuzz.PARSERS[name]
    assert any(parser.survives(seed, tmp_path) for seed in parser.seeds)


@pytest.mark.parametrize("name", fuzz.PARSERS)
@SHORT
@given(
    draw=st.randoms(use_true_random=False), content=st.none() | st.binary(max_size=60) | st.text(max_size=40).map(str.encode)
)
def test_whatever_is_in_a_file(name: str, draw: random.Random, content: bytes | None, tmp_path: Path) -> None:
    parser = fuzz.PARSERS[name]
    damaged = fuzz.mutated(draw.choice(parser.seeds), draw) if content is None else content
    parser.survives(damaged, tmp_path)
