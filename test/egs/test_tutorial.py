"""docs/tutorial.md, followed to the letter, with the tiny corpus and model in the place of those that take minutes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = "./run.sh --config conf/tiny.yaml --exp_tag train --local_opts '--config conf/corpus_tiny.yaml' --nj 1"


def _commands() -> list[str]:
    """The shell blocks that come after the set-up."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "docs/tutorial.md").read_text(), re.MULTILINE | re.DOTALL)
    setup, *others = blocks
    assert setup == "make .venv/.mini\nsource .venv/bin/activate\n"
    return others


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "data", "exp", ".remembered", "paper", "depths", "figures")
    for recipe in ("common", "mini"):
        shutil.copytree(ROOT / "egs" / recipe, tmp_path / "egs" / recipe, ignore=ignored)
    script = "set -euo pipefail\n" + "\n".join(_commands()).replace("conf/corpus.yaml", "conf/corpus_tiny.yaml")
    conformer = TINY.replace("--exp_tag train ", "")
    script = script.replace("\n./run.sh\n", f"\n{TINY}\n").replace(
        "./run.sh --exp_tag conformer", f"{conformer} --exp_tag conformer"
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (said,) = re.findall(r"^said: (.*)$", done.stdout, re.MULTILINE)
    assert set(said.split()) <= {"play", "pause", "next", "back", "louder", "softer", "stop", "again", "radio", "record",
                                 "shuffle", "favourite", "one", "two", "three", "four"}  # fmt: skip
    recipe = tmp_path / "egs/commands"
    assert "depth that fits: 4" in done.stdout
    assert "num_layers: 2" in (recipe / "exp/small/config.yaml").read_text()
    assert "type: conformer" in (recipe / "exp/conformer/config.yaml").read_text()
    assert (recipe / "exp/train/report.html").is_file()
