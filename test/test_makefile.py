"""The Makefile's set-up: what it installs, when it does not, and what it says if it cannot."""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OLD_PYTHON = f'exec "{sys.executable}" -c "import sys; sys.version_info = (3, 8, 1); $(printf "\\n%s" "$2")"'
NO_VENV_PYTHON = f'exec "{sys.executable}" -c "import sys; sys.modules[\'ensurepip\'] = None; $(printf "\\n%s" "$2")"'
# Stands for .venv/bin/python: notes what it is asked to do; a pip install takes a moment.
FAKE_PYTHON = (
    'echo "begin $*" >>calls; case "$*" in *install*) sleep 0.3; test ! -e broken || exit 1;; esac; echo "end $*" >>calls'
)

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile among files as it expects them, in a folder with a space in its name."""
    folder = tmp_path / "a checkout"
    for package in ("asrprune", "egs/mini/exp", "egs/mini/data", "test", "tools"):
        (folder / package).mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    script(folder / "egs/mini/run.sh", 'echo "begin run.sh $* with $(command -v asrprune)" >>calls')
    return folder


@pytest.fixture
def ready(checkout: Path) -> Path:
    """The checkout with an environment whose python only notes its calls."""
    script(checkout / ".venv/bin/python", FAKE_PYTHON)
    script(checkout / ".venv/bin/asrprune", "true")
    return checkout


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a fresh shell: nothing of the make that may run these tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON", "ARGS"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=inherited, capture_output=True, text=True, timeout=120)


def calls(folder: Path) -> list[str]:
    """What was begun since the last look, without pip's own question."""
    log = folder / "calls"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line.removeprefix("begin ") for line in lines if line.startswith("begin ") and "--version" not in line]


def newer(path: Path) -> None:
    os.utime(path, (time.time() + 5, time.time() + 5))


def test_help_is_the_default_and_lists_every_target(checkout: Path) -> None:
    listed = make(checkout).stdout
    targets = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert {"demo", "test", "lint", "format", "type", "clean"} <= set(targets)
    for target in targets:
        assert f"make {target} " in listed


def test_second_run_does_not_call_pip(ready: Path) -> None:
    assert make(ready, "test", "ARGS=-k score").returncode == 0
    install, tests = calls(ready)
    assert install.startswith("-m pip install")
    assert install.endswith("-c constraints.txt -e .[dev]")
    assert tests == "-m pytest -n auto --dist loadfile -k score"
    make(ready, "test")
    assert calls(ready) == ["-m pytest -n auto --dist loadfile"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed(name: str, ready: Path) -> None:
    make(ready, "test")
    calls(ready)
    newer(ready / name)
    make(ready, "test")
    assert ".[dev]" in calls(ready)[0]


def test_extras_add_up_in_one_environment(ready: Path) -> None:
    make(ready, "demo", "ARGS=--stage 4")
    install, run = calls(ready)
    assert install.endswith(".[mini]")
    assert run == f"run.sh --stage 4 with {ready}/.venv/bin/asrprune"
    make(ready, "test")
    assert calls(ready)[0].endswith(".[dev]")
    make(ready, "demo")
    assert len(calls(ready)) == 1


def test_parallel_make_installs_one_after_the_other(ready: Path) -> None:
    assert make(ready, "-j4", "demo", "test").returncode == 0
    installs = [line.split()[0] for line in (ready / "calls").read_text().splitlines() if " install " in line]
    assert installs == ["begin", "end", "begin", "end"]


def test_failed_installation_leaves_no_stamp(ready: Path) -> None:
    (ready / "broken").touch()
    assert make(ready, "test").returncode != 0
    assert [line for line in calls(ready) if "pytest" in line] == []
    (ready / "broken").unlink()
    make(ready, "test")
    assert ".[dev]" in calls(ready)[0]


def test_failing_tests_fail_make(ready: Path) -> None:
    script(ready / ".venv/bin/python", 'case "$*" in *pytest*) exit 1;; esac')
    assert make(ready, "test").returncode != 0


@pytest.mark.parametrize(
    ("python", "what", "fix"),
    [
        (OLD_PYTHON, "needs Python 3.10 or newer", "PYTHON=python3.12"),
        (NO_VENV_PYTHON, "cannot make environments", "python3-venv"),
    ],
)
def test_unfit_python_is_one_sentence(python: str, what: str, fix: str, checkout: Path) -> None:
    result = make(checkout, "test", f"PYTHON={script(checkout.parent / 'python', python)}")
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1, result.stderr
    assert what in said[0]
    assert fix in said[0]
    assert not (checkout / ".venv").exists()


def test_environment_is_made_and_a_broken_one_remade(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real python and pip; pip finds nothing to install from, so the stamp must not appear."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    script(checkout / ".venv/bin/python", "exit 1")
    result = make(checkout, "test", f"PYTHON={sys.executable}")
    assert result.returncode != 0
    assert "No matching distribution found" in result.stderr
    version = [checkout / ".venv/bin/python", "-m", "pip", "--version"]
    assert str(checkout / ".venv") in subprocess.run(version, capture_output=True, text=True, check=True).stdout
    assert not (checkout / ".venv/.dev").exists()


def test_clean_keeps_data_and_experiments(ready: Path) -> None:
    kept = [ready / "egs/mini/exp/model.safetensors", ready / "egs/mini/data/text", ready / "asrprune/code.py"]
    gone = [ready / ".pytest_cache/x", ready / "asrprune/__pycache__/x.pyc", ready / "egs/mini/__pycache__/x.pyc"]
    for path in [*kept, *gone]:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert make(ready, "clean").returncode == 0
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in [*gone, ready / ".venv"])
