"""The recordings that a user names: files, folders, patterns, standard input."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from asrprune.runtime.errors import UserError

STDIN = "-"
ENDINGS = frozenset(  # the audio files of a folder; a file that is given by itself may have any name
    (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd", ".sph", ".caf", ".w64", ".rf64")
)


_ANY_FOLDERS = re.compile(r"(?:^|(?<=/))\*\*(?:/+|$)")


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
        named = entry == STDIN or os.path.lexists(entry)  # a name that exists stands for itself
        for path in [entry] if named else sorted(_matches(entry)) or [entry]:
            if not named and os.path.exists(path) and not (os.path.isdir(path) or os.path.isfile(path)):
                faults.append(f"{path}: is a pipe or a device, which a pattern does not mean; name it")
            elif os.path.isdir(path):
                inside = list(_of_folder(Path(path)))
                found += inside
                faults += [] if inside else [_without_audio(Path(path))]
            else:
                found.append(RecordingFile(path, Path("stdin") if path == STDIN else _without_ending(Path(Path(path).name))))
    return found, faults


def _without_audio(folder: Path) -> str:
    """Return the sentence about a folder in which there are no audio files."""
    if (folder / "wav.scp").is_file() or (folder / "feats.scp").is_file():
        return f"{folder}: has no audio files, but is a data directory; `asrprune decode` transcribes one"
    return f"{folder}: has no audio files, whose names end in {', '.join(sorted(ENDINGS))}"


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


def _matches(pattern: str) -> set[str]:
    """Return what a pattern matches, as ``glob.glob`` does, which would follow links in circles and fail in deep folders."""
    before, *after = _ANY_FOLDERS.split(pattern, maxsplit=1)
    if not after:
        return set(glob.glob(pattern))
    tops = glob.glob(before) if before else [""]
    if not after[0]:  # a folder means what is in its sub-folders, too
        return {top or os.curdir for top in tops}
    folders = (folder for top in tops for folder in _folders(top, hidden=False))
    return {path for folder in folders for path in _matches(os.path.join(glob.escape(folder), after[0]))}


def _folders(top: str, hidden: bool = True) -> Iterator[str]:
    """Yield a folder and all below it that can be read; links to folders are not followed."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        yield folder
        with suppress(OSError), os.scandir(folder or os.curdir) as entries:
            waiting += [
                os.path.join(folder, entry.name)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and (hidden or not entry.name.startswith("."))
            ]


def _of_folder(folder: Path) -> Iterator[RecordingFile]:
    found = (path for below in _folders(str(folder)) for path in Path(below).glob("*") if path.suffix.lower() in ENDINGS)
    for path in sorted(found):
        if path.is_file():
            yield RecordingFile(str(path), _without_ending(path.relative_to(folder)))


def _without_ending(path: Path) -> Path:
    return path.with_name(path.stem) if path.stem.strip(".") else path  # `..wav` has no name but its ending
