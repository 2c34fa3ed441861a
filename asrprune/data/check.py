"""Checking Kaldi data directories: every fault at once, by the rules of Kaldi's validate_data_dir.sh."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from asrprune.data.audio import OVERSHOOT_S, AudioInfo, check_audio, check_format
from asrprune.data.tables import BY_UTTERANCE, FIX, Rows, Table, Tables, missing, parse_all, read_files, render
from asrprune.errors import UserError
from asrprune.progress import track

_RESERVED = frozenset(("<s>", "</s>", "#0"))


def check_data_dir(path: Path, audio: bool = True, allow_pipes: bool = False, need_text: bool = True) -> list[str]:
    """Every fault of a directory; with ``audio`` also those that opening each recording shows."""
    tables, faults = read_files(path)
    faults += structure_faults(path, tables, need_text)
    if audio and "wav.scp" in tables:
        faults += _audio_faults(tables, allow_pipes)
    return faults


def faults_of_rows(path: Path, rows: Rows) -> list[str]:
    """Faults that the directory would have if ``rows`` were written."""
    tables, faults = parse_all({path / name: render(rows[name]).encode("utf-8", "surrogateescape") for name in rows})
    return [*faults, *structure_faults(path, tables, need_text="text" in rows)]


def structure_faults(path: Path, tables: Tables, need_text: bool) -> list[str]:
    """Faults of values and between the files."""
    if not tables and not path.is_dir():
        return [missing(path)]
    needed = ("utt2spk", "spk2utt", "wav.scp", *(["text"] if need_text else []))
    faults = [missing(path / name) for name in needed if name not in tables]
    for name, table in tables.items():
        faults += [table.fault(key, what) for key, value in table.rows.items() if (what := value_fault(name, value))]
    if "utt2spk" in tables:
        faults += [*_speaker_faults(tables), *_key_faults(tables)]
    if "segments" in tables and "wav.scp" in tables:
        faults += _recording_faults(tables["segments"], tables["wav.scp"])
    return faults


def value_fault(name: str, value: str) -> str:
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


def _speaker_faults(tables: Tables) -> Iterator[str]:
    """utt2spk is sorted by speaker too, as Kaldi wants it, and spk2utt is its inverse."""
    utt2spk = tables["utt2spk"]
    if first := first_descent(utt2spk.rows):
        what = f"speaker {utt2spk.rows[first]} sorts before the speaker of the utterance ahead; begin utterance ids with"
        yield utt2spk.fault(first, f"{what} the speaker id, {FIX}")
    if "spk2utt" in tables:
        yield from _inverse_faults(utt2spk, tables["spk2utt"])


def first_descent(utt2spk: Mapping[str, str]) -> str:
    """First utterance, in bytewise order, whose speaker sorts before the speaker of the one ahead; empty if there is none."""
    previous = ""
    for utt in sorted(utt2spk):
        if utt2spk[utt] < previous:
            return utt
        previous = utt2spk[utt]
    return ""


def _inverse_faults(utt2spk: Table, spk2utt: Table) -> Iterator[str]:
    expected = spk2utt_of(utt2spk.rows)
    for speaker, utts in spk2utt.rows.items():
        if speaker not in expected:
            yield spk2utt.fault(speaker, f"this speaker is not in utt2spk; make spk2utt anew, {FIX}")
        elif utts != expected[speaker]:
            yield spk2utt.fault(speaker, f"{_difference(utts.split(), expected[speaker].split())}; make spk2utt anew, {FIX}")
    for speaker, utts in expected.items():
        if speaker not in spk2utt.rows:
            yield utt2spk.fault(utts.split()[0], f"its speaker {speaker} has no line in spk2utt; make spk2utt anew, {FIX}")


def spk2utt_of(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """The inverse of utt2spk: speaker -> its utterances, ascending."""
    members: dict[str, list[str]] = {}
    for utt in sorted(utt2spk):
        members.setdefault(utt2spk[utt], []).append(utt)
    return {speaker: " ".join(utts) for speaker, utts in members.items()}


def _difference(got: Sequence[str], expected: Sequence[str]) -> str:
    """How a speaker's list of utterances differs from that of utt2spk, by one example."""
    if missing := set(expected).difference(got):
        return f"lacks {min(missing)}, which utt2spk gives this speaker"
    if extra := set(got).difference(expected):
        return f"lists {min(extra)}, which utt2spk does not give this speaker"
    return "its utterances are repeated or not in the order of utt2spk"


def _key_faults(tables: Tables) -> Iterator[str]:
    """Every file has a line for each utterance and for nothing else; utt2speed and what is known of features may lack some."""
    utt2spk = tables["utt2spk"]
    names = BY_UTTERANCE if "segments" in tables else ("wav.scp", *BY_UTTERANCE)
    for name in [name for name in names if name in tables]:
        rows = tables[name].rows
        if name in ("wav.scp", "segments", "text", "utt2dur"):
            for key in utt2spk.rows:
                if key not in rows:
                    yield utt2spk.fault(key, f"has no line in {name}; add one or remove the utterance, {FIX}")
        for key in rows:
            if key not in utt2spk.rows:
                yield tables[name].fault(key, f"has no line in utt2spk; add one or remove this line, {FIX}")


def _recording_faults(segments: Table, wav: Table) -> Iterator[str]:
    """segments and wav.scp name the same recordings."""
    used = set()
    for key, value in segments.rows.items():
        recording = value.partition(" ")[0]
        used.add(recording)
        if recording and recording not in wav.rows:
            yield segments.fault(key, f"its recording {recording} has no line in wav.scp; add one or remove the segment, {FIX}")
    for recording in wav.rows:
        if recording not in used:
            yield wav.fault(recording, f"no segment lies in this recording; remove the line, {FIX}")


def _audio_faults(tables: Tables, allow_pipes: bool) -> list[str]:
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


def _overshoot_faults(segments: Table, infos: Mapping[str, AudioInfo]) -> Iterator[str]:
    """Segments that end after their recording."""
    for key, value in segments.rows.items():
        recording, _, times = value.partition(" ")
        end = times.partition(" ")[2]
        if recording in infos and _float(end) > infos[recording].duration_s + OVERSHOOT_S:
            length_s = infos[recording].duration_s
            yield segments.fault(key, f"ends at {end} s, but {recording} ends at {length_s:.3f} s; correct the times")
