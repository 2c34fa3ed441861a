#!/usr/bin/env python3
"""speechocean762: fetch it, and write Kaldi data directories of its train, dev and test set, transcribed in words or phones."""

import argparse
import logging
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asrprune.data.download import Archive, find, obtain
from asrprune.data.kaldi import Utterance, write_data_dir
from asrprune.data.tables import raise_faults, write_table
from asrprune.features.audio import audio_info, check_format
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status

logger = logging.getLogger("speechocean762")
AGAIN = "get the corpus again"
# No checksum of the archive is known. Damage on the way shows in gzip's own checksum, a part that is missing in the counts.
ARCHIVE = Archive("https://www.openslr.org/resources/101/speechocean762.tar.gz", None, "speechocean762/WAVE")
NUM_UTTERANCES = {"train": 2500, "test": 2500}
SAMPLE_RATE = 16000
ADULT = 18  # years; the children of the corpus are 6 to 15, its adults 19 and older
_ARPABET = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
PHONES = frozenset(_ARPABET.split())  # the 39 of the CMU dictionary
_PHONE = re.compile(r"(?P<phone>[A-Z]+)[0-2]?_[BIES]")  # `IY0_E`: stress, where a vowel has it, and the place in the word


@dataclass(frozen=True, slots=True)
class Speaker:
    """``sex`` is f or m, ``age`` in years."""

    sex: str
    age: int


@dataclass(frozen=True, slots=True)
class Row:
    """What a line of a table says of its key, and ``where`` it stands: ``file:line``."""

    value: str
    where: str


def located(download_dir: Path, work_dir: Path) -> Path | None:
    """Top directory of the corpus: ``download_dir`` itself, whatever its name, or speechocean762 there or in ``work_dir``."""
    audio = download_dir / "WAVE" if (download_dir / "WAVE").is_dir() else find(ARCHIVE, work_dir, download_dir)
    return audio and audio.parent


def download(download_dir: Path, work_dir: Path) -> None:
    """Find the corpus, or else unpack it into ``work_dir``: the archive comes from ``download_dir`` or OpenSLR."""
    logger.info("%s", located(download_dir, work_dir) or obtain(ARCHIVE, work_dir, download_dir).parent)


def prepare(download_dir: Path, work_dir: Path, data_dir: Path, units: str) -> None:
    """Write ``data_dir``/train, dev and test; dev is some speakers of the official training set, test the official one.

    Nothing is written unless all of what was read is right.
    """
    corpus = located(download_dir, work_dir)
    if corpus is None:
        raise UserError(f"speechocean762/WAVE: found neither in {download_dir} nor in {work_dir}; stage 0 fetches it")
    sets, speakers = read_corpus(corpus.resolve(), units)
    held_out = dev_speakers({utt.speaker: speakers[utt.speaker] for utt in sets["train"]})
    sets["dev"] = [utt for utt in sets["train"] if utt.speaker in held_out]
    sets["train"] = [utt for utt in sets["train"] if utt.speaker not in held_out]
    for name in ("train", "dev", "test"):
        _write(data_dir / name, sets[name], speakers)
        logger.info("%s: %s", data_dir / name, describe(sets[name], speakers, units))
    for name in ("dev", "test"):
        logger.info("%s: %s", data_dir / name, shared(sets[name], sets["train"], units))


def read_corpus(corpus: Path, units: str) -> tuple[dict[str, list[Utterance]], dict[str, Speaker]]:
    """The official sets ``train`` and ``test`` and all speakers; raises ``UserError`` with what is wrong with them."""
    faults: list[str] = []
    (train, train_speakers), (test, test_speakers) = (read_set(corpus, name, faults) for name in ("train", "test"))
    both = sorted(train_speakers.keys() & test_speakers.keys())
    faults += [f"{corpus}: speaker {key} is in train and in test; {AGAIN}" for key in both]
    raise_faults(faults)
    sets = {"train": train, "test": test}
    for name, utterances in sets.items():
        if len(utterances) != NUM_UTTERANCES[name]:
            raise UserError(f"{corpus / name}: holds {len(utterances)} utterances, not {NUM_UTTERANCES[name]}; {AGAIN}")
    if units == "phones":
        sets = in_phones(sets, corpus / "resource/text-phone")
    return sets, train_speakers | test_speakers


