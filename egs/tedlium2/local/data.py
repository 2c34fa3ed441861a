#!/usr/bin/env python3
"""TED-LIUM 2 and 3: fetch the corpus, and write Kaldi data directories of its train, dev and test set."""

import argparse
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from asrprune.data.download import Archive, find, obtain, take
from asrprune.data.kaldi import Utterance, describe, write_data_dir
from asrprune.data.tables import raise_faults
from asrprune.features.audio import OVERSHOOT_S, audio_info
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status

logger = logging.getLogger("tedlium")
AGAIN = "unpack the corpus again"
SETS = ("train", "dev", "test")
# The publisher gives no checksums; the SHA-256 are those of torchaudio. Release 3 keeps the dev and test set of release 2 in
# its `legacy` distribution, next to all its training talks.
ARCHIVES = {
    "2": Archive(
        "https://www.openslr.org/resources/19/TEDLIUM_release2.tar.gz",
        "93281b5fcaaae5c88671c9d000b443cb3c7ea3499ad12010b3934ca41a7b9c58",
        "TEDLIUM_release2",
    ),
    "3": Archive(
        "https://www.openslr.org/resources/51/TEDLIUM_release-3.tgz",
        "ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb",
        "TEDLIUM_release-3/legacy",
    ),
}
NUM_TALKS = {"2": 1514, "3": 2370}  # in the three sets together
MAX_OVERSHOOT_S = 0.5  # what a segment may stick out of its recording and be cut: that of Kaldi's extract-segments
IGNORED = "ignore_time_segment_in_scoring"
_LINE = re.compile(r"(?P<talk>\S+) \S+ (?P<speaker>\S+) (?P<start>\S+) (?P<end>\S+) (?P<label><\S*>)(?: (?P<text>.*))?")
# Which pronunciation it is, a(2); the utterance's name at the end of the line; silence; {NOISE} and the like.
_MARKS = re.compile(r"\([0-9]\)|\(\S*\)$|<sil>|[{\[]\w+[}\]]")


@dataclass(frozen=True)
class Options:
    """What the command line asks for. ``whole``: the published corpus; else what is there of it."""

    download_dir: Path
    work_dir: Path
    data_dir: Path
    release: str
    whole: bool

    @property
    def archive(self) -> Archive:
        """The archive of the release."""
        return ARCHIVES[self.release]

    @property
    def where(self) -> tuple[Path, Path]:
        """Where the archive is unpacked, and where it or the unpacked corpus may be; a sample does not mix with the whole."""
        return (self.work_dir if self.whole else self.work_dir / "sample"), self.download_dir


@dataclass
class Notes:
    """What was found in the stm files of a set, beside utterances."""

    faults: list[str] = field(default_factory=list)  # to be mended
    left_out: Counter[str] = field(default_factory=Counter)  # kinds of lines that are no utterance
    remarks: list[str] = field(default_factory=list)  # segments that end after their recording
    talks: int = 0  # recordings


def download(options: Options) -> None:
    """Find, or fetch and unpack, the corpus; ``UserError`` if it cannot be had."""
    (obtain if options.whole else take)(options.archive, *options.where)
    logger.info("TED-LIUM %s: %s", options.release, _located(options))


def prepare(options: Options) -> None:
    """Write ``data_dir``/train, dev and test. Nothing is written unless all of what was read is right."""
    corpus = _located(options)
    notes = {name: Notes() for name in SETS}
    sets = {name: read_set(corpus / name, notes[name], strict=name != "train") for name in SETS}
    raise_faults([fault for note in notes.values() for fault in note.faults])
    talks = sum(note.talks for note in notes.values())
    whole = NUM_TALKS[options.release]
    if options.whole and talks != whole:
        raise UserError(
            f"{corpus}: holds {talks} talks, but TED-LIUM {options.release} has {whole}; unpack it again,"
            " or give --parts found to take what is there"
        )
    logger.info("found: %d of the %d talks of TED-LIUM %s, in %s", talks, whole, options.release, corpus)
    for name, utterances in sets.items():
        write_data_dir(options.data_dir / name, utterances)
        _report(options.data_dir / name, utterances, notes[name])


def _located(options: Options) -> Path:
    corpus = find(options.archive, *options.where)
    if corpus is None:
        raise UserError(
            f"{options.archive.holds}: found neither in {options.download_dir} nor in {options.where[0]}; stage 0 fetches it,"
            f" or put it or {options.archive.file_name} there"
        )
    return corpus.resolve()


def _report(data_dir: Path, utterances: Sequence[Utterance], notes: Notes) -> None:
    for remark in notes.remarks[:20]:
        logger.warning("%s", remark)
    if len(notes.remarks) > 20:
        logger.warning("... and %d more", len(notes.remarks) - 20)
    left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(notes.left_out.items())) or "nothing"
    logger.info("%s: %s; left out: %s", data_dir, describe(utterances), left_out)


def read_set(directory: Path, notes: Notes, strict: bool) -> list[Utterance]:
    """Utterances of ``directory``/stm/*.stm, with the audio of ``directory``/sph; what is wrong goes into ``notes``.

    ``strict``: a segment that ends after its recording, where it may not be cut, is a fault; else it is left out with a remark.
    """
    transcripts = sorted((directory / "stm").glob("*.stm"))
    lengths = {path.stem: _length_s(path, notes) for path in sorted((directory / "sph").glob("*.sph"))}
    notes.talks = len(lengths)
    if not transcripts:
        notes.faults.append(f"{directory / 'stm'}: holds no stm files; {AGAIN}")
        return []
    for talk in sorted(lengths.keys() - {path.stem for path in transcripts}):
        notes.faults.append(f"{directory / 'sph' / talk}.sph: has no transcript stm/{talk}.stm; {AGAIN}")
    lines = (line for path in transcripts for line in _read_stm(path, lengths, notes))
    kept = (_fit(utt, where, lengths[utt.recording], notes, strict) for where, utt in lines)
    return [utt for utt in kept if utt is not None]


