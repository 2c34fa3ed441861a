"""Stages that are killed, starved or robbed at any moment go on, and end with the results of an undisturbed run.

``FAULTS``: how many faults each stage gets, 7 (one of each kind) by default. ``SEED`` draws others.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("harness.py")


@pytest.mark.slow
def test_nothing_is_lost_whatever_happens(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed: pip install 'asrprune[mini]'")
    command = [sys.executable, str(HARNESS), str(tmp_path / "run"), os.environ.get("FAULTS", "7")]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
