"""The recordings that a user names: files, folders, patterns, standard input."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asrprune.runtime.errors import UserError

STDIN = "-"
ENDINGS = frozenset(  # the audio files of a folder; a file that is given by itself may have any name
    (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd", ".sph", ".caf", ".w64", ".rf64")
)


@dataclass(frozen=True)
class RecordingFile:
    """A recording to transcribe."""

    entry: str  # what ``open_audio`` reads
    name: Path  # the path of its result below an output directory, without an ending


def find_recordings(given: Sequence[str]) -> tuple[list[RecordingFile], list[str]]:
    """Return the recordings in the given order, and a sentence for each folder without audio files.

    A folder means all audio files in it and in its sub-folders. A pattern (with ``*``, ``?`` or ``[``; ``**``: any number of
    folders) means all files and folders that match. Both are sorted by name.
    """
    found: list[RecordingFile] = []
    faults: list[str] = []
    for entry in given:
        for path in _matches(entry):
            if os.path.isdir(path):
                inside = list(_of_folder(Path(path)))
                found += inside
                faults += [] if inside else [f"{path}: has no audio files, whose names end in {', '.join(sorted(ENDINGS))}"]
            else:
                found.append(RecordingFile(path, Path("stdin" if path == STDIN else Path(path).stem)))
    return found, faults


def check_names(recordings: Iterable[RecordingFile], name_of: Callable[[RecordingFile], str] | None = None) -> None:
    """Raise a ``UserError`` if the results of two recordings would have the same name."""
    taken: dict[str, str] = {}
    for recording in recordings:
        name = name_of(recording) if name_of else str(recording.name)
        other = taken.setdefault(name, recording.entry)
        if other != recording.entry:
            raise UserError(
                f"{other} and {recording.entry}: the results of both would be called {name}; rename one, or"
                " transcribe them into different directories"
            )


def _matches(entry: str) -> list[str]:
    """Return what a pattern matches. A name that exists, or matches nothing, stands for itself."""
    if entry == STDIN or os.path.lexists(entry):
        return [entry]
    return sorted(glob.glob(entry, recursive=True)) or [entry]


def _of_folder(folder: Path) -> Iterator[RecordingFile]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            yield RecordingFile(str(path), path.relative_to(folder).with_suffix(""))
