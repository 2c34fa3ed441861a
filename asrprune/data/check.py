"""Checking Kaldi data directories by the rules of Kaldi's validate_data_dir.sh; all faults are reported together."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import compress, groupby, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np

from asrprune.data.check_features import feature_faults
from asrprune.data.packed import Ascending
from asrprune.data.tables import (
    BY_RECORDING,
    BY_SPEAKER,
    BY_UTTERANCE,
    FIX,
    MADE_LATER,
    READ,
    Row,
    Rows,
    Table,
    Tables,
    is_count,
    joined,
    missing,
    open_tables,
    render,
)
from asrprune.features.audio import OVERSHOOT_S, AudioInfo, audio_info, check_audio, check_format
from asrprune.runtime.errors import UserError
from asrprune.runtime.progress import track

# Kaldi finds them by `grep -w`: beside a letter, digit or underscore they are part of another word.
_RESERVED = re.compile(r"(?<!\w)(<s>|</s>|#0)(?!\w)", re.ASCII)
_NUMBERS = {  # file: smallest and largest value, both excluded
    "utt2speed": (0.1, 10.0), "utt2dur": (0.0, math.inf), "reco2dur": (0.0, math.inf),
    "spk2warp": (0.5, 1.5), "utt2warp": (0.5, 1.5),
}  # fmt: skip
SHORTEST_S = 0.005  # half the usual distance of frames: anything shorter has no frame, and so no features


@dataclass(frozen=True)
class Checked:
    """A checked data directory."""

    path: Path
    tables: Tables
    faults: list[str]
    audio_s: float | None  # length of all utterances together; None: not known


def check_data_dir(path: Path, audio: bool = True, allow_pipes: bool = False, features: bool = True) -> Checked:
    """Find all faults of a directory; with ``audio`` each recording is opened, with ``features`` all features are read, too."""
    tables = open_tables(path)
    faults = structure_faults(path, tables, need_text=True)
    audio_s: float | None = None
    if audio and "wav.scp" in tables:
        more, audio_s = _audio_faults(tables, allow_pipes)
        faults += more
    if features and "feats.scp" in tables:
        faults += feature_faults(tables)
    if not faults and "segments" in tables:
        audio_s = sum(_length(times) for _, times in tables["segments"])
    elif not faults and audio_s is None and "utt2dur" in tables:
        audio_s = sum(float(seconds) for _, seconds in tables["utt2dur"])
    return Checked(path, tables, faults, audio_s)


def _length(segment: str) -> float:
    _, start, end = segment.split()
    return float(end) - float(start)


def faults_of_rows(path: Path, rows: Rows) -> list[str]:
    """Return the faults that the directory would have if ``rows`` were written."""
    contents = {name: render(table).encode("utf-8", "surrogateescape") for name, table in rows.items()}
    tables = {name: Table(path / name, data=content) for name, content in contents.items()}
    return [fault.replace(f", {FIX}", "") for fault in structure_faults(path, tables, need_text="text" in rows)]


def structure_faults(path: Path, tables: Tables, need_text: bool) -> list[str]:
    """Return faults of lines and of values, and contradictions between the files."""
    if not tables and not path.is_dir():
        return [missing(path)]
    needed = ("utt2spk", "spk2utt", "wav.scp", *(["text"] if need_text else []))
    faults = [fault for table in tables.values() for fault in table.faults]
    faults += [missing(path / name) for name in needed if name not in tables]
    for name, table in tables.items():
        faults += [table.fault(row, what) for row in table.numbered() if (what := value_fault(name, row[1]))]
    if "utt2spk" in tables:
        faults += [*_speaker_faults(tables), *_key_faults(tables)]
    if "segments" in tables and "wav.scp" in tables:
        faults += _recording_faults(tables["segments"], tables["wav.scp"])
    return faults


def value_fault(name: str, value: str) -> str:
    """Return what is wrong with a value by itself; empty if it is correct or missing."""
    if not value:
        return ""
    if name == "utt2spk" and " " in value:
        return f"the speaker id `{value}` contains a space; remove it"
    if name == "wav.scp" and value.startswith("~"):
        return "begins with ~, which only a shell expands; write the whole path"
    if name == "text" and (found := _RESERVED.search(value)):
        return f"the text contains {found[0]}, which is reserved for language models; remove it"
    if name in _NUMBERS and not _NUMBERS[name][0] < _float(value) < _NUMBERS[name][1]:
        low, high = _NUMBERS[name]
        return f"`{value}` is not a number above {low:g}{f' and below {high:g}' if high < math.inf else ''}; correct it"
    if name == "utt2num_frames" and not (is_count(value) and int(value) > 0):
        return f"`{value}` is not a whole number above 0; correct it"
    if name == "utt2crc" and not re.fullmatch("[0-9a-f]{8}", value):
        return f"`{value}` is not a CRC-32 of eight hexadecimal digits; run stage 2 (fbank) again"
    if name == "spk2gender" and value not in ("f", "m"):
        return f"`{value}` is not a gender; write f or m"
    if name == "reco2file_and_channel" and not re.fullmatch(r"\S+ [AB1]", value):
        return "a line of reco2file_and_channel is `recording file A`, or B for the other channel; correct it"
    return _segment_fault(value) if name == "segments" else ""


def _segment_fault(value: str) -> str:
    fields = value.split()
    if len(fields) != 3:
        return "a line of segments is `utterance recording start end`; correct it"
    if not 0 <= _float(fields[1]) < _float(fields[2]):
        return f"runs from {fields[1]} s to {fields[2]} s, but 0 <= start < end; correct the times"
    return _length_fault(float(fields[2]) - float(fields[1]))


def _length_fault(seconds: float) -> str:
    """Return what is wrong with the length of an utterance."""
    if round(seconds, 6) >= SHORTEST_S:
        return ""
    return f"lasts {1000 * seconds:.3g} ms, but below {1000 * SHORTEST_S:g} ms there is no frame; remove the utterance, {FIX}"


def is_too_short(entry: str) -> bool:
    """Return whether a recording is too short for an utterance; False if it cannot be read, which is another fault."""
    try:
        return bool(_length_fault(audio_info(entry).duration_s))
    except UserError:
        return False


def _float(text: str) -> float:
    """Return a finite number, or NaN, for which every comparison is false."""
    try:
        value = float(text.replace("_", "?"))  # Python takes 1_0 for 10
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _speaker_faults(tables: Tables) -> Iterator[str]:
    """Check that utt2spk is also sorted by speaker, as Kaldi requires, and that spk2utt is its inverse."""
    utt2spk = tables["utt2spk"]
    descent = first_descent(utt2spk.numbered())
    if descent:
        what = f"speaker {descent[1]} sorts before the speaker of the line above; begin utterance ids with"
        yield utt2spk.fault(descent, f"{what} the speaker id, {FIX}")
    if "spk2utt" in tables:
        by_speaker = sorted(utt2spk.numbered(), key=itemgetter(1)) if descent else utt2spk.numbered()
        yield from _inverse_faults(utt2spk, by_speaker, tables["spk2utt"])


def first_descent(utt2spk: Iterable[Row]) -> Row | None:
    """Return the first row of a sorted utt2spk whose speaker sorts before the speaker of the row above."""
    return next((row for ahead, row in pairwise(utt2spk) if row[1] < ahead[1]), None)


def _inverse_faults(utt2spk: Table, by_speaker: Iterable[Row], spk2utt: Table) -> Iterator[str]:
    lacking = []
    for expected, row in joined(_members(by_speaker), spk2utt.numbered()):
        if row and not expected:
            yield spk2utt.fault(row, f"this speaker is not in utt2spk; write spk2utt again, {FIX}")
        elif expected and not row:
            speaker, _, first = expected
            lacking.append(utt2spk.fault(first, f"its speaker {speaker} has no line in spk2utt; write spk2utt again, {FIX}"))
        elif expected and row and expected[1] != row[1]:
            yield spk2utt.fault(row, f"{_difference(row[1].split(), expected[1].split())}; write spk2utt again, {FIX}")
    yield from lacking


def _members(by_speaker: Iterable[Row]) -> Iterator[tuple[str, str, Row]]:
    """Yield each speaker with its utterances and its first row; ``by_speaker`` is sorted by speaker."""
    for speaker, group in groupby(by_speaker, key=itemgetter(1)):
        rows = iter(group)
        first = next(rows)
        yield speaker, " ".join([first[0], *(utt for utt, _, _ in rows)]), first


def spk2utt_of(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """Return the inverse of utt2spk: speaker -> its utterances, ascending."""
    rows = sorted(((utt, speaker, 0) for utt, speaker in utt2spk.items()), key=itemgetter(1, 0))
    return {speaker: utts for speaker, utts, _ in _members(rows)}


def _difference(got: Sequence[str], expected: Sequence[str]) -> str:
    """Return one difference between the utterances of a speaker in spk2utt (``got``) and in utt2spk (``expected``)."""
    if missing := set(expected).difference(got):
        return f"lacks {min(missing)}, which utt2spk gives this speaker"
    if extra := set(got).difference(expected):
        return f"lists {min(extra)}, which utt2spk does not give this speaker"
    return "its utterances are repeated or not in the order of utt2spk"


def _key_faults(tables: Tables) -> Iterator[str]:
    """Check that each file has a line for each utterance, speaker or recording, and no other; utt2speed may lack some."""
    recordings = "wav.scp" if "segments" in tables else "utt2spk"
    by = (("utt2spk", BY_UTTERANCE), (recordings, BY_RECORDING), ("spk2utt", BY_SPEAKER))
    for owner, names in by:
        for name in [name for name in names if owner in tables and name in tables and name != owner]:
            extra = []
            for key, row in joined(tables[owner].numbered(), tables[name].numbered()):
                if row and not key:
                    extra.append(tables[name].fault(row, f"has no line in {owner}; add one or remove this line, {FIX}"))
                elif key and not row and name != "utt2speed":
                    yield tables[owner].fault(key, f"has no line in {name}; {_fix_of(name)}")
            yield from extra


def _fix_of(name: str) -> str:
    """Return what to do if a line of a file is missing."""
    if name in MADE_LATER:
        return "run stage 2 (`asrprune fbank`) again"
    return f"add one or remove {'the utterance' if name in READ else name}, {FIX}"


def _recording_faults(segments: Table, wav: Table) -> Iterator[str]:
    """Check that segments and wav.scp name the same recordings."""
    recordings = Ascending(key for key, _ in wav)
    used = bytearray(len(recordings))
    for row in segments.numbered():
        recording = row[1].partition(" ")[0]
        place = recordings.find(recording)
        if place >= 0:
            used[place] = True
        elif recording:
            yield segments.fault(row, f"its recording {recording} has no line in wav.scp; add one or remove the segment, {FIX}")
    for row in compress(wav.numbered(), (not one for one in used)):
        yield wav.fault(row, f"no segment uses this recording; remove the line, {FIX}")


def _audio_faults(tables: Tables, allow_pipes: bool) -> tuple[list[str], float]:
    """Open each recording once; return the faults, and the length of all recordings in seconds.

    The most frequent sample rate is the expected one.
    """
    wav = tables["wav.scp"]
    infos = np.zeros((len(wav), 3), dtype=np.int64)  # the fields of AudioInfo; 0 for a recording that cannot be opened
    rates: Counter[int] = Counter()
    faults: list[str] = []
    for place, row in enumerate(track(wav.numbered(), "opening recordings", total=len(wav))):
        try:
            info = check_audio(row[1], allow_pipes)
        except UserError as error:
            faults.append(wav.fault(row, str(error)))
        else:
            infos[place] = astuple(info)
            rates[info.sample_rate] += 1
    for row, numbers in compress(zip(wav.numbered(), infos, strict=True), infos[:, 0]):
        info = AudioInfo(*map(int, numbers))
        try:
            check_format(row[1], info, rates.most_common(1)[0][0])
        except UserError as error:
            faults.append(wav.fault(row, str(error)))
        if "segments" not in tables and (what := _length_fault(info.duration_s)):
            faults.append(wav.fault(row, what))
    lengths_s = np.divide(infos[:, 1], infos[:, 0], out=np.full(len(infos), np.nan), where=infos[:, 0] > 0)
    if "segments" in tables:
        faults += _overshoot_faults(tables["segments"], wav, lengths_s)
    return faults, float(np.nansum(lengths_s))


def _overshoot_faults(segments: Table, wav: Table, lengths_s: np.ndarray) -> Iterator[str]:
    """Yield a fault for each segment that ends after its recording; ``lengths_s`` (R,) follows wav.scp, NaN: unknown."""
    recordings = Ascending(key for key, _ in wav)
    for row in segments.numbered():
        recording, _, times = row[1].partition(" ")
        end = times.partition(" ")[2]
        place = recordings.find(recording)
        if place >= 0 and _float(end) > lengths_s[place] + OVERSHOOT_S:
            yield segments.fault(row, f"ends at {end} s, but {recording} ends at {lengths_s[place]:.3f} s; correct the times")
