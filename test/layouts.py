"""Layouts of corpora that several tests make from another one."""

import shutil
from pathlib import Path


def as_release_3(release_2: Path, target: Path) -> None:
    """Lay the talks of a TEDLIUM_release2 out as ``target``/TEDLIUM_release-3: the legacy sets are links into data/."""
    data = target / "TEDLIUM_release-3/data"
    for path in release_2.glob("*/s[pt]?/*"):
        kind = path.parent.name
        (data / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, data / kind)
        link = target / "TEDLIUM_release-3/legacy" / path.relative_to(release_2)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../../data/{kind}/{path.name}")
