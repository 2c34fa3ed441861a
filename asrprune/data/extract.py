"""Log-mel filterbanks and global CMVN of a data directory as Kaldi archives, computed in shards; a restart continues.

Each utterance has a checksum in ``utt2crc``, which is compared when its features are read.
"""

import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from asrprune.config.schema import FrontendConfig
from asrprune.data.archive import CONTENTS, STORE, Contents
from asrprune.data.check import SHORTEST_S
from asrprune.data.kaldi import Utterance, Utterances
from asrprune.data.tables import open_table, some, stream_table, write_ascending, write_table
from asrprune.features.ark import checksum, read_matrix, write_ark
from asrprune.features.audio import is_pipe, read_audio, stamp_of
from asrprune.features.cmvn import read_statistics, statistics, write_cmvn
from asrprune.features.fbank import compute_fbank
from asrprune.features.resample import SPEED_FILTER, change_speed
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import Executor
from asrprune.runtime.files import atomic_path, digest_of, held, remove_temporaries
from asrprune.runtime.progress import track

logger = logging.getLogger(__name__)
SHARD_UTTERANCES = 200  # in one archive; small, so that a killed run loses little
_SUFFIXES = (".ark", ".scp", ".cmvn")
Shard = tuple[Path, list[Utterance]]  # path of an archive without its suffix, and its utterances


def utterance_samples(utterance: Utterance, options: FrontendConfig, allow_pipes: bool = False) -> np.ndarray:
    """Read the samples of an utterance and change their speed: (N,) float32. A ``UserError`` names the utterance."""
    try:
        samples = read_audio(utterance.audio, options.sample_rate, utterance.start_s, utterance.end_s, allow_pipes)
    except UserError as error:
        raise UserError(f"{utterance.id}: {error}") from None
    return change_speed(samples, options.sample_rate, utterance.speed)


def extract(directory: Path, options: FrontendConfig, executor: Executor, allow_pipes: bool = False) -> int:
    """Compute the missing features of a data directory; write feats.scp, utt2num_frames, utt2dur and utt2crc.

    The name of an archive contains a hash of its options and recordings. So a restart computes only missing or damaged
    archives, and changed options or recordings give new archives. Return the number of archives that were computed.

    Raises:
        UserError: an utterance cannot be read, or some are too short for a frame (the error names all of them), or another
            process computes features of this directory.
    """
    utterances = Utterances(directory, need_text=False)
    with held(directory / STORE):
        return _extract(directory, utterances, options, executor, allow_pipes)


def _extract(directory: Path, utterances: Utterances, options: FrontendConfig, executor: Executor, allow_pipes: bool) -> int:
    store = directory.resolve() / STORE
    names, unstamped = list[str](), list[str]()
    for index, shard in enumerate(_shards(utterances)):
        stamps = {audio: stamp_of(audio) for audio in {u.audio for u in shard}}
        names.append(_shard_name(index, shard, stamps, options))
        unstamped += [u.id for u in shard if is_pipe(u.audio) and stamps[u.audio] is None]
    if unstamped:
        logger.warning(
            "%s: %s: the commands name no file, so a change of these recordings is not noticed; after one, remove %s",
            directory / "wav.scp", some(unstamped), store,
        )  # fmt: skip
    missing = {index for index, name in enumerate(names) if not _is_complete(store / name)}
    if missing:
        logger.info(
            "%s: features of %d utterances, %d of %d archives to compute", directory, len(utterances), len(missing), len(names)
        )
        write = partial(_write_shard, options=options, allow_pipes=allow_pipes)
        shards = ((store / names[index], shard) for index, shard in enumerate(_shards(utterances)) if index in missing)
        too_short: list[str] = []
        for found in track(executor.map(write, shards), f"fbank {directory.name}", len(missing)):
            too_short += found
        if too_short:
            raise UserError(_too_short(directory, sorted(too_short), options))
    _collect(directory, [store / name for name in names], options)
    return len(missing)


def _shards(utterances: Iterable[Utterance]) -> Iterator[list[Utterance]]:
    """Yield the utterances of each archive."""
    coming = iter(utterances)
    while shard := list(itertools.islice(coming, SHARD_UTTERANCES)):
        yield shard


def _too_short(directory: Path, utterances: Sequence[str], options: FrontendConfig) -> str:
    """Return a sentence about utterances without a frame; utt2num_frames must be above 0, as in Kaldi."""
    half_ms = options.frame_shift_ms / 2
    fix = ", `asrprune fix-data` does it" if half_ms <= 1000 * SHORTEST_S else ""
    if (directory / "utt2speed").is_file():
        fix = " from the directory that `asrprune perturb` copied"
    return (
        f"{directory}: {', '.join(utterances)}: shorter than half the distance of frames ({half_ms:g} ms), so without features;"
        f" remove these utterances{fix}"
    )


