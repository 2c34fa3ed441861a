"""Every stage of the LibriSpeech and TED-LIUM recipes on real speech in these layouts, with less of conf/sample.yaml."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from layouts import as_release_3

from asrprune.data.tables import read_table
from asrprune.data.unpack import unpack

ROOT = Path(__file__).resolve().parents[2]
LIBRISPEECH, TEDLIUM = ROOT / "../shared/data/librispeech", ROOT / "../shared/data/tedlium_like"
DEPTHS = (3, 2, 1)
# Whether every stage runs does not depend on these numbers.
LESS = (
    "--set train.epochs=1 --set augment.speeds=[1.0] --set model.num_layers=3 --set model.taps=[1] --set prune.depths=[3,2,1]"
)
pytestmark = pytest.mark.slow


def _run(recipe: str, folder: Path, download_dir: Path) -> str:
    command = [str(ROOT / f"egs/{recipe}/run.sh"), "--config", "conf/sample.yaml", "--download_dir", str(download_dir)]
    command += ["--datadir", str(folder / "data"), "--expdir", str(folder / "exp"), "--nj", "1", "--config_opts", LESS]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _check(recipe: str, folder: Path, download_dir: Path, tests: tuple[str, ...]) -> None:
    """Run the recipe twice: the first run ends with a report on the test sets, the second has nothing to do."""
    before = {path: path.stat().st_mtime_ns for path in download_dir.rglob("*")}
    _run(recipe, folder, download_dir)
    rows = json.loads((folder / "exp/sample/results.json").read_text())["rows"]
    strategies = ("iterative", "svcca", "influence", "lowest", "every")
    assert sorted((row["set"], row["strategy"], row["depth"]) for row in rows) == sorted(
        (test, strategy, depth) for test in tests for strategy in strategies for depth in DEPTHS
    )
    for row in rows:
        texts = read_table(folder / "data" / row["set"] / "text").values()
        assert row["ref_words"] == sum(len(text.split()) for text in texts)
    assert (folder / "exp/sample/report.html").is_file()
    assert _run(recipe, folder, download_dir).count("done before") == 12
    assert {path: path.stat().st_mtime_ns for path in download_dir.rglob("*")} == before


@pytest.mark.skipif(not LIBRISPEECH.is_dir(), reason=f"{LIBRISPEECH} is not there")
def test_librispeech(tmp_path: Path) -> None:
    _check("librispeech", tmp_path, LIBRISPEECH, ("test_clean", "test_other"))


@pytest.mark.skipif(not TEDLIUM.is_dir(), reason=f"{TEDLIUM} is not there")
def test_tedlium2(tmp_path: Path) -> None:
    _check("tedlium2", tmp_path, TEDLIUM, ("test",))


@pytest.mark.skipif(not TEDLIUM.is_dir(), reason=f"{TEDLIUM} is not there")
def test_tedlium3(tmp_path: Path) -> None:
    """The same talks in the layout of release 3, unpacked by the user."""
    unpack(TEDLIUM / "TEDLIUM_release2.tar.gz", tmp_path / "release 2")
    as_release_3(tmp_path / "release 2/TEDLIUM_release2", tmp_path / "down loads")
    _check("tedlium3", tmp_path / "run", tmp_path / "down loads", ("test",))
