"""Stages that are killed, starved or robbed at any moment go on, and end with the results of an undisturbed run.

``FAULTS``: how many faults each stage and command gets; by default those of ``RECIPE`` get 7, one of each kind. ``every``: a
kill at each point where a file is changed, which takes an hour. ``WAYS``: the kinds of faults, instead of all. ``SEED`` draws
others.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("harness.py")
RECIPE = "download data fbank bpe train average svcca search decode score bench report prune fix-data"  # export takes minutes


def disturb(folder: Path, faults: str, *stages: str) -> None:
    """Run the harness; fail if a stage does not go on as it should."""
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed: pip install 'asrprune[mini]'")
    command = [sys.executable, str(HARNESS), str(folder), faults, *stages]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_nothing_is_lost_whatever_happens(tmp_path: Path) -> None:
    faults = os.environ.get("FAULTS")
    disturb(tmp_path / "run", faults or "7", *([] if faults else RECIPE.split()))


@pytest.mark.slow
def test_nothing_is_lost_at_any_write_point(tmp_path: Path) -> None:
    """Of a stage that builds on another one's files; ``FAULTS=every`` tries those of all stages."""
    disturb(tmp_path / "run", "every", "average")
