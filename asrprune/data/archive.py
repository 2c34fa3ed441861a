"""The archives of features in a data directory: what completes one, and where it is if the directory was moved."""

import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from asrprune.runtime.errors import UserError
from asrprune.runtime.records import Record

STORE = "fbank"  # the folder of the archives in a data directory
CONTENTS = ".json"


class Contents(Record):
    """The file that completes an archive: lengths and checksums of its utterances, digests of its other files."""

    made_by: ClassVar[str] = "stage 2 (`asrprune fbank`)"
    frames: dict[str, int]
    crc: dict[str, str]
    files: dict[str, str]
    frontend: dict[str, Any] = Field({})  # the numbers of the features; earlier versions did not record them


def entry_now(directory: Path, entry: str) -> str:
    """Return an entry of feats.scp, which names an archive by its absolute path, as it is after a move of the directory."""
    path, _, offset = entry.rpartition(":")
    own = directory / STORE / Path(path).name
    return f"{own}:{offset}" if not os.path.exists(path) and own.is_file() else entry


def frontend_of(entry: str) -> dict[str, Any]:
    """Return the numbers with which `asrprune fbank` computed the features of an entry; empty if they are not known."""
    try:
        return Contents.read(Path(f"{entry.rpartition(':')[0].removesuffix('.ark')}{CONTENTS}")).frontend
    except (UserError, OSError, ValueError):  # it is not there, or is a file of another program
        return {}
