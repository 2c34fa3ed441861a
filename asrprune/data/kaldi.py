"""Kaldi data directories: read, write, describe.

A directory holds wav.scp, text, utt2spk, spk2utt, optionally segments, utt2dur and utt2speed (``utterance factor``: speed
perturbation, applied when features are computed), later feats.scp and utt2num_frames.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from asrprune.data.check import faults_of_rows, spk2utt_of, structure_faults
from asrprune.data.packed import Ascending, Packed
from asrprune.data.tables import (
    BY_RECORDING,
    BY_SPEAKER,
    FILES,
    ODD_BLANK,
    READ,
    Rows,
    joined,
    number,
    open_tables,
    raise_faults,
    write_table,
)
from asrprune.features.audio import audio_info
from asrprune.runtime.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Utterance:
    """An utterance: its text, its speaker, and its segment of a recording.

    ``audio`` is the entry of the recording in wav.scp. ``end_s`` None means the end of the recording. ``speed`` 1.1 plays the
    utterance 10 % faster. ``recording`` is the id of the recording; by default it is the id of the utterance.
    """

    id: str
    audio: str
    start_s: float
    end_s: float | None
    speaker: str
    text: str
    speed: float = 1.0
    recording: str = ""

    def __post_init__(self) -> None:
        if not self.recording:
            object.__setattr__(self, "recording", self.id)


def read_data_dir(path: Path, need_text: bool = True) -> list[Utterance]:
    """Read the utterances of a directory, sorted by id. Audio is not opened.

    Without ``need_text`` the file ``text`` may be missing; texts are then empty. Files that are made from the directory, or
    that only Kaldi reads, are not checked.

    Raises:
        UserError: the directory has faults; the error lists all of them.
    """
    return list(Utterances(path, need_text))


class Utterances(Iterable[Utterance]):
    """The utterances of a directory, as ``read_data_dir`` returns them. Each iteration reads them again, one at a time.

    If the directory has segments, the entries of wav.scp are kept in memory, packed.
    """

    def __init__(self, path: Path, need_text: bool = True) -> None:
        """Check the files that are read; raise a ``UserError`` with all faults."""
        self._tables = open_tables(path, READ)
        raise_faults(structure_faults(path, self._tables, need_text))

    def __len__(self) -> int:
        return len(self._tables["utt2spk"])

    def __iter__(self) -> Iterator[Utterance]:
        audio = self._with_segments() if "segments" in self._tables else self._whole_recordings()
        columns = zip(self._tables["utt2spk"], audio, self._column("text"), self._column("utt2speed"), strict=False)
        for (key, speaker), (recording, entry, start_s, end_s), text, speed in columns:
            yield Utterance(key, entry, start_s, end_s, speaker, text, float(speed or 1.0), recording)

    def _column(self, name: str) -> Iterator[str]:
        """Yield the value of each utterance in a file; empty values if the utterance or the file is missing."""
        rows = joined(self._tables["utt2spk"], self._tables.get(name, ()))
        return (row[1] if row else "" for utterance, row in rows if utterance)

    def _whole_recordings(self) -> Iterator[tuple[str, str, float, float | None]]:
        """Yield recording, entry, start and end of each utterance, which is a whole recording."""
        return ((key, entry, 0.0, None) for key, entry in self._tables["wav.scp"])

    def _with_segments(self) -> Iterator[tuple[str, str, float, float | None]]:
        """Yield recording, entry, start and end of each utterance, which is a segment of a recording."""
        recordings = Ascending(key for key, _ in self._tables["wav.scp"])
        entries = Packed(entry for _, entry in self._tables["wav.scp"])
        for segment in self._column("segments"):
            recording, start, end = segment.split()
            yield recording, entries[recordings.find(recording)], float(start), float(end)


def write_data_dir(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write a directory of ``utterances`` (any order). Replace existing files, and delete files that were made from them.

    segments is written only if an utterance has times, utt2speed only if one has a speed, text only if one has a text.

    Raises:
        UserError: the directory would have faults; the error lists all of them, and nothing is written.
    """
    raise_faults([f"{path}: {fault}" for fault in _utterance_faults(utterances)])
    rows = _rows_of(path, utterances)
    raise_faults(faults_of_rows(path, rows))
    _write_files(path, rows)


