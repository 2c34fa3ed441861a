"""The needs of a stage: the values of config numbers, and hashes of files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of

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
            raise UserError(f"{name}: no such section or number in the config; known: {', '.join(config)}, {ALL}")
        chosen |= found
    return chosen


def contents_of(paths: Iterable[Path]) -> dict[str, str | None]:
    """Return the SHA-256 of each file, and of the tables of each data directory; None for a missing file.

    The keys are the last two parts of the path, ``train/text``, so that data may be moved.
    """
    files: list[Path] = []
    for path in paths:
        files += [path] if path.is_file() else [path / table for table in _TABLES]
    return {"/".join(file.parts[-2:]): sha256_of(file) if file.is_file() else None for file in files}
