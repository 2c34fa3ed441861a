"""Scripts that are no part of the package, as tests reach them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_script(path: str) -> ModuleType:
    """A script below the project's root as a module: several are called ``local/data.py``."""
    spec = importlib.util.spec_from_file_location(path.removesuffix(".py").replace("/", "_"), ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refusal(status: int, capsys: pytest.CaptureFixture[str], data_dir: Path) -> str:
    """What a script says that has failed with this status: one sentence; it has written nothing."""
    assert status == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert not data_dir.exists()
    return error


def edit(path: Path, old: str, new: str) -> None:
    """Replace a part of a file."""
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything in a directory: equal if nobody has written there."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in directory.rglob("*")}