def read_set(corpus: Path, name: str, faults: list[str]) -> tuple[list[Utterance], dict[str, Speaker]]:
    """Utterances of an official set, with the corpus's own ids, and their speakers; what is wrong is added to ``faults``."""
    texts, speaker_of, audio, sexes, ages = (
        _rows(corpus / name / file, faults) for file in ("text", "utt2spk", "wav.scp", "spk2gender", "spk2age")
    )
    faults += _lacking({"text": texts, "utt2spk": speaker_of, "wav.scp": audio})
    named = {row.value: row for row in speaker_of.values()}
    faults += _lacking({"utt2spk": named, "spk2gender": sexes, "spk2age": ages})
    speakers = {key: _speaker(key, sexes[key], ages[key], faults) for key in sorted(sexes.keys() & ages.keys())}
    utterances = [
        Utterance(key, _audio(key, corpus, audio[key], faults), 0.0, None, speaker_of[key].value, texts[key].value)
        for key in sorted(texts.keys() & speaker_of.keys() & audio.keys())
    ]
    return utterances, speakers


def _speaker(key: str, sex: Row, age: Row, faults: list[str]) -> Speaker:
    if sex.value not in ("f", "m"):
        faults.append(f"{sex.where}: {key}: its sex is {sex.value!r}, but must be f or m; {AGAIN}")
    if not age.value.isdecimal():
        faults.append(f"{age.where}: {key}: its age is {age.value!r}, but must be a number of years; {AGAIN}")
        return Speaker(sex.value, 0)
    return Speaker(sex.value, int(age.value))


def _audio(key: str, corpus: Path, row: Row, faults: list[str]) -> str:
    """The entry of an utterance in wav.scp, once the header of its audio is found to be right."""
    entry = str(corpus / row.value)
    try:
        check_format(entry, audio_info(entry), SAMPLE_RATE)
    except UserError as error:
        faults.append(f"{row.where}: {key}: {error}")
    return entry


def in_phones(sets: Mapping[str, Sequence[Utterance]], path: Path) -> dict[str, list[Utterance]]:
    """The sets with phones for their texts, from resource/text-phone; raises ``UserError`` with what is wrong with it."""
    faults: list[str] = []
    spoken = read_phones(path, faults)
    raise_faults(faults)
    result = {name: [_in_phones(utt, spoken.get(utt.id, {}), path, faults) for utt in sets[name]] for name in sets}
    raise_faults(faults)
    return result


def read_phones(path: Path, faults: list[str]) -> dict[str, dict[int, Row]]:
    """Utterance -> number of the word -> its phones, from lines ``UTTERANCE.NUMBER<tab>W_B IY0_E``; numbers count from 0.

    Stress and place in the word are dropped; what is then none of the 39 phones is a fault.
    """
    spoken: dict[str, dict[int, Row]] = defaultdict(dict)
    for key, row in _rows(path, faults).items():
        utterance, _, number = key.partition(".")
        phones = [match["phone"] for symbol in row.value.split() if (match := _PHONE.fullmatch(symbol))]
        if len(phones) != len(row.value.split()) or not PHONES.issuperset(phones):
            faults.append(f"{row.where}: {key}: reads {row.value!r}, but phones are written like W_B, IY0_E; {AGAIN}")
        elif not number.isdecimal():
            faults.append(f"{row.where}: {key}: is no UTTERANCE.NUMBER of a word; {AGAIN}")
        else:
            spoken[utterance][int(number)] = Row(" ".join(phones), row.where)
    return spoken


def _in_phones(utt: Utterance, words: Mapping[int, Row], path: Path, faults: list[str]) -> Utterance:
    count = len(utt.text.split())
    if sorted(words) != [*range(count)]:
        where = next(iter(words.values())).where if words else path
        faults.append(f"{where}: {utt.id}: has phones of {len(words)} words, not of words 0 to {count - 1}; {AGAIN}")
        return utt
    return replace(utt, text=" ".join(words[number].value for number in range(count)))


