"""The feature archives of a data directory: the JSON file of each archive, and its path after a move of the directory."""

import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from asrprune.runtime.errors import UserError
from asrprune.runtime.records import Record

STORE = "fbank"  # the folder of the archives in a data directory
CONTENTS = ".json"  # the suffix of the file ``Contents`` of an archive


class Contents(Record):
    """The file of an archive that is written last: lengths and checksums of its utterances, digests of its other files."""

    made_by: ClassVar[str] = "stage 2 (`asrprune fbank`)"
    frames: dict[str, int]
    crc: dict[str, str]
    files: dict[str, str]
    frontend: dict[str, Any] = Field({})  # the settings of the features; earlier versions did not record them


def entry_now(directory: Path, entry: str) -> str:
    """Return an entry of feats.scp; if its archive is gone, because the directory was moved, with the path in ``directory``."""
    path, _, offset = entry.rpartition(":")
    own = directory / STORE / Path(path).name
    return f"{own}:{offset}" if not os.path.exists(path) and own.is_file() else entry


def frontend_of(entry: str) -> dict[str, Any]:
    """Return the settings with which `asrprune fbank` computed the features of an entry; empty if they are not known."""
    try:
        return Contents.read(Path(f"{entry.rpartition(':')[0].removesuffix('.ark')}{CONTENTS}")).frontend
    except (UserError, OSError, ValueError):  # the JSON file is missing, or another program wrote it
        return {}