def _write_shard(shard: Shard, options: FrontendConfig, allow_pipes: bool) -> list[str]:
    """Write an archive. If some utterances are too short for a frame, return their ids instead."""
    base, utterances = shard
    ark = base.with_suffix(".ark")
    frames, crc, stats = dict[str, int](), dict[str, str](), np.zeros((2, options.num_mels + 1))
    with atomic_path(ark) as temporary:
        matrices = ((u.id, compute_fbank(utterance_samples(u, options, allow_pipes), options)) for u in utterances)
        entries = write_ark(temporary, ark, _counted(matrices, frames, crc, stats))
    if too_short := [key for key, count in frames.items() if not count]:
        ark.unlink()
        return too_short
    write_cmvn(base.with_suffix(".cmvn"), stats)
    write_table(base.with_suffix(".scp"), entries)
    files = {suffix: digest_of(base.with_suffix(suffix)) for suffix in _SUFFIXES}
    Contents(frames=frames, crc=crc, files=files, frontend=options.model_dump(mode="json")).write(base.with_suffix(CONTENTS))
    return []


def _is_complete(base: Path) -> bool:
    try:
        files = Contents.read(base.with_suffix(CONTENTS)).files
        return all(digest_of(base.with_suffix(suffix)) == digest for suffix, digest in files.items())
    except (UserError, OSError):
        return False


def _counted(
    matrices: Iterator[tuple[str, np.ndarray]], frames: dict[str, int], crc: dict[str, str], stats: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the matrices; note their lengths and checksums, and add their sums to the CMVN statistics ``stats``."""
    for key, matrix in matrices:
        frames[key], crc[key] = len(matrix), f"{checksum(matrix):08x}"
        stats += statistics(matrix)
        yield key, matrix


def _shard_name(index: int, utterances: Sequence[Utterance], stamps: Mapping[str, object], options: FrontendConfig) -> str:
    content = [[u.id, u.audio, stamps[u.audio], u.start_s, u.end_s, u.speed] for u in utterances]
    speed_filter = [SPEED_FILTER] if any(u.speed != 1.0 for u in utterances) else []
    digest = hashlib.sha256(json.dumps([content, options.model_dump(), *speed_filter]).encode()).hexdigest()
    return f"feats_{index:05d}_{digest[:12]}"


def _collect(directory: Path, bases: list[Path], options: FrontendConfig) -> None:
    """Write the tables of a directory, line by line; the utterances of an archive follow those of the one before."""

    def contents() -> Iterator[Contents]:
        return (Contents.read(base.with_suffix(CONTENTS)) for base in bases)

    def frames() -> Iterator[tuple[str, int]]:
        return (row for archive in contents() for row in archive.frames.items())

    write_ascending(directory / "utt2num_frames", ((key, str(count)) for key, count in frames()))
    write_ascending(directory / "utt2dur", ((key, f"{count * options.shift_ms / 1000:.3f}") for key, count in frames()))
    write_ascending(directory / "utt2crc", (row for archive in contents() for row in archive.crc.items()))
    write_ascending(directory / "feats.scp", _entries(bases))
    wanted, store = {base.name for base in bases}, directory / STORE
    remove_temporaries(store)
    for stale in store.glob("feats_*"):  # the directory may be a link and contain other files
        if stale.stem not in wanted:
            stale.unlink()


def _entries(bases: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield the lines of feats.scp; the directory may have been moved since the archives were written."""
    for base in bases:
        for key, entry in stream_table(base.with_suffix(".scp")):
            yield key, f"{base.with_suffix('.ark')}:{entry.rpartition(':')[2]}"


def compute_cmvn(directory: Path) -> np.ndarray:
    """Compute the global CMVN statistics of a directory, as Kaldi's compute-cmvn-stats: (2, F + 1) float64.

    Row 0 has the sums and the number of frames, row 1 the sums of squares and 0. Archives of asrprune come with their
    statistics; features of another program are read.

    Raises:
        UserError: there are no frames, or the features differ in the number of filters.
    """
    if archives := sorted((directory / STORE).glob("feats_*.cmvn")):
        parts: Iterator[np.ndarray] = map(read_statistics, archives)
    else:
        table = open_table(directory / "feats.scp")
        parts = (statistics(read_matrix(entry)) for _, entry in track(table, f"cmvn {directory.name}"))
    stats = next(parts)
    for part in parts:
        if part.shape != stats.shape:
            raise UserError(f"{directory}: its features differ in the number of filters; remove fbank/ and run stage 2 (fbank)")
        stats = stats + part
    if stats[0, -1] == 0:
        raise UserError(f"{directory}/feats.scp: has no frames, so CMVN cannot be computed; check stage 1 (data)")
    return stats
