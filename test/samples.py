"""Real speech, if it is there: it is not shipped with the code."""

import tarfile
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"


def first_members(archive: str, suffix: str, count: int) -> list[bytes]:
    """The first ``count`` files of an archive whose names end in ``suffix``, without unpacking the rest."""
    if not (SHARED / archive).exists():
        pytest.skip(f"{SHARED / archive} is not there")
    found: list[bytes] = []
    with tarfile.open(SHARED / archive, "r|*") as tar:
        for member in tar:
            if member.name.endswith(suffix):
                handle = tar.extractfile(member)
                assert handle is not None
                found.append(handle.read())
            if len(found) == count:
                return found
    raise AssertionError(f"{archive} has only {len(found)} files *{suffix}")
