"""Kaldi data directories: read, check, write, fix and take subsets of them.

A directory holds one table a file, ``key value`` a line, bytewise sorted: wav.scp, text, utt2spk, spk2utt, optionally segments,
utt2dur and utt2speed (``utterance factor``: speed perturbation, applied when features are computed), later feats.scp and
utt2num_frames. The rules are those of Kaldi's validate_data_dir.sh; a fault is ``file:line: id: what is wrong; how to fix it``.
"""

import math
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from asrprune.data.audio import OVERSHOOT_S, AudioInfo, audio_info, check_audio, check_format
from asrprune.errors import UserError
from asrprune.files import write_text
from asrprune.progress import track

T = TypeVar("T")
_MOST_SHOWN = 20
_MADE_LATER = ("utt2dur", "feats.scp", "utt2num_frames")
_BY_UTTERANCE = ("text", "segments", "utt2speed", *_MADE_LATER)
_FILES = ("utt2spk", "spk2utt", "wav.scp", *_BY_UTTERANCE)
_ODD_BLANK = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u200b\ufeff]")  # other blanks, control characters, byte order marks
_RESERVED = frozenset(("<s>", "</s>", "#0"))
_BY_STAGE_1 = "stage 1 (data preparation) makes it"
_FIX = "`asrprune fix-data` does it"


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is said, by whom, in which stretch of which recording.

    ``audio`` is the recording's entry in wav.scp, ``end_s`` None means to its end, ``speed`` 1.1 makes it 10 % faster and
    shorter. ``recording`` is the recording's id; an utterance that is a recording of its own shares its id (the default).
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


class _Table(NamedTuple):
    """A file's rows in the order of the file, and the line that each key stands on."""

    path: Path
    rows: dict[str, str]
    lines: dict[str, int]

    def fault(self, key: str, what: str) -> str:
        return f"{self.path}:{self.lines[key]}: {key}: {what}"


_Rows = dict[str, dict[str, str]]  # file name -> its rows
_Tables = dict[str, _Table]  # file name -> its rows and where they stand


# ---- reading and writing


def read_table(path: Path, allow_empty: bool = False) -> dict[str, str]:
    """Rows of a table, ``{key: rest of the line}``; all faults of the file are raised in one ``UserError``."""
    if not path.is_file():
        raise UserError(_missing(path))
    table, faults = _parse(path, path.read_bytes(), allow_empty)
    _raise(faults)
    return table.rows


def write_table(path: Path, rows: Mapping[str, str]) -> None:
    """Write ``rows`` sorted bytewise, whole or not at all."""
    write_text(path, _render(rows))


def read_data_dir(path: Path, need_text: bool = True) -> list[Utterance]:
    """Utterances of a directory in bytewise order of their ids; all structural faults are raised in one ``UserError``.

    Audio is not opened. Without ``need_text`` the file ``text`` may be missing, and texts are then empty.
    """
    return _utterances(_load(path, need_text))


