"""The recipes' own scripts, as tests reach them."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def load_script(recipe: str) -> ModuleType:
    """A recipe's ``local/data.py`` as a module: several have one of this name."""
    spec = importlib.util.spec_from_file_location(f"{recipe}_data", ROOT / f"egs/{recipe}/local/data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything in a directory: equal if nobody has written there."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in directory.rglob("*")}