def _rows(path: Path, faults: list[str]) -> dict[str, Row]:
    """Rows of one of the corpus's tables by their keys; a tab or a blank follows the key, the order is any."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: cannot be read ({error}); {AGAIN}")
        return {}
    if not lines:
        faults.append(f"{path}: is empty; {AGAIN}")
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, start=1):
        key, *values = line.split() or [""]
        if not values:
            faults.append(f"{path}:{number}: reads {line!r}, but a line is `ID VALUE`; {AGAIN}")
        elif key in rows:
            faults.append(f"{path}:{number}: {key}: has a line above; {AGAIN}")
        rows.setdefault(key, Row(" ".join(values), f"{path}:{number}"))
    return rows


def _lacking(tables: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """A fault for each key that only some of the tables have; a table that could not be read has its fault already."""
    read = {name: table for name, table in tables.items() if table}
    first = {key: row for table in reversed(read.values()) for key, row in table.items()}
    return [
        f"{row.where}: {key}: has no line in {name}; {AGAIN}"
        for key, row in sorted(first.items())
        for name, table in read.items()
        if key not in table
    ]


def dev_speakers(speakers: Mapping[str, Speaker]) -> set[str]:
    """Every tenth speaker in order of sex, age and id, from the fifth on: boys and girls, women and men in proportion."""
    return set(sorted(speakers, key=lambda key: (speakers[key].sex, speakers[key].age, key))[4::10])


def _write(path: Path, utterances: Sequence[Utterance], speakers: Mapping[str, Speaker]) -> None:
    write_data_dir(path, utterances)
    names = sorted({utt.speaker for utt in utterances})
    write_table(path / "spk2gender", {name: speakers[name].sex for name in names})
    write_table(path / "spk2age", {name: str(speakers[name].age) for name in names})


def describe(utterances: Sequence[Utterance], speakers: Mapping[str, Speaker], units: str) -> str:
    """Size of a set, and who speaks."""
    hours = sum(audio_info(utt.audio).duration_s for utt in utterances) / 3600
    length = sum(len(utt.text.split()) for utt in utterances)
    who = [speakers[key] for key in {utt.speaker for utt in utterances}]
    groups = Counter((speaker.sex, speaker.age < ADULT) for speaker in who)
    said = ", ".join(
        f"{groups[sex, child]} {noun}"
        for noun, sex, child in (("girls", "f", True), ("boys", "m", True), ("women", "f", False), ("men", "m", False))
    )
    ages = [speaker.age for speaker in who]
    return (
        f"{len(utterances)} utterances, {length} {units}, {hours:.4f} hours, {len(who)} speakers:"
        f" {said}, aged {min(ages)} to {max(ages)}"
    )


def shared(utterances: Sequence[Utterance], train: Iterable[Utterance], units: str) -> str:
    """How much of what is said in a set is said in training, too."""
    sentences = {utt.text for utt in train}
    known = {word for sentence in sentences for word in sentence.split()}
    repeated = sum(utt.text in sentences for utt in utterances)
    said = [word for utt in utterances for word in utt.text.split()]
    new = sum(word not in known for word in said)
    return f"{repeated} of {len(utterances)} sentences are in train, too; {new} of {len(said)} {units} never occur there"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `download` (stage 0) or `prepare` (stage 1) and return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = _parser().parse_args(arguments)
    if given.command == "download":
        return exit_status(lambda: download(given.download_dir, given.work_dir))
    return exit_status(lambda: prepare(given.download_dir, given.work_dir, given.data_dir, given.units))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["download", "prepare"], help="stage 0 or stage 1 of the recipe")
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"), help="may be or hold the corpus; is only read")
    parser.add_argument("--work_dir", type=Path, default=Path("downloads"), help="where the archive is fetched and unpacked to")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where train, dev and test are written")
    parser.add_argument("--units", choices=["words", "phones"], default="words", help="what the transcripts are made of")
    return parser


if __name__ == "__main__":
    sys.exit(main())
