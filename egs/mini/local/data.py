"""Make the embedded corpus: data/{train,dev,test} of spoken commands, synthesised here, the same on every run.

All numbers come from --config. Random draws depend on the seed, the set and the number of the utterance alone, so --nj does
not matter. The audio of a speaker is one file, data/audio/SET/SPEAKER.wav, and the unit of resuming: a run that was killed is
started again and makes what is missing.
"""

import argparse
import hashlib
import itertools
import logging
import shutil
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import soundfile
from acoustics import Samples, add_noise, babble, coloured_noise, resample, reverberate, to_peak, trim
from corpus import MAX_BABBLE_VOICES, CorpusConfig, SetConfig, read_config
from espeak import SAMPLE_RATE, Voice, check_voice, installed_version, say

from asrprune.data.kaldi import Utterance, write_data_dir
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import processes
from asrprune.runtime.failures import exit_status
from asrprune.runtime.files import atomic_path, held, read_json, remove_temporaries, write_json
from asrprune.runtime.progress import track

logger = logging.getLogger(__name__)
VERSION = 2  # raise it when the same configuration gives other audio than before
SET_NAMES = ("train", "dev", "test")
TABLES = ("wav.scp", "segments", "text", "utt2spk", "spk2utt")
_GRAIN = 160  # samples; lengths are multiples of it, so that times in `segments` are short numbers


@dataclass(frozen=True)
class Speaker:
    """A voice and its numbers in the set that it alone belongs to."""

    id: str
    voice: Voice
    set_name: str
    numbers: range


def speakers(config: CorpusConfig, set_name: str) -> list[Speaker]:
    """All accents with all variants of the set; utterances are dealt out in turn."""
    part: SetConfig = getattr(config.sets, set_name)
    pairs = list(itertools.product(config.accents, part.female + part.male))
    return [
        Speaker(f"{accent}-{variant}".lower(), _voice(config, accent, variant), set_name, range(i, part.utterances, len(pairs)))
        for i, (accent, variant) in enumerate(pairs)
    ]


def _voice(config: CorpusConfig, accent: str, variant: str) -> Voice:
    rng = np.random.default_rng([config.seed, zlib.crc32(f"{accent}+{variant}".encode())])
    drawn = [int(rng.integers(*pair, endpoint=True)) for pair in (config.words_per_minute, config.pitch, config.pitch_range)]
    return Voice(accent, variant, *drawn)


def speak(config: CorpusConfig, speaker: Speaker) -> Iterator[tuple[int, str, Samples]]:
    """Number, text and samples (N,) in (-1, 1) of each utterance of the speaker."""
    place = [config.seed, SET_NAMES.index(speaker.set_name)]
    rngs = [np.random.default_rng([*place, number]) for number in speaker.numbers]
    texts = [_sentence(config, rng, *config.sentence_words) for rng in rngs]
    spoken = _spoken(config, speaker.voice, texts)
    for number, text, speech, rng in zip(speaker.numbers, texts, spoken, rngs, strict=True):
        yield number, text, _record(config, speaker.set_name, speech, rng)


def _sentence(config: CorpusConfig, rng: np.random.Generator, least: int, most: int) -> str:
    return " ".join(rng.choice(config.words, rng.integers(least, most, endpoint=True)))


def _spoken(config: CorpusConfig, voice: Voice, texts: list[str]) -> list[Samples]:
    return [trim(resample(samples / 32768.0, SAMPLE_RATE, config.sample_rate)) for samples in say(voice, texts)]


def _record(config: CorpusConfig, set_name: str, speech: Samples, rng: np.random.Generator) -> Samples:
    """Put silence around the speech, then room, noise and level over it."""
    before, after = (round(rng.uniform(*config.silence_s) * config.sample_rate) for _ in range(2))
    after += -(before + len(speech) + after) % _GRAIN
    signal = np.pad(speech, (before, after))
    if rng.random() < config.reverberation:
        decay_s, direct_db = rng.uniform(*config.reverberation_s), rng.uniform(*config.direct_db)
        signal = reverberate(signal, config.sample_rate, decay_s, direct_db, rng)
    noise = _noise(config, set_name, len(signal), rng)
    signal = add_noise(signal, noise, slice(before, before + len(speech)), rng.uniform(*config.snr_db))
    return to_peak(signal, rng.uniform(*config.peak_db))


def _noise(config: CorpusConfig, set_name: str, length: int, rng: np.random.Generator) -> Samples:
    kind = str(rng.choice(config.noises))
    if kind == "babble":
        return babble(_babble_clips(config, set_name), length, config.babble_voices, rng)
    return coloured_noise(kind, length, config.sample_rate, rng)


@cache
def _babble_clips(config: CorpusConfig, set_name: str) -> list[Samples]:
    """Long sentences by voices of the set, the same in every process."""
    rng = np.random.default_rng([config.seed, len(SET_NAMES), SET_NAMES.index(set_name)])
    voices = [speaker.voice for speaker in speakers(config, set_name)]
    chosen = [voices[i] for i in rng.integers(len(voices), size=MAX_BABBLE_VOICES)]
    longest = config.sentence_words[1]
    return [_spoken(config, voice, [_sentence(config, rng, longest, longest)])[0] for voice in chosen]