def write_data_dir(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write the directory of ``utterances`` (any order), replacing the one that is there and what was made from it.

    segments is written only if an utterance has a time range, utt2speed only if one has a speed, text only if one has a text.
    Raises ``UserError`` with every fault that ``check_data_dir`` would find without opening audio, and writes nothing then.
    """
    repeated = [key for key, count in Counter(utt.id for utt in utterances).items() if count > 1]
    _raise([f"{path}: {key}: several utterances have this id; give each an id of its own" for key in repeated])
    rows = _rows_of(path, utterances)
    _raise(_faults_of_rows(path, rows))
    _write_files(path, rows)


def subset_data_dir(source: Path, target: Path, ids: Collection[str]) -> None:
    """Write the utterances ``ids`` of ``source`` to ``target``, with their durations and features if ``source`` has them.

    ``{utt.id for utt in utts if utt.speaker in speakers}`` takes speakers, ``[utt.id for utt in utts[:n]]`` the first n,
    ``[utt.id for utt in spread_evenly(utts, n)]`` n from all over.
    """
    wanted = set(ids)
    rows = _load(source, need_text=False)
    unknown = sorted(wanted - rows["utt2spk"].keys())
    _raise([f"{source}: {key}: no such utterance; choose from the ids in its utt2spk" for key in unknown])
    if not wanted:
        raise UserError(f"{target}: a subset of no utterances was asked for; name at least one of {source}")
    _write_files(target, _restrict(rows, wanted))


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """``count`` of ``items`` at even distances, in order; all of them if there are fewer."""
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def durations(path: Path, allow_pipes: bool = False) -> dict[str, float]:
    """Seconds of each utterance after its speed is applied: from utt2dur, else from segments and the headers of recordings."""
    rows = _load(path, need_text=False)
    if "utt2dur" in rows:
        return {key: float(value) for key, value in rows["utt2dur"].items()}
    utterances = _utterances(rows)
    lengths = _recording_lengths(path, utterances, allow_pipes)
    return {utt.id: (_end_s(utt, lengths) - utt.start_s) / utt.speed for utt in utterances}


def write_utt2dur(path: Path, allow_pipes: bool = False) -> dict[str, float]:
    """Write utt2dur if it is not there, and return it: the durations in seconds."""
    seconds = durations(path, allow_pipes)
    if not (path / "utt2dur").exists():
        write_table(path / "utt2dur", {key: _number(value) for key, value in seconds.items()})
    return seconds


def _load(path: Path, need_text: bool) -> _Rows:
    """Rows of all files of a directory that has no structural fault."""
    tables, faults = _read_files(path)
    _raise([*faults, *_structure_faults(path, tables, need_text)])
    return {name: table.rows for name, table in tables.items()}


def _read_files(path: Path) -> tuple[_Tables, list[str]]:
    """Tables of the files that are there, and the faults within each."""
    return _parse_all({path / name: (path / name).read_bytes() for name in _FILES if (path / name).is_file()})


def _parse_all(contents: Mapping[Path, bytes]) -> tuple[_Tables, list[str]]:
    tables: _Tables = {}
    faults: list[str] = []
    for path, data in contents.items():
        tables[path.name], found = _parse(path, data)
        faults += found
    return tables, faults


def _parse(path: Path, data: bytes, allow_empty: bool = False) -> tuple[_Table, list[str]]:
    """Rows and faults of a table; a faulty line still counts as its key's, so that one mistake is reported once."""
    table = _Table(path, {}, {})
    *lines, rest = data.split(b"\n")
    faults = [] if data else [f"{path}: is empty; {_BY_STAGE_1}"]
    if rest:
        lines.append(rest)
        faults.append(f"{path}:{len(lines)}: the last line has no end, the file may be cut short; {_BY_STAGE_1}")
    previous = ""
    for number, raw in enumerate(lines, 1):
        line = raw.decode("utf-8", "replace")
        key, value = _split(line)
        whats = _line_faults(raw, line, key, value, allow_empty)
        if key in table.rows:
            whats.append(f"has a line above, {table.lines[key]}; keep one of the two")
        elif key:
            table.rows[key], table.lines[key] = value, number
        # Comparing str by code points orders them as their UTF-8 bytes would be, whatever the locale.
        if key and key < previous:
            whats.append(f"stands after {previous}, but ids are sorted bytewise; sort with LC_ALL=C, {_FIX}")
        previous = key or previous
        faults += [f"{path}:{number}: {key}: {what}" for what in whats]
    return table, faults


def _split(line: str) -> tuple[str, str]:
    """Key and value of a line, without blanks around them."""
    key, *value = line.strip().split(maxsplit=1) or [""]
    return key, "".join(value)


def _line_faults(raw: bytes, line: str, key: str, value: str, allow_empty: bool) -> list[str]:
    """What is wrong with one line on its own: the first fault found."""
    if not key:
        return [f"the line is empty; delete it, {_FIX}"]
    if "\ufffd" in line and (place := _not_utf8(raw)):
        return [f"byte {place} of the line is not UTF-8; convert the file, for example: iconv -f ISO-8859-1 -t UTF-8"]
    if not value and not allow_empty:
        return ["nothing follows the id; complete the line or remove the utterance"]
    if not line.isprintable() and (odd := _ODD_BLANK.search(line)):  # the first is quick, but would refuse joiners too
        return [f"holds {odd[0]!a}, but only plain spaces separate words; replace it, {_FIX}"]
    if line != f"{key} {value}".rstrip(" "):
        return [f"has a space too many, at an end or after the id; remove it, {_FIX}"]
    return []


def _not_utf8(raw: bytes) -> int:
    """Number of the first byte that is not UTF-8, from 1; 0 if all are."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start + 1
    return 0


def _render(rows: Mapping[str, str]) -> str:
    return "".join(f"{key} {rows[key]}".rstrip(" ") + "\n" for key in sorted(rows))


def _write_files(path: Path, rows: _Rows) -> None:
    """Replace the directory's files; wav.scp goes first and comes last, so a killed run leaves nothing that looks finished."""
    (path / "wav.scp").unlink(missing_ok=True)
    for name in _FILES:
        if not rows.get(name):
            (path / name).unlink(missing_ok=True)
    for name in sorted(rows, key=lambda name: name == "wav.scp"):
        if rows[name]:
            write_table(path / name, rows[name])


def _restrict(rows: _Rows, kept: Collection[str]) -> _Rows:
    """Rows of the utterances ``kept`` alone, the recordings they need, and spk2utt anew."""
    segments = rows.get("segments")
    recordings = kept if segments is None else {segments[key].split()[0] for key in kept}
    result = {}
    for name, table in rows.items():
        keys = recordings if name == "wav.scp" else kept
        result[name] = {key: value for key, value in table.items() if key in keys}
    return {**result, "spk2utt": _spk2utt(result["utt2spk"])}


def _utterances(rows: _Rows) -> list[Utterance]:
    """Utterances of a directory without faults."""
    wav, text, speeds, segments = (rows.get(name, {}) for name in ("wav.scp", "text", "utt2speed", "segments"))
    result = []
    for key, speaker in rows["utt2spk"].items():
        recording, start, end = segments[key].split() if segments else (key, "0", "")
        end_s = float(end) if end else None
        speed = float(speeds.get(key, 1.0))
        result.append(Utterance(key, wav[recording], float(start), end_s, speaker, text.get(key, ""), speed, recording))
    return result


def _rows_of(path: Path, utterances: Sequence[Utterance]) -> _Rows:
    """Rows of every file that the utterances need."""
    utt2spk = {utt.id: utt.speaker for utt in utterances}
    rows: _Rows = {"utt2spk": utt2spk, "spk2utt": _spk2utt(utt2spk), "wav.scp": {utt.id: utt.audio for utt in utterances}}
    if any(utt.start_s or utt.end_s is not None for utt in utterances):
        lengths = _recording_lengths(path, utterances)
        times = {utt.id: (_number(utt.start_s), _number(_end_s(utt, lengths))) for utt in utterances}
        rows["segments"] = {utt.id: " ".join((utt.recording, *times[utt.id])) for utt in utterances}
        rows["wav.scp"] = _wav_scp(path, utterances)
    if any(utt.text for utt in utterances):
        rows["text"] = {utt.id: utt.text for utt in utterances}
    if any(utt.speed != 1.0 for utt in utterances):
        rows["utt2speed"] = {utt.id: _number(utt.speed) for utt in utterances}
    return rows


def _wav_scp(path: Path, utterances: Iterable[Utterance]) -> dict[str, str]:
    """Entries by recording; a recording with two entries is a mistake."""
    entries: dict[str, str] = {}
    for utt in utterances:
        if entries.setdefault(utt.recording, utt.audio) != utt.audio:
            raise UserError(
                f"{path}: {utt.id}: recording {utt.recording} is {utt.audio} here, but {entries[utt.recording]} for another"
                " utterance; give each recording an id of its own"
            )
    return entries


def _recording_lengths(path: Path, utterances: Iterable[Utterance], allow_pipes: bool = False) -> dict[str, float]:
    """Seconds of the recordings that an utterance runs to the end of, by wav.scp entry; each header is read once."""
    lengths: dict[str, float] = {}
    for utt in utterances:
        if utt.end_s is None and utt.audio not in lengths:
            try:
                lengths[utt.audio] = audio_info(utt.audio, allow_pipes).duration_s
            except UserError as error:
                raise UserError(f"{path / 'wav.scp'}: {utt.recording}: {error}") from None
    return lengths


def _end_s(utt: Utterance, lengths: Mapping[str, float]) -> float:
    return lengths[utt.audio] if utt.end_s is None else utt.end_s


def _spk2utt(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """The inverse of utt2spk: speaker -> its utterances, ascending."""
    members: dict[str, list[str]] = {}
    for utt in sorted(utt2spk):
        members.setdefault(utt2spk[utt], []).append(utt)
    return {speaker: " ".join(utts) for speaker, utts in members.items()}


def _number(value: float) -> str:
    """To the microsecond, which is enough: a sample at 48 kHz lasts 21 of them."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


# ---- checking


def check_data_dir(path: Path, audio: bool = True, allow_pipes: bool = False, need_text: bool = True) -> list[str]:
    """Every fault of a directory; with ``audio`` also those that opening each recording shows."""
    tables, faults = _read_files(path)
    faults += _structure_faults(path, tables, need_text)
    if audio and "wav.scp" in tables:
        faults += _audio_faults(tables, allow_pipes)
    return faults


def _raise(faults: Sequence[str]) -> None:
    """Raise the faults, if there are any, a line each: the first 20 and the number of the others."""
    if faults:
        more = [f"... and {len(faults) - _MOST_SHOWN} more"] if len(faults) > _MOST_SHOWN else []
        raise UserError("\n".join([*faults[:_MOST_SHOWN], *more]))


def _missing(path: Path) -> str:
    return f"{path}: does not exist; {_FIX if path.name == 'spk2utt' else _BY_STAGE_1}"


def _faults_of_rows(path: Path, rows: _Rows) -> list[str]:
    """Faults that the directory would have if ``rows`` were written."""
    tables, faults = _parse_all({path / name: _render(rows[name]).encode("utf-8", "surrogateescape") for name in rows})
    return [*faults, *_structure_faults(path, tables, need_text="text" in rows)]


def _structure_faults(path: Path, tables: _Tables, need_text: bool) -> list[str]:
    """Faults of values and between the files."""
    if not tables and not path.is_dir():
        return [_missing(path)]
    needed = ("utt2spk", "spk2utt", "wav.scp", *(["text"] if need_text else []))
    faults = [_missing(path / name) for name in needed if name not in tables]
    for name, table in tables.items():
        faults += [table.fault(key, what) for key, value in table.rows.items() if (what := _value_fault(name, value))]
    if "utt2spk" in tables:
        faults += [*_speaker_faults(tables), *_key_faults(tables)]
    if "segments" in tables and "wav.scp" in tables:
        faults += _recording_faults(tables["segments"], tables["wav.scp"])
    return faults


def _value_fault(name: str, value: str) -> str:
    """What is wrong with a value, whatever the other files say; empty if nothing is, or if there is no value."""
    if not value:
        return ""
    if name == "utt2spk" and " " in value:
        return f"the speaker id `{value}` holds a space; ids hold none"
    if name == "wav.scp" and value.startswith("~"):
        return "begins with ~, which only a shell understands; write the whole path"
    if name == "text" and (found := _RESERVED.intersection(value.split())):
        return f"the text holds {min(found)}, which is reserved for language models; remove it"
    if name in ("utt2speed", "utt2dur") and not _float(value) > 0:
        return f"`{value}` is not a number above 0; correct it"
    if name == "utt2num_frames" and not (value.isdecimal() and int(value) > 0):
        return f"`{value}` is not a whole number above 0; correct it"
    return _segment_fault(value) if name == "segments" else ""


def _segment_fault(value: str) -> str:
    fields = value.split()
    if len(fields) != 3:
        return "a line of segments is `utterance recording start end`; correct it"
    if not 0 <= _float(fields[1]) < _float(fields[2]):
        return f"runs from {fields[1]} s to {fields[2]} s, but 0 <= start < end; correct the times"
    return ""


def _float(text: str) -> float:
    """A finite number, or NaN, which every comparison refuses."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _speaker_faults(tables: _Tables) -> Iterator[str]:
    """utt2spk is sorted by speaker too, as Kaldi wants it, and spk2utt is its inverse."""
    utt2spk = tables["utt2spk"]
    if first := _first_descent(utt2spk.rows):
        what = f"speaker {utt2spk.rows[first]} sorts before the speaker of the utterance ahead; begin utterance ids with"
        yield utt2spk.fault(first, f"{what} the speaker id, {_FIX}")
    if "spk2utt" in tables:
        yield from _inverse_faults(utt2spk, tables["spk2utt"])


def _first_descent(utt2spk: Mapping[str, str]) -> str:
    """First utterance, in bytewise order, whose speaker sorts before the speaker of the one ahead; empty if there is none."""
    previous = ""
    for utt in sorted(utt2spk):
        if utt2spk[utt] < previous:
            return utt
        previous = utt2spk[utt]
    return ""


def _inverse_faults(utt2spk: _Table, spk2utt: _Table) -> Iterator[str]:
    expected = _spk2utt(utt2spk.rows)
    for speaker, utts in spk2utt.rows.items():
        if speaker not in expected:
            yield spk2utt.fault(speaker, f"this speaker is not in utt2spk; make spk2utt anew, {_FIX}")
        elif utts != expected[speaker]:
            yield spk2utt.fault(speaker, f"{_difference(utts.split(), expected[speaker].split())}; make spk2utt anew, {_FIX}")
    for speaker, utts in expected.items():
        if speaker not in spk2utt.rows:
            yield utt2spk.fault(utts.split()[0], f"its speaker {speaker} has no line in spk2utt; make spk2utt anew, {_FIX}")


def _difference(got: Sequence[str], expected: Sequence[str]) -> str:
    """How a speaker's list of utterances differs from that of utt2spk, by one example."""
    if missing := set(expected).difference(got):
        return f"lacks {min(missing)}, which utt2spk gives this speaker"
    if extra := set(got).difference(expected):
        return f"lists {min(extra)}, which utt2spk does not give this speaker"
    return "its utterances are repeated or not in the order of utt2spk"


def _key_faults(tables: _Tables) -> Iterator[str]:
    """Every file has a line for each utterance and for nothing else; utt2speed and what is known of features may lack some."""
    utt2spk = tables["utt2spk"]
    names = _BY_UTTERANCE if "segments" in tables else ("wav.scp", *_BY_UTTERANCE)
    for name in [name for name in names if name in tables]:
        rows = tables[name].rows
        if name in ("wav.scp", "segments", "text", "utt2dur"):
            for key in utt2spk.rows:
                if key not in rows:
                    yield utt2spk.fault(key, f"has no line in {name}; add one or remove the utterance, {_FIX}")
        for key in rows:
            if key not in utt2spk.rows:
                yield tables[name].fault(key, f"has no line in utt2spk; add one or remove this line, {_FIX}")


def _recording_faults(segments: _Table, wav: _Table) -> Iterator[str]:
    """segments and wav.scp name the same recordings."""
    used = set()
    for key, value in segments.rows.items():
        recording = value.partition(" ")[0]
        used.add(recording)
        if recording and recording not in wav.rows:
            yield segments.fault(
                key, f"its recording {recording} has no line in wav.scp; add one or remove the segment, {_FIX}"
            )
    for recording in wav.rows:
        if recording not in used:
            yield wav.fault(recording, f"no segment lies in this recording; remove the line, {_FIX}")


def _audio_faults(tables: _Tables, allow_pipes: bool) -> list[str]:
    """Faults of the recordings: each is opened once; the commonest sample rate is the directory's."""
    wav = tables["wav.scp"]
    infos: dict[str, AudioInfo] = {}
    faults: list[str] = []
    for key, entry in track(wav.rows.items(), "opening recordings", total=len(wav.rows)):
        try:
            infos[key] = check_audio(entry, allow_pipes)
        except UserError as error:
            faults.append(wav.fault(key, str(error)))
    rates = Counter(info.sample_rate for info in infos.values()).most_common(1)
    for key, info in infos.items():
        try:
            check_format(wav.rows[key], info, rates[0][0])
        except UserError as error:
            faults.append(wav.fault(key, str(error)))
    if "segments" in tables:
        faults += _overshoot_faults(tables["segments"], infos)
    return faults


def _overshoot_faults(segments: _Table, infos: Mapping[str, AudioInfo]) -> Iterator[str]:
    """Segments that end after their recording."""
    for key, value in segments.rows.items():
        recording, _, times = value.partition(" ")
        end = times.partition(" ")[2]
        if recording in infos and _float(end) > infos[recording].duration_s + OVERSHOOT_S:
            length_s = infos[recording].duration_s
            yield segments.fault(key, f"ends at {end} s, but {recording} ends at {length_s:.3f} s; correct the times")


# ---- fixing


def fix_data_dir(path: Path) -> list[str]:
    """Make a directory valid, as Kaldi's fix_data_dir.sh does, and return what was changed, a sentence each.

    Sorts, drops faulty lines and utterances that lack audio, text or a speaker, and makes spk2utt anew; where speakers sort
    differently from utterances, utterance ids get the speaker's id in front. The files as they were go to ``.backup/``.
    Audio is not opened. Raises ``UserError``, and changes nothing, if no utterance would remain.
    """
    said: list[str] = []
    names = [name for name in _FILES if (path / name).is_file()]
    rows = {name: _clean(path / name, said) for name in names if name != "spk2utt" or "utt2spk" not in names}
    if "utt2spk" not in rows and "spk2utt" in rows:
        rows["utt2spk"] = {utt: speaker for speaker, utts in rows["spk2utt"].items() for utt in utts.split()}
        said.append("utt2spk: made from spk2utt")
    _raise([_missing(path / name) for name in ("utt2spk", "wav.scp") if name not in rows])
    every, rows = rows, _restrict(rows, _complete_utterances(path, rows, said))
    for name in sorted({"utt2speed", *_MADE_LATER, *(["wav.scp"] if "segments" in rows else [])} & rows.keys()):
        if unused := sorted(every[name].keys() - rows[name].keys()):
            said.append(f"{name}: dropped {_some(unused)}: no utterance that remains needs it")
    if "utt2dur" in rows and len(rows["utt2dur"]) < len(rows["utt2spk"]):
        del rows["utt2dur"]
        said.append("utt2dur: removed, it lacked utterances; it is made again when it is needed")
    if _first_descent(rows["utt2spk"]):
        rows = _put_speakers_first(path, rows)
        said.append("every utterance id now begins with its speaker's id, because their orders differed")
    _raise(_faults_of_rows(path, rows))
    return [*said, *_replace_files(path, rows)]


def _clean(path: Path, said: list[str]) -> dict[str, str]:
    """Good rows of a table, the first of each key; tells ``said`` what was dropped."""
    name = path.name
    rows: dict[str, str] = {}
    dropped: dict[str, list[str]] = {}
    for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        key, value = _split(_ODD_BLANK.sub(" ", raw.decode("utf-8", "replace")))
        if name != "wav.scp":  # a path may hold two spaces in a row
            value = " ".join(value.split())
        if why := _reason_to_drop(name, raw, key, value, rows):
            dropped.setdefault(why, []).append(f"{key} (line {number})")
        elif key:
            rows[key] = value
    said += [f"{name}: dropped {_some(lines)}: {why}" for why, lines in dropped.items()]
    return rows


def _reason_to_drop(name: str, raw: bytes, key: str, value: str, rows: Mapping[str, str]) -> str:
    if _not_utf8(raw):
        return "not UTF-8"
    if key and not value:
        return "nothing follows the id"
    if key in rows:
        return "the id has a line above" if rows[key] == value else "the id has a line above, with another value"
    return _value_fault(name, value).partition(";")[0]


def _some(items: Sequence[str]) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def _complete_utterances(path: Path, rows: _Rows, said: list[str]) -> set[str]:
    """Utterances that have a line in every file that needs one, and a recording; tells ``said`` which are dropped, and why."""
    has: dict[str, set[str]] = {name: set(rows[name]) for name in ("utt2spk", "text", "segments") if name in rows}
    if "segments" in rows:
        has["wav.scp"] = {key for key, value in rows["segments"].items() if value.split()[0] in rows["wav.scp"]}
    else:
        has["wav.scp"] = set(rows["wav.scp"])
    every = set.union(*has.values())
    for name, keys in has.items():
        if lacking := sorted(every - keys):
            said.append(f"dropped {_some(lacking)}: no line in {name}")
            every -= set(lacking)
    if not every:
        raise UserError(f"{path}: no utterance has a line in each of {', '.join(has)}; {_BY_STAGE_1}")
    return every


def _put_speakers_first(path: Path, rows: _Rows) -> _Rows:
    """Begin every utterance id with its speaker's id."""
    names = {utt: f"{speaker}-{utt}" for utt, speaker in rows["utt2spk"].items()}
    if len(set(names.values())) < len(names):
        raise UserError(f"{path}: speaker and utterance ids cannot be joined with `-`, two become the same; rename speakers")
    fixed = {"spk2utt", "wav.scp"} if "segments" in rows else {"spk2utt"}
    renamed = {name: table if name in fixed else {names[utt]: table[utt] for utt in table} for name, table in rows.items()}
    return {**renamed, "spk2utt": _spk2utt(renamed["utt2spk"])}


def _replace_files(path: Path, rows: _Rows) -> list[str]:
    """Back up and rewrite the files whose bytes change."""
    said = []
    for name in _FILES:
        old = (path / name).read_bytes() if (path / name).is_file() else b""
        new = _render(rows.get(name, {})).encode()
        if old and old != new:
            (path / ".backup").mkdir(exist_ok=True)
            shutil.copy2(path / name, path / ".backup" / name)
            said.append(f"{name}: {'rewritten' if new else 'removed'}; the file as it was is in .backup")
        if not new:
            (path / name).unlink(missing_ok=True)
        elif old != new:
            write_table(path / name, rows[name])
    return said
