#!/usr/bin/env python3
"""LibriSpeech: fetch its parts, and write Kaldi data directories of train_100 or train_960, of dev and test sets."""

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asrprune.data.download import Archive, find, obtain, take
from asrprune.data.kaldi import Utterance, describe, write_data_dir
from asrprune.data.tables import raise_faults, write_table
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status

logger = logging.getLogger("librispeech")
AGAIN = "unpack the part again"
# Utterances (the corpus's own statistics) and SHA-256 of the archives; OpenSLR publishes MD5 sums, these are torchaudio's.
PARTS = {
    "train-clean-100": (28539, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": (104014, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": (148688, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
    "dev-clean": (2703, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": (2864, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": (2620, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": (2939, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
}
TRAIN_PARTS = {"100": ("train-clean-100",), "960": ("train-clean-100", "train-clean-360", "train-other-500")}
# One dev set: clean and other readers in equal parts choose epochs and layers, so neither test set is favoured. Its halves
# are sets, too, as others report their scores.
EVALUATION_PARTS = {
    "dev": ("dev-clean", "dev-other"),
    "dev_clean": ("dev-clean",),
    "dev_other": ("dev-other",),
    "test_clean": ("test-clean",),
    "test_other": ("test-other",),
}
Sets = dict[str, list[Utterance]]


@dataclass(frozen=True)
class Options:
    """What the command line asks for. ``whole``: the published parts; else what is there of them."""

    download_dir: Path
    work_dir: Path
    data_dir: Path
    subset: str
    whole: bool

    @property
    def train_set(self) -> str:
        """Name of the training set."""
        return f"train_{self.subset}"

    @property
    def parts_of(self) -> dict[str, tuple[str, ...]]:
        """Parts that each set is made of."""
        return {self.train_set: TRAIN_PARTS[self.subset], **EVALUATION_PARTS}

    @property
    def where(self) -> tuple[Path, Path]:
        """Where archives are unpacked, and where they or the unpacked corpus may be; samples do not mix with whole parts."""
        return (self.work_dir if self.whole else self.work_dir / "sample"), self.download_dir

    @property
    def archives(self) -> dict[str, Archive]:
        """The archives of all parts asked for."""
        return {part: _archive(part) for parts in self.parts_of.values() for part in parts}


def _archive(part: str) -> Archive:
    return Archive(f"https://www.openslr.org/resources/12/{part}.tar.gz", PARTS[part][1], f"LibriSpeech/{part}")


def download(options: Options) -> None:
    """Find, or fetch and unpack, the parts; ``UserError`` if one cannot be had, or nothing is found of a sample."""
    for part, archive in options.archives.items():
        if options.whole:
            logger.info("%s: %s", part, obtain(archive, *options.where))
        else:
            take(archive, *options.where)
    _located(options)


def prepare(options: Options) -> None:
    """Write a data directory of each set. Nothing is written unless all of what was read is right."""
    located = _located(options)
    faults: list[str] = []
    read = {part: read_part(directory, faults) for part, directory in located.items()}
    genders = _genders(located.values(), faults)
    raise_faults(faults)
    if options.whole:
        raise_faults([*_incomplete(located, read)])
    logger.info("%s", _found(options, read))
    sets = {name: [utt for part in parts for utt in read.get(part, [])] for name, parts in options.parts_of.items()}
    if not sets["dev"]:
        sets["dev"], sets[options.train_set] = hold_out(sets[options.train_set])
    for name, utterances in sets.items():
        if not utterances:  # what an earlier run may have left must not pass for this sample's
            (options.data_dir / name / "wav.scp").unlink(missing_ok=True)
            continue
        write_data_dir(options.data_dir / name, utterances)
        _write_genders(options.data_dir / name, utterances, genders)
        logger.info("%s: %s", options.data_dir / name, describe(utterances))


def _located(options: Options) -> dict[str, Path]:
    """Where each part is unpacked; without ``whole`` only those that are, but something to train on and to test on."""
    found = {part: find(archive, *options.where) for part, archive in options.archives.items()}
    missing = [part for part, path in found.items() if path is None]
    absent = f"found neither in {options.download_dir} nor in {options.where[0]}"
    if options.whole and missing:
        raise UserError(f"{', '.join(missing)}: {absent}; stage 0 fetches what is missing, --parts found does without")
    for kind in () if options.whole else ("train", "test"):
        wanted = [part for part in found if part.startswith(kind)]
        if set(wanted) <= set(missing):
            raise UserError(f"{', '.join(wanted)}: {absent}; a {kind} set is needed, put an archive or its content there")
    return {part: path for part, path in found.items() if path is not None}


def _found(options: Options, read: Mapping[str, Sequence[Utterance]]) -> str:
    """One line: which parts there are, which not, and what that means."""
    missing = [part for part in options.archives if part not in read]
    said = "found: " + ", ".join(f"{part} ({len(utterances)} utterances)" for part, utterances in read.items())
    if missing:
        said += f"; missing: {', '.join(missing)}"
    if not any(part in read for part in EVALUATION_PARTS["dev"]):
        said += f"; dev is every tenth reader of {options.train_set}"
    if lost := [name for name in ("test_clean", "test_other") if not any(part in read for part in EVALUATION_PARTS[name])]:
        said += f"; there is no {lost[0]}, so leave it out of --test_sets"
    return said


def _incomplete(located: Mapping[str, Path], read: Mapping[str, Sequence[Utterance]]) -> Iterator[str]:
    for part, utterances in read.items():
        if len(utterances) != PARTS[part][0]:
            yield (
                f"{located[part]}: holds {len(utterances)} utterances, but {part} has {PARTS[part][0]}; unpack it again,"
                " or give --parts found to take what is there"
            )


def read_part(directory: Path, faults: list[str]) -> list[Utterance]:
    """Utterances of an unpacked part, ``READER/CHAPTER/``; what is wrong with it is added to ``faults``."""
    chapters = sorted(path for path in directory.resolve().glob("*/*") if path.is_dir())
    utterances = [utt for chapter in chapters for utt in _read_chapter(chapter, faults)]
    if not chapters:
        faults.append(f"{directory}: holds no READER/CHAPTER/ directories; {AGAIN}")
    return utterances


def _read_chapter(directory: Path, faults: list[str]) -> Iterator[Utterance]:
    """Utterances of a chapter: ``19-198-0000`` is one of reader 19.

    The speaker is the reader. Kaldi and ESPnet make each chapter a speaker, so that CMVN and adaptation are by chapter; here
    CMVN is global, and scores by speaker and speakers that are held out mean people.
    """
    reader, name = directory.parent.name, f"{directory.parent.name}-{directory.name}"
    transcript = directory / f"{name}.trans.txt"
    audio = {path.stem for path in directory.glob("*.flac")}
    seen: set[str] = set()
    faults_before = len(faults)
    for number, line in enumerate(_lines(transcript, faults), start=1):
        key, _, text = line.partition(" ")
        if key.rpartition("-")[0] != name or not text.strip():
            faults.append(f"{transcript}:{number}: reads {line!r}, but a line is `{name}-NUMBER WORDS`; {AGAIN}")
        elif key in seen:
            faults.append(f"{transcript}:{number}: {key}: has a line above; {AGAIN}")
        elif key not in audio:
            faults.append(f"{transcript}:{number}: {key}: its audio {key}.flac is missing; {AGAIN}")
        else:
            yield Utterance(key, str(directory / f"{key}.flac"), 0.0, None, reader, " ".join(text.split()))
        seen.add(key)
    if len(faults) == faults_before:  # else it may be the audio of a faulty line
        faults += [f"{directory / key}.flac: has no line in {transcript.name}; {AGAIN}" for key in sorted(audio - seen)]


def _lines(path: Path, faults: list[str]) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: cannot be read ({error}); {AGAIN}")
        return []


def hold_out(utterances: Iterable[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Utterances of every tenth reader, in order of their ids from the fifth on, and the others: for a sample without dev."""
    utterances = list(utterances)
    readers = sorted({utt.speaker for utt in utterances})
    held = set(readers[4::10] or readers[1:2])
    if not held:
        raise UserError(f"the training set has one reader alone, {readers[0]}, so none can be held out as dev; add readers")
    return [utt for utt in utterances if utt.speaker in held], [utt for utt in utterances if utt.speaker not in held]


def _genders(directories: Iterable[Path], faults: list[str]) -> dict[str, str]:
    """Reader -> ``f`` or ``m``, from every SPEAKERS.TXT there is; lines are ``14   | F | train-clean-360  | 25.03 | Name``."""
    genders: dict[str, str] = {}
    for path in sorted({directory.parent / "SPEAKERS.TXT" for directory in directories}):
        for number, line in enumerate(_lines(path, faults) if path.exists() else [], start=1):
            reader, gender = [field.strip() for field in f"{line}|".split("|")[:2]]
            if reader.isdigit() and gender in ("F", "M"):
                genders[reader] = gender.lower()
            elif line.strip() and not line.startswith(";"):
                faults.append(f"{path}:{number}: reads {line!r}, but a line is `READER | F or M | ...`; {AGAIN}")
    return genders


def _write_genders(data_dir: Path, utterances: Iterable[Utterance], genders: Mapping[str, str]) -> None:
    """Write spk2gender, if the genders of all speakers are known."""
    speakers = {utt.speaker for utt in utterances}
    (data_dir / "spk2gender").unlink(missing_ok=True)
    if speakers <= genders.keys():
        write_table(data_dir / "spk2gender", {speaker: genders[speaker] for speaker in speakers})
    elif genders:
        unknown = sorted(speakers - genders.keys())
        logger.warning("%s: no spk2gender, SPEAKERS.TXT lacks %s", data_dir, ", ".join(unknown))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `download` (stage 0) or `prepare` (stage 1) and return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = _parser().parse_args(arguments)
    options = Options(given.download_dir, given.work_dir, given.data_dir, given.subset, given.parts == "all")
    return exit_status(lambda: (download if given.command == "download" else prepare)(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["download", "prepare"], help="stage 0 or stage 1 of the recipe")
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"), help="may hold the corpus; is only read")
    parser.add_argument("--work_dir", type=Path, default=Path("downloads"), help="where archives are fetched and unpacked to")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where the data directories are written")
    parser.add_argument("--subset", choices=[*TRAIN_PARTS], default="100", help="hours of training speech")
    parser.add_argument("--parts", choices=["all", "found"], default="all", help="found: what is there of the corpus will do")
    return parser


if __name__ == "__main__":
    sys.exit(main())
