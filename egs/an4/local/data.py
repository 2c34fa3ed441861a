#!/usr/bin/env python3
"""CMU AN4: fetch it, and write Kaldi data directories of its train, dev and test set."""

import argparse
import hashlib
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from asrprune.data.download import fetch
from asrprune.data.kaldi import Utterance, write_data_dir
from asrprune.data.unpack import unpack
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status

logger = logging.getLogger("an4")
URL = "http://www.speech.cs.cmu.edu/databases/an4/an4_raw.bigendian.tar.gz"
NUM_UTTERANCES = {"train": 948, "test": 130}
# The checksum is that of the content (see `fingerprint`), not of the archive: none is known for CMU's, and a copy that was
# packed anew holds the same files under other time stamps. Damage on the way shows in gzip's own checksum.
CONTENT_SHA256 = "08c901af6bfbd48709ac59278de293d5e1c8c9d79b307d506ceddbae8ba11889"
# The README in the archive says "little endian", its name says big endian, and the name is right: read as big endian the
# median RMS of the 1,078 files is 975 and none is above 2,500; read as little endian all are noise above 9,300.
FORMAT = "?rate=16000&encoding=s16be"
_FILE = re.compile(r"an4(test)?_clstk/(?P<speaker>[fm]\w+)/(?P<name>(?P<prompt>\w+)-(?P=speaker)-(?P<take>\w+))")
_TRANSCRIPT = re.compile(r"(?:<s> )?(?P<words>[^<>()]+?)(?: </s>)? \((?P<id>[^()\s]+)\)\s*")


def download(download_dir: Path, corpus_dir: Path) -> None:
    """Unpack AN4 into ``corpus_dir`` unless that is there; the archive comes from ``download_dir``, or else from CMU."""
    if not corpus_dir.is_dir():
        unpack(fetch(URL, None, corpus_dir.parent / Path(URL).name, download_dir), corpus_dir)


def prepare(corpus_dir: Path, data_dir: Path) -> None:
    """Write ``data_dir``/train, dev and test; dev is some speakers of the official training set, test the official one."""
    corpus = (corpus_dir / "an4").resolve()
    official_train, test = (read_set(corpus, name) for name in ("train", "test"))
    check_content(corpus)
    held_out = dev_speakers(utt.speaker for utt in official_train)
    dev = [utt for utt in official_train if utt.speaker in held_out]
    train = [utt for utt in official_train if utt.speaker not in held_out]
    for name, utterances in (("train", train), ("dev", dev), ("test", test)):
        write_data_dir(data_dir / name, utterances)


def read_set(corpus: Path, name: str) -> list[Utterance]:
    """Utterances of the official ``train`` or ``test`` set; raises ``UserError`` where lists, transcripts, audio disagree."""
    list_path, text_path = (corpus / "etc" / f"an4_{name}.{kind}" for kind in ("fileids", "transcription"))
    files, lines = _lines(list_path), _lines(text_path)
    if not len(files) == len(lines) == NUM_UTTERANCES[name]:
        counts = f"{len(files)} files and {len(lines)} transcripts, not {NUM_UTTERANCES[name]} each"
        raise UserError(
            f"{list_path}: lists {counts}; this is not the whole of AN4, delete {corpus.parent} and run stage 0 again"
        )
    numbered = enumerate(zip(files, lines, strict=True), start=1)
    return [_utterance(corpus, file, line, f"{text_path}:{number}") for number, (file, line) in numbered]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete {path.parents[2]} and run stage 0 again") from None


def _utterance(corpus: Path, file: str, line: str, where: str) -> Utterance:
    """``an4_clstk/fash/an251-fash-b`` and ``<s> YES </s> (an251-fash-b)`` make ``fash-an251-b`` of speaker ``fash``."""
    listed, said = _FILE.fullmatch(file), _TRANSCRIPT.fullmatch(line)
    if not listed or not said or said["id"] != listed["name"]:
        raise UserError(
            f"{where}: {file}: its transcript reads {line!r}, not 'WORDS (ID)' with its own ID; unpack the archive again"
        )
    audio = corpus / "wav" / f"{file}.raw"
    if not audio.is_file() or audio.stat().st_size == 0:
        raise UserError(f"{where}: {file}: its audio {audio} is missing or empty; delete {corpus.parent} and run stage 0 again")
    name = f"{listed['speaker']}-{listed['prompt']}-{listed['take']}"
    return Utterance(name, f"{audio}{FORMAT}", 0.0, None, listed["speaker"], said["words"])


def dev_speakers(speakers: Iterable[str]) -> set[str]:
    """Every tenth woman and every tenth man in order of their names, starting with the fifth: 2 and 5 of AN4's 21 and 53.

    The first letter of a name is the speaker's sex. A start at the fifth keeps mdcs and mdcs2, perhaps one man, both in train.
    """
    names = sorted(set(speakers))
    return {name for sex in "fm" for name in [name for name in names if name[0] == sex][4::10]}


def check_content(corpus: Path) -> None:
    """Warn if lists, transcripts and audio are not, byte for byte, those that the published results were made with."""
    found = fingerprint(corpus)
    if found != CONTENT_SHA256:
        logger.warning("%s: differs from the AN4 behind RESULTS.md (content %s): results may differ too", corpus, found)


def fingerprint(corpus: Path) -> str:
    """SHA-256 over path and bytes of everything that `prepare` reads, in order of the paths."""
    etc = [corpus / "etc" / f"an4_{name}.{kind}" for name in NUM_UTTERANCES for kind in ("fileids", "transcription")]
    digest = hashlib.sha256()
    for path in sorted([*etc, *(corpus / "wav").rglob("*.raw")]):
        digest.update(f"{path.relative_to(corpus).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `download` (stage 0) or `prepare` (stage 1) and return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parser().parse_args(arguments)
    if options.command == "download":
        return exit_status(lambda: download(options.download_dir, options.corpus_dir))
    return exit_status(lambda: prepare(options.corpus_dir, options.data_dir))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["download", "prepare"], help="stage 0 or stage 1 of the recipe")
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"), help="may hold the archive; is only read")
    parser.add_argument("--corpus_dir", type=Path, default=Path("downloads/an4"), help="what the archive is unpacked into")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where train, dev and test are written")
    return parser


if __name__ == "__main__":
    sys.exit(main())
