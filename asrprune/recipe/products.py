"""The output files of a stage, and the check for lost or damaged ones."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from asrprune.recipe.stage import Stage
from asrprune.runtime.files import digest_of


def are_there(stage: Stage) -> bool:
    """Return whether there is a file or directory for each of ``makes``."""
    return all(any(True for _ in _found(pattern)) for pattern in stage.makes)


def products_of(stage: Stage) -> dict[str, str]:
    """Return the digest of each output file of a stage, by its path relative to the home of the stage.

    Files that people may edit, such as data directories, have no digest: the stage runs again only if they are missing.
    """
    if stage.editable:
        return {}
    files = {file for pattern in stage.makes for file in _found(pattern) if file.is_file()}
    return {os.path.relpath(file, stage.home): digest_of(file) for file in sorted(files)}


def damaged(stage: Stage, made: Mapping[str, str]) -> list[str]:
    """Return the files that are not there any more, or are not what the stage made."""
    paths = {name: stage.home / name for name in made}
    return [name for name, path in paths.items() if not path.is_file() or digest_of(path) != made[name]]


def _found(pattern: Path) -> Iterator[Path]:
    """Yield the existing paths that match a pattern such as ``decode/test/*/text``; without a ``*`` it is a plain path."""
    fixed = pattern
    while "*" in str(fixed):
        fixed = fixed.parent
    if fixed == pattern:
        yield from [pattern] if pattern.exists() else []
    else:
        yield from fixed.glob(str(pattern.relative_to(fixed)))