def make_speaker(config: CorpusConfig, audio_dir: Path, speaker: Speaker) -> None:
    """Write the speaker's recording, then the list of what is in it, which says that the recording is complete."""
    rows, pieces, start = [], [], 0
    for number, text, samples in speak(config, speaker):
        pieces.append(np.round(samples * 32767).astype(np.int16))
        rows.append({"number": number, "text": text, "start": start, "end": start + len(samples)})
        start += len(samples)
    with atomic_path(_wav(audio_dir, speaker)) as temporary:
        soundfile.write(temporary, np.concatenate(pieces), config.sample_rate, subtype="PCM_16")
    write_json(_list(audio_dir, speaker), rows)


def _wav(audio_dir: Path, speaker: Speaker) -> Path:
    return audio_dir / speaker.set_name / f"{speaker.id}.wav"


def _list(audio_dir: Path, speaker: Speaker) -> Path:
    return _wav(audio_dir, speaker).with_suffix(".json")


def _is_made(audio_dir: Path, speaker: Speaker) -> bool:
    return _wav(audio_dir, speaker).exists() and _list(audio_dir, speaker).exists()


def utterances(config: CorpusConfig, audio_dir: Path, speaker: Speaker) -> Iterator[Utterance]:
    """The speaker's lines of the data directory, from the list beside the recording."""
    for row in read_json(_list(audio_dir, speaker)):
        start_s, end_s = (row[key] / config.sample_rate for key in ("start", "end"))
        name = f"{speaker.id}-{row['number']:05d}"
        yield Utterance(name, str(_wav(audio_dir, speaker)), start_s, end_s, speaker.id, row["text"], recording=speaker.id)


def make_corpus(config: CorpusConfig, data_dir: Path, jobs: int) -> None:
    """Bring ``data_dir`` up to date: whatever is missing is made, what another configuration made is replaced.

    Raises ``UserError`` if there are no ``jobs``, espeak-ng or one of the voices is missing, ``data_dir`` holds somebody else's
    corpus, or another process is making it.
    """
    if jobs < 1:
        raise UserError(f"--nj {jobs}: at least one process is needed")
    installed_version()
    audio_dir = data_dir / "audio"
    everyone = [speaker for name in SET_NAMES for speaker in speakers(config, name)]
    for speaker in everyone:
        check_voice(speaker.voice)
    with held(audio_dir):
        _claim(config, data_dir)
        missing = [speaker for speaker in everyone if not _is_made(audio_dir, speaker)]
        _make_all(partial(make_speaker, config, audio_dir), missing, jobs)
        _write_data_dirs(config, data_dir, everyone)
    logger.info("%s: %s", data_dir, f"made {len(missing)} speakers" if missing else "is up to date")


def _write_data_dirs(config: CorpusConfig, data_dir: Path, everyone: list[Speaker]) -> None:
    for name in SET_NAMES:
        if not all((data_dir / name / table).exists() for table in TABLES):
            ours = (speaker for speaker in everyone if speaker.set_name == name)
            write_data_dir(
                data_dir / name, [utt for speaker in ours for utt in utterances(config, data_dir / "audio", speaker)]
            )


def _claim(config: CorpusConfig, data_dir: Path) -> None:
    """Make sure that what is in ``data_dir`` belongs to ``config``: remove our older corpus, refuse somebody else's."""
    identity = hashlib.sha256(f"{VERSION} {installed_version()} {config.model_dump_json()}".encode()).hexdigest()
    stamp, audio_dir = data_dir / "corpus.json", data_dir / "audio"
    old_stamp = audio_dir / "corpus.json"  # of earlier versions; it was lost with the recordings
    found = next((read_json(path)["sha256"] for path in (stamp, old_stamp) if path.exists()), None)
    if found != identity:
        _make_room(data_dir, ours=found is not None)
    if found != identity or not stamp.exists():
        write_json(stamp, {"sha256": identity, "espeakng-loader": installed_version()})
    for directory in (audio_dir, *(audio_dir / name for name in SET_NAMES)):
        remove_temporaries(directory)


def _make_room(data_dir: Path, ours: bool) -> None:
    old = [path for name in SET_NAMES for path in (data_dir / name, data_dir / "audio" / name) if path.exists()]
    if old and not ours:
        raise UserError(f"{old[0]}: exists, but this script did not make it; choose another --data_dir or move it away")
    if old:
        logger.info("%s: was made from another configuration or version; making it anew", data_dir)
    for path in old:
        shutil.rmtree(path)


def _make_all(make: "partial[None]", missing: list[Speaker], jobs: int) -> None:
    with processes(min(jobs, len(missing))) as executor:
        for _ in track(executor.map(make, missing), "speaking", total=len(missing)):
            pass


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("conf/corpus.yaml"), help="what to make (default: %(default)s)")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where (default: %(default)s)")
    parser.add_argument("--nj", type=int, default=2, help="processes (default: %(default)s)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return exit_status(lambda: make_corpus(read_config(args.config), args.data_dir, args.nj))


if __name__ == "__main__":
    sys.exit(main())