def _length_s(path: Path, notes: Notes) -> float:
    try:
        return audio_info(str(path)).duration_s
    except UserError as error:
        notes.faults.append(str(error))
        return float("inf")  # one fault is enough


def _read_stm(path: Path, lengths: Mapping[str, float], notes: Notes) -> Iterator[tuple[str, Utterance]]:
    """``file:line`` and utterance of each line that holds one; ``lengths`` has the talks that have audio."""
    seen: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(_lines(path, notes), start=1):
        where, line = f"{path}:{number}", " ".join(line.split())
        if not line or line.startswith(";;"):
            continue
        utt = _parse(where, line, path.parents[1] / "sph", lengths, notes)
        if utt is None:
            continue
        first, text = seen.setdefault(utt.id, (number, utt.text))
        if first == number:
            yield where, utt
        elif text == utt.text:
            notes.left_out["repeated lines"] += 1
        else:
            notes.faults.append(f"{where}: {utt.id}: has the times of line {first} and other words; delete one of the two")


def _lines(path: Path, notes: Notes) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        notes.faults.append(f"{path}: cannot be read ({error}); {AGAIN}")
        return []


def _parse(where: str, line: str, audio_dir: Path, lengths: Mapping[str, float], notes: Notes) -> Utterance | None:
    """``AlGore_2009 1 AlGore_2009 0.72 15.30 <o,f0,male> it 's`` makes ``AlGore_2009-0000072-0001530``, as in Kaldi.

    The speaker is the talk, as Kaldi's `*.orig` directories have it: a person who gave two talks counts twice, which does no
    harm here. (Kaldi and ESPnet then split talks into speakers of three minutes, for CMVN by speaker.)
    """
    match = _LINE.fullmatch(line)
    if match and (match["speaker"] == "inter_segment_gap" or IGNORED in (match["text"] or "")):
        notes.left_out["gaps and ignored segments"] += 1
        return None
    start, end = (_seconds(match[name]) if match else -1.0 for name in ("start", "end"))
    if not match or not 0 <= start < end:
        rule = "a line is `TALK CHANNEL SPEAKER START END <LABEL> WORDS` with 0 <= START < END"
        notes.faults.append(f"{where}: reads {line!r}, but {rule}; correct it, or {AGAIN}")
        return None
    talk = match["talk"]
    if talk not in lengths:
        notes.faults.append(f"{where}: {talk}: its audio {audio_dir / talk}.sph is missing; {AGAIN}")
        return None
    if not (text := words_of(match["text"] or "")):
        notes.left_out["segments without words"] += 1
        return None
    key = f"{talk}-{int(100 * start):07d}-{int(100 * end):07d}"  # as awk's %07d cuts it: 1.15 is 114
    return Utterance(key, str(audio_dir / f"{talk}.sph"), start, end, talk, text, recording=talk)


def _seconds(text: str) -> float:
    return float(text) if re.fullmatch(r"\d+(\.\d*)?", text) else -1.0


def words_of(text: str) -> str:
    """What is said: without marks such as ``{NOISE}``, and ``it 's`` joined to ``it's``, whatever the apostrophe begins.

    ``<unk>`` stays, as in Kaldi's s5_r2 and s5_r3: to text units and scores it is a word like others.

    >>> words_of("<sil> a(2) dog {NOISE} that 's <unk> (AlGore_2009-1)")
    "a dog that's <unk>"
    """
    return re.sub(r"(?<=\S) (?=')", "", " ".join(_MARKS.sub("", text.strip()).split()))


def _fit(utt: Utterance, where: str, length_s: float, notes: Notes, strict: bool) -> Utterance | None:
    """The utterance, cut to its recording if it sticks out by no more than ``MAX_OVERSHOOT_S``."""
    assert utt.end_s is not None
    over_s = utt.end_s - length_s
    if over_s <= OVERSHOOT_S:
        return utt
    said = f"{where}: {utt.id}: ends at {utt.end_s:g} s, but its recording {utt.audio} at {length_s:.3f} s"
    if over_s <= MAX_OVERSHOOT_S and utt.start_s < length_s:
        notes.remarks.append(f"{said}; it is cut there")
        return replace(utt, end_s=length_s)
    if strict:
        notes.faults.append(f"{said}; correct the times, or {AGAIN}")
    else:
        notes.remarks.append(f"{said}; it is left out")
        notes.left_out["segments beyond their recording"] += 1
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `download` (stage 0) or `prepare` (stage 1) and return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = _parser().parse_args(arguments)
    options = Options(given.download_dir, given.work_dir, given.data_dir, given.release, given.parts == "all")
    return exit_status(lambda: (download if given.command == "download" else prepare)(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["download", "prepare"], help="stage 0 or stage 1 of the recipe")
    parser.add_argument("--release", choices=[*ARCHIVES], required=True, help="of TED-LIUM")
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"), help="may hold the corpus; is only read")
    parser.add_argument("--work_dir", type=Path, default=Path("downloads"), help="where the archive is fetched and unpacked to")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where train, dev and test are written")
    parser.add_argument("--parts", choices=["all", "found"], default="all", help="found: what is there of the corpus will do")
    return parser


if __name__ == "__main__":
    sys.exit(main())
