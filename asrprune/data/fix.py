"""Fixing Kaldi data directories, as Kaldi's fix_data_dir.sh does."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from asrprune.data.check import SHORTEST_S, faults_of_rows, first_descent, is_too_short, spk2utt_of, value_fault
from asrprune.data.kaldi import owners, restrict
from asrprune.data.packed import Packed
from asrprune.data.tables import (
    BY_RECORDING,
    BY_SPEAKER,
    BY_STAGE_1,
    FILES,
    INVISIBLE,
    MADE_LATER,
    ODD_BLANK,
    Rows,
    missing,
    not_utf8,
    raise_faults,
    render,
    some,
    split_line,
)
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_directory, atomic_path
from asrprune.runtime.planted import inside, lines_of, open_plain
from asrprune.runtime.progress import track

_PREPARED, _OLD, _NEW = ".fixed", "old", "new"  # the directory of the files to put in place, and its parts
_BACKUP = re.compile(r"\.backup(\d{0,9})")
_REQUIRED = ("utt2spk", "spk2utt", "text", "segments")  # an utterance without a line in one of them is dropped


def fix_data_dir(path: Path) -> list[str]:
    """Make a directory valid, as Kaldi's fix_data_dir.sh does; return one sentence per change.

    Lines are sorted. Faulty lines and utterances without audio, text or a speaker are dropped. spk2utt is written again.
    If the order of speakers differs from the order of utterances, utterance ids get the speaker id as a prefix. The original
    files go to ``.backup/``, those of a second run to ``.backup2/``. Utterances without a frame are dropped, too; for this the
    lengths of recordings are read. A killed run is finished by the next.

    Raises:
        UserError: no utterance would remain; nothing is changed.
    """
    changes: list[str] = []
    if inside(path, _PREPARED).is_dir():
        changes += [f"{name}: was changed since an earlier run was killed; kept as {name}.changed" for name in _set_aside(path)]
        changes.append(f"an earlier run was killed; its changes are made now, the original files are in {_put_in_place(path)}")
    names = [name for name in FILES if (path / name).is_file()]
    rows = {name: _clean(path / name, changes) for name in names if name != "spk2utt" or "utt2spk" not in names}
    if "utt2spk" not in rows and "spk2utt" in rows:
        rows["utt2spk"] = {utt: speaker for speaker, utts in rows["spk2utt"].items() for utt in utts.split()}
        changes.append("utt2spk: made from spk2utt")
    raise_faults([missing(path / name) for name in ("utt2spk", "wav.scp") if name not in rows])
    every, rows = rows, restrict(rows, _complete_utterances(path, rows, changes))
    required = {*_REQUIRED, *(() if "segments" in rows else ("wav.scp",))}
    for name in [name for name in FILES if name in rows and name not in required]:
        if unused := sorted(every[name].keys() - rows[name].keys()):
            changes.append(f"{name}: dropped {some(unused)}: no remaining utterance needs it")
        if name != "utt2speed" and (lacking := sorted(owners(rows, name) - rows[name].keys())):
            del rows[name]
            anew = "; stage 2 (fbank) writes it again" if name in MADE_LATER else ""
            changes.append(f"{name}: removed, as it lacks {some(lacking)}{anew}")
    if first_descent((utt, speaker, 0) for utt, speaker in sorted(rows["utt2spk"].items())):
        rows = _put_speakers_first(path, rows)
        changes.append("every utterance id now begins with the speaker id, because their orders differed")
    raise_faults(faults_of_rows(path, rows))
    return [*changes, *_replace_files(path, rows)]


def _clean(path: Path, changes: list[str]) -> dict[str, str]:
    """Return the valid rows of a table, the first one of each key; add the dropped rows to ``changes``."""
    name = path.name
    rows: dict[str, str] = {}
    dropped: dict[str, Packed] = {}
    for number, raw in enumerate(_lines(path), 1):
        key, value = split_line(INVISIBLE.sub("", ODD_BLANK.sub(" ", raw.decode("utf-8", "replace"))))
        if name != "wav.scp":  # a path may hold two spaces in a row
            value = " ".join(value.split())
        if why := _reason_to_drop(name, raw, key, value, rows):
            dropped.setdefault(why, Packed()).append(f"{key} (line {number})")
        elif key:
            rows[key] = value
    changes += [f"{name}: dropped {some(lines)}: {why}" for why, lines in dropped.items()]
    return rows


def _lines(path: Path) -> Iterator[bytes]:
    with open_plain(path) as handle:
        yield from lines_of(handle, path)


def _reason_to_drop(name: str, raw: bytes, key: str, value: str, rows: Mapping[str, str]) -> str:
    if not_utf8(raw):
        return "not UTF-8"
    if key and not value:
        return "nothing follows the id"
    if key in rows:
        return "the id has a line above" if rows[key] == value else "the id has a line above, with another value"
    return value_fault(name, value).partition(";")[0]


def _complete_utterances(path: Path, rows: Rows, changes: list[str]) -> set[str]:
    """Return the utterances with a recording and a line in every required file; add the dropped utterances to ``changes``."""
    has: dict[str, set[str]] = {name: set(rows[name]) for name in ("utt2spk", "text", "segments") if name in rows}
    if "segments" in rows:
        has["wav.scp"] = {key for key, value in rows["segments"].items() if value.split()[0] in rows["wav.scp"]}
    else:
        has["wav.scp"] = set(rows["wav.scp"])
    every = set.union(*has.values())
    for name, keys in has.items():
        if lacking := sorted(every - keys):
            changes.append(f"dropped {some(lacking)}: no line in {name}")
            every -= set(lacking)
    if "segments" not in rows and (
        short := [key for key in track(sorted(every), "lengths") if is_too_short(rows["wav.scp"][key])]
    ):
        changes.append(f"dropped {some(short)}: shorter than {1000 * SHORTEST_S:g} ms")
        every -= set(short)
    if not every:
        raise UserError(f"{path}: no utterance has a line in each of {', '.join(has)}; {BY_STAGE_1}")
    return every


def _put_speakers_first(path: Path, rows: Rows) -> Rows:
    """Put the speaker id in front of every utterance id."""
    names = {utt: f"{speaker}-{utt}" for utt, speaker in rows["utt2spk"].items()}
    if len(set(names.values())) < len(names):
        raise UserError(f"{path}: if utterance ids get the speaker id as a prefix, two ids become equal; rename the speakers")
    fixed = {"spk2utt", *BY_SPEAKER, *(BY_RECORDING if "segments" in rows else ())}
    renamed = {name: table if name in fixed else {names[utt]: table[utt] for utt in table} for name, table in rows.items()}
    return {**renamed, "spk2utt": spk2utt_of(renamed["utt2spk"])}


def _replace_files(path: Path, rows: Rows) -> list[str]:
    """Back up and rewrite the files whose bytes change: prepare all of them in a directory, then put them in place."""
    new = {name: render(rows.get(name, {})).encode() for name in FILES}
    old = {name: (path / name).read_bytes() for name in FILES if (path / name).is_file()}
    changed = [name for name in FILES if (new[name] or None) != old.get(name)]  # an empty file is removed
    if not changed:
        return []
    with atomic_directory(inside(path, _PREPARED)) as prepared:
        for name in changed:
            with atomic_path(prepared / _NEW / name) as temporary:
                temporary.write_bytes(new[name])
            if name in old:
                with atomic_path(prepared / _OLD / name) as temporary:
                    shutil.copy2(path / name, temporary)
    backup = _put_in_place(path)
    how = {name: "rewritten" if new[name] else "removed" for name in changed if name in old}
    return [f"{name}: {verb}; the original file is in {backup}" for name, verb in how.items()]


def _set_aside(path: Path) -> list[str]:
    """Copy files to NAME.changed that a killed run would replace, but that somebody has changed since; return their names."""
    backup, old = inside(path, _backup_name(max(_backups(path), default=1))), inside(path, _PREPARED, _OLD)
    originals = old if old.is_dir() else backup
    changed = []
    for name in (file.name for file in _prepared_files(path)):
        content = b"".join(_lines(path / name)) if (path / name).is_file() else None
        if content is not None and not ((originals / name).is_file() and b"".join(_lines(originals / name)) == content):
            with atomic_path(path / f"{name}.changed") as temporary:
                temporary.write_bytes(content)
            changed.append(name)
    return changed


def _put_in_place(path: Path) -> str:
    """Put the prepared files in place, or the rest of them after a kill. Return the name of the backup of the original files.

    An empty file stands for one to remove.
    """
    old, backups, files = inside(path, _PREPARED, _OLD), _backups(path), _prepared_files(path)
    if old.is_dir():
        backups.append(max(backups, default=0) + 1)
        os.rename(old, path / _backup_name(backups[-1]))
    for file in files:
        if file.stat().st_size:
            os.replace(file, path / file.name)
        else:
            (path / file.name).unlink(missing_ok=True)
            file.unlink()
    shutil.rmtree(inside(path, _PREPARED))
    return _backup_name(max(backups, default=1))


def _prepared_files(path: Path) -> list[Path]:
    """Return the tables to put in place. Anything else there, such as a stranger's link, goes with the directory.

    Raises:
        UserError: the directory is a link.
    """
    files = (inside(path, _PREPARED, _NEW) / name for name in FILES)
    return [file for file in files if file.is_file() and not file.is_symlink()]


def _backups(path: Path) -> list[int]:
    """Return the numbers of the backups ``.backup``, ``.backup2``, ..."""
    return [int(found[1] or 1) for entry in path.iterdir() if (found := _BACKUP.fullmatch(entry.name))]


def _backup_name(number: int) -> str:
    return f".backup{number}" if number > 1 else ".backup"
