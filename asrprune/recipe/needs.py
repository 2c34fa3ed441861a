"""The needs of a stage: the values of config numbers, and hashes of files."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asrprune.data.tables import split_line
from asrprune.features.audio import is_pipe, stamp_of
from asrprune.runtime.errors import UserError, did_you_mean
from asrprune.runtime.files import sha256_of
from asrprune.runtime.planted import open_plain

ALL = "all"  # stands for the whole config
_TABLES = ("wav.scp", "segments", "text", "utt2spk")  # the files of a data directory from which the others are made


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested config to full names.

    >>> flat({"seed": 1, "train": {"epochs": 2}})
    {'seed': 1, 'train.epochs': 2}
    """
    numbers: dict[str, Any] = {}
    for key, value in values.items():
        numbers |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return numbers


def numbers_of(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers, by full name, of sections (``train``), numbers (``prune.speeds``) or ``all``.

    Args:
        names: the ``needs`` of a stage.
        config: a resolved config.

    Raises:
        UserError: the config has no such section or number.
    """
    numbers = flat(config)
    chosen: dict[str, Any] = {}
    for name in names:
        found = {key: value for key, value in numbers.items() if name == ALL or f"{key}.".startswith(f"{name}.")}
        if not found:
            if "=" in name:
                raise UserError(f"{name}: is the name of no number; to change a number, write --set {name}")
            close = did_you_mean(name, [*config, *numbers])
            raise UserError(f"{name}: no such section or number in the config; known: {', '.join(config)}, {ALL}{close}")
        chosen |= found
    return chosen


def contents_of(paths: Iterable[Path]) -> dict[str, str | None]:
    """Return the SHA-256 of each file, and of the tables of each data directory; None for a missing table.

    The keys are the last two parts of the path, ``train/text``, so that data may be moved.
    """
    files: list[Path] = []
    for path in paths:
        files += [path / table for table in _TABLES] if path.is_dir() else [path]
        files += [speeds] if (speeds := path / "utt2speed").is_file() else []  # most have none
    return {"/".join(file.parts[-2:]): sha256_of(file) if file.is_file() else None for file in files}


def recordings_of(directories: Iterable[Path]) -> dict[str, str]:
    """Return, for each data directory with a wav.scp, a digest of the sizes and modification times of its recordings."""
    return {path.name: _recordings(path / "wav.scp") for path in directories if (path / "wav.scp").is_file()}


def are_recorded(wav_scp: Path) -> bool:
    """Return whether each entry of a wav.scp, if there is one, has a file or is a command."""
    return not wav_scp.is_file() or all(is_pipe(entry) or stamp_of(entry) for entry in _entries(wav_scp))


def _recordings(wav_scp: Path) -> str:
    digest = hashlib.sha256()
    for entry in _entries(wav_scp):
        digest.update(repr(stamp_of(entry)).encode())
    return digest.hexdigest()


def _entries(wav_scp: Path) -> Iterator[str]:
    """Yield the entries of a wav.scp, whatever is wrong with it."""
    with open_plain(wav_scp) as handle:
        for line in handle:
            yield split_line(line.decode("utf-8", "replace"))[1]
