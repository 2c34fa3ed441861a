"""The output files of a stage, and the check for lost or damaged ones."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from asrprune.recipe.needs import are_recorded
from asrprune.recipe.stage import Stage
from asrprune.runtime.files import digest_of, has_digest, sha256_of


def are_there(stage: Stage) -> bool:
    """Return whether there is a file or directory for each of ``makes``."""
    return all(any(True for _ in _found(pattern)) for pattern in stage.makes)


def products_of(stage: Stage) -> dict[str, str]:
    """Return the digest of each output file of a stage, by its path relative to the home of the stage.

    Files that people may edit, such as data directories, do not count: the stage runs again only if they are missing. Only the
    lists of recordings do, see ``damaged``.
    """
    makes = _lists(stage) if stage.editable else stage.makes
    files = {file for pattern in makes for file in _found(pattern) if file.is_file()}
    digest = digest_of if stage.huge else sha256_of
    return {os.path.relpath(file, stage.home): digest(file) for file in sorted(files)}


def damaged(stage: Stage, made: Mapping[str, str]) -> list[str]:
    """Return what is not there any more, or is not what the stage made.

    Lost recordings of an editable data directory count only if its wav.scp is as it was made, because the stage replaces it.
    """
    same = {name for name, digest in made.items() if has_digest(stage.home / name, digest)}
    changed = [] if stage.editable else [name for name in made if name not in same]
    for wav_scp in _lists(stage):
        edited = stage.editable and os.path.relpath(wav_scp, stage.home) not in same
        if not edited and not are_recorded(wav_scp):
            changed.append(f"recordings of {wav_scp.parent.name}")
    return changed


def _lists(stage: Stage) -> list[Path]:
    """Return the lists of the recordings that a stage makes."""
    return [directory / "wav.scp" for directory in stage.makes_audio]


def _found(pattern: Path) -> Iterator[Path]:
    """Yield the existing paths that match a pattern such as ``decode/test/*/text``; without a ``*`` it is a plain path."""
    fixed = pattern
    while "*" in str(fixed):
        fixed = fixed.parent
    if fixed == pattern:
        yield from [pattern] if pattern.exists() else []
    else:
        yield from fixed.glob(str(pattern.relative_to(fixed)))