def _utterance_faults(utterances: Sequence[Utterance]) -> Iterator[str]:
    """Yield what is wrong with single utterances, and a fault if there are none."""
    if not utterances:
        yield "there are no utterances to write; check the paths and patterns that find them"
    for key, count in Counter(utt.id for utt in utterances).items():
        if count > 1:
            yield f"{key}: several utterances have this id; give each utterance its own id"
    for utt in utterances:
        ids = {"id": utt.id, "speaker": utt.speaker, **({"recording": utt.recording} if utt.recording != utt.id else {})}
        for what, value in ids.items():
            if len(value.split()) != 1 or value != value.strip():
                yield f"utterance `{utt.id}`: its {what} `{value}` is not one word; replace the blanks in it, for example by _"
        for what, value in (("audio", utt.audio), ("text", utt.text)):
            if odd := ODD_BLANK.search(value):
                yield f"utterance `{utt.id}`: its {what} holds {odd[0]!a}, but only plain spaces separate words; replace it"


def describe(utterances: Sequence[Utterance]) -> str:
    """Describe the size of a set: utterances, speakers, words, and hours if every utterance has an end time."""
    words = sum(len(utt.text.split()) for utt in utterances)
    size = f"{len(utterances)} utterances, {len({utt.speaker for utt in utterances})} speakers, {words} words"
    ends = [utt.end_s for utt in utterances if utt.end_s is not None]
    if len(ends) < len(utterances):
        return size
    return f"{size}, {(sum(ends) - sum(utt.start_s for utt in utterances)) / 3600:.4f} hours"


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """Return ``count`` of ``items`` at even distances, in order; all items if there are fewer."""
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def _write_files(path: Path, rows: Rows) -> None:
    """Replace the files. wav.scp is deleted first and written last, so that a killed run leaves an invalid directory."""
    (path / "wav.scp").unlink(missing_ok=True)
    for name in FILES:
        if not rows.get(name):
            (path / name).unlink(missing_ok=True)
    for name in sorted(rows, key=lambda name: name == "wav.scp"):
        if rows[name]:
            write_table(path / name, rows[name])


def restrict(rows: Rows, kept: Set[str]) -> Rows:
    """Return the rows of the utterances in ``kept``, of their recordings and of their speakers, with a new spk2utt."""
    result: Rows = {
        name: {key: value for key, value in rows[name].items() if key in kept}
        for name in ("utt2spk", "segments")
        if name in rows
    }
    result["spk2utt"] = spk2utt_of(result["utt2spk"])
    for name in rows.keys() - result.keys():
        wanted = owners(result, name)
        result[name] = {key: value for key, value in rows[name].items() if key in wanted}
    return result


def owners(rows: Rows, name: str) -> Set[str]:
    """Return the keys that a file must have: all utterances, speakers or recordings."""
    if name in BY_SPEAKER:
        return rows["spk2utt"].keys()
    if name in BY_RECORDING and "segments" in rows:
        return {value.split()[0] for value in rows["segments"].values()}
    return rows["utt2spk"].keys()


def _rows_of(path: Path, utterances: Sequence[Utterance]) -> Rows:
    """Return the rows of all files that the utterances need."""
    utt2spk = {utt.id: utt.speaker for utt in utterances}
    rows: Rows = {"utt2spk": utt2spk, "spk2utt": spk2utt_of(utt2spk), "wav.scp": {utt.id: utt.audio for utt in utterances}}
    if any(utt.start_s or utt.end_s is not None for utt in utterances):
        lengths = _recording_lengths(path, utterances)
        ends = {utt.id: lengths[utt.audio] if utt.end_s is None else utt.end_s for utt in utterances}
        rows["segments"] = {utt.id: f"{utt.recording} {number(utt.start_s)} {number(ends[utt.id])}" for utt in utterances}
        rows["wav.scp"] = _wav_scp(path, utterances)
    if any(utt.text for utt in utterances):
        rows["text"] = {utt.id: utt.text for utt in utterances}
    if any(utt.speed != 1.0 for utt in utterances):
        rows["utt2speed"] = {utt.id: number(utt.speed) for utt in utterances}
    return rows


def _wav_scp(path: Path, utterances: Iterable[Utterance]) -> dict[str, str]:
    """Return the wav.scp entries by recording; raise a ``UserError`` if a recording has two entries."""
    entries: dict[str, str] = {}
    for utt in utterances:
        if entries.setdefault(utt.recording, utt.audio) != utt.audio:
            raise UserError(
                f"{path}: {utt.id}: recording {utt.recording} is {utt.audio} here, but {entries[utt.recording]} for another"
                " utterance; give each recording its own id"
            )
    return entries


def _recording_lengths(path: Path, utterances: Iterable[Utterance]) -> dict[str, float]:
    """Return the lengths in seconds of the recordings of utterances without an end time: wav.scp entry -> length."""
    lengths: dict[str, float] = {}
    for utt in utterances:
        if utt.end_s is None and utt.audio not in lengths:
            try:
                lengths[utt.audio] = audio_info(utt.audio).duration_s
            except UserError as error:
                raise UserError(f"{path / 'wav.scp'}: {utt.recording}: {error}") from None
    return lengths
