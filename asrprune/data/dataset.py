"""A data directory with features and labels as a torch data set, its batches, and the CTC length rule."""

import hashlib
import itertools
import os
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import arbitrary_address  # type: ignore[attr-defined]  # typeshed lacks it
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asrprune.config.lengths import output_length
from asrprune.data.archive import entry_now, frontend_of
from asrprune.data.check_features import contradiction
from asrprune.data.packed import Packed
from asrprune.data.tables import is_count, stream_table
from asrprune.data.tokenizer import Tokenizer
from asrprune.data.units import UNKNOWN_LABEL
from asrprune.features.ark import checksum, read_matrix
from asrprune.runtime.errors import UserError, first_line
from asrprune.runtime.files import check_unchanged, write_text

_LONGEST_SOCKET = 103  # bytes of the path of a socket: 107 on Linux, 103 on macOS
_PREFETCHED, _TENSORS = 4, 4  # batches that each process reads in advance; tensors of a batch
_LONGEST_WAIT_S = 600.0  # for a batch, if the process that reads it is alive
_NO_WORKERS = "read them in the training's own process with train.num_workers=0"
_SAMPLED_TEXTS = 500  # transcripts whose letters are checked
_MOST_UNKNOWN = 0.9  # share of the words of these transcripts that the text units cannot write
_SAMPLED_FEATURES = 5000  # utterances whose checksums are computed; more than common test sets have


@dataclass(frozen=True)
class Batch:
    """A batch of utterances, padded to the longest."""

    features: Tensor  # (B, T, F) float32
    lens: Tensor  # (B,) int64
    labels: Tensor  # (B, U) int64
    label_lens: Tensor  # (B,) int64
    index: np.ndarray  # (B,) indices in the corpus

    def pin_memory(self) -> "Batch":
        """Return a copy in page-locked memory; the data loader calls this."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """Return a copy on ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(change(self.features), change(self.lens), change(self.labels), change(self.label_lens), self.index)


class Corpus(Dataset[tuple[int, np.ndarray, list[int]]]):
    """A data directory with features; item i is (i, (T, F) features, labels)."""

    def __init__(self, directory: Path, tokenizer: Tokenizer | None) -> None:
        """Read the tables of ``directory``; without a tokenizer there are no labels.

        Raises:
            UserError: features (stage 2) or, with a tokenizer, transcripts (stage 1) are missing, or their utterances differ.
        """
        if not directory.is_dir():
            raise UserError(f"{directory}: no such data directory; stage 1 (data) and stage 2 (fbank) make it")
        for name in ("feats.scp", "utt2num_frames"):
            if not (directory / name).is_file():
                raise UserError(f"{directory / name}: no such file; stage 2 (`asrprune fbank {directory}`) makes it")
        self.directory, self.tokenizer = directory, tokenizer
        self.ids, self._entries, self.texts = Packed(), Packed(), Packed()
        for key, entry in stream_table(directory / "feats.scp"):
            self.ids.append(key)
            self._entries.append(entry)
        self.lengths = np.fromiter(map(self._frames, self._values("utt2num_frames")), dtype=np.int64, count=len(self.ids))
        self.checksums = self._read_checksums()
        has_text = tokenizer is not None or (directory / "text").is_file()
        for text in self._values("text") if has_text else itertools.repeat("", len(self.ids)):
            self.texts.append(text)
        if tokenizer is not None:
            _check_letters(self, tokenizer)

    def __reduce__(self) -> tuple[Callable[[Path, Tokenizer | None, str], "Corpus"], tuple[Path, Tokenizer | None, str]]:
        """Pickle the paths and a hash of the tables only; the receiving process reads them."""
        return _again, (self.directory, self.tokenizer, self.digest)

    @cached_property
    def digest(self) -> str:
        """A hash of ids, texts, lengths and checksums."""
        digest = hashlib.sha256()
        for column in (self.ids, self.texts):
            for part in column.content:
                digest.update(part)
        for numbers in (self.lengths, self.checksums):
            digest.update(b"" if numbers is None else numbers.data)
        return digest.hexdigest()

    def _frames(self, value: str) -> int:
        if not is_count(value):
            raise UserError(f"{self.directory}/utt2num_frames: `{value}` is not a whole number; run stage 2 (fbank) again")
        return int(value)

    def _values(self, name: str) -> Iterator[str]:
        """Yield the values of a file, which must have the utterances of feats.scp."""
        rows = stream_table(self.directory / name)
        for expected, row in itertools.zip_longest(self.ids, rows):
            if row is None or row[0] != expected:
                raise UserError(
                    f"{self.directory}: feats.scp, utt2num_frames and text have different utterances; run stage 2 (fbank) again"
                )
            yield row[1]

    def _read_checksums(self) -> np.ndarray | None:
        """Return the CRC-32 of each utterance's features, (N,) uint32; None for features of another program."""
        if not (self.directory / "utt2crc").is_file():
            return None
        values = (int(value, 16) for value in self._values("utt2crc"))
        return np.fromiter(values, dtype=np.uint32, count=len(self.ids))

    @cached_property
    def known_by(self) -> np.ndarray:
        """Checksums that tell these features from others, (N,) uint32.

        Without utt2crc, as with features of other programs, they are computed from the features of at most 5000 utterances,
        spread evenly: to read all takes long. File sizes and times are not used, because they change when archives are copied.
        """
        if self.checksums is not None:
            return self.checksums
        chosen = np.linspace(0, len(self) - 1, min(len(self), _SAMPLED_FEATURES), dtype=np.int64)
        return np.fromiter((checksum(self._read(index)) for index in chosen), dtype=np.uint32, count=len(chosen))

    @property
    def frontends(self) -> Iterator[dict[str, Any]]:
        """The settings with which `asrprune fbank` computed the features of each archive; empty if they are not known.

        A set that was combined from others has archives of several directories.
        """
        archives = dict.fromkeys(entry.rpartition(":")[0] for entry in self._entries)
        return (frontend_of(entry_now(self.directory, f"{archive}:0")) for archive in archives)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray, list[int]]:
        matrix = self._matrix(index)
        if matrix.shape[1] != self._width:
            raise UserError(
                f"{self.directory}/feats.scp:{index + 1}: {self.ids[index]}: has {matrix.shape[1]} features in a frame, but"
                f" {self.ids[0]} has {self._width}; run stage 2 (fbank) again"
            )
        return index, matrix, self.labels(index)

    @cached_property
    def _width(self) -> int:
        """The number of features in a frame of the first utterance, which all others must have, too."""
        return self._matrix(0).shape[1]

    def _matrix(self, index: int) -> np.ndarray:
        """Read the features of an utterance, (T, F), and compare them with the tables."""
        matrix = self._read(index)
        crc = None if self.checksums is None else self.checksums[index]
        if wrong := contradiction(self._entries[index], matrix, self.lengths[index], crc):
            raise UserError(f"{self.directory}/{wrong[0]}:{index + 1}: {self.ids[index]}: {wrong[1]}")
        return matrix

    def _read(self, index: int) -> np.ndarray:
        """Read the features of an utterance, (T, F)."""
        try:
            return read_matrix(entry_now(self.directory, self._entries[index]))
        except UserError as error:
            raise UserError(f"{self.directory}/feats.scp:{index + 1}: {self.ids[index]}: {error}") from None

    def labels(self, index: int) -> list[int]:
        """Return the labels of an utterance; empty without a tokenizer."""
        return self.tokenizer.encode(self.texts[index]) if self.tokenizer else []

    @cached_property
    def needed(self) -> np.ndarray:
        """The smallest number of encoder frames (N,) with which CTC can emit each transcript; 0 if it is empty."""
        return np.fromiter((needed_frames(self.labels(i)) for i in range(len(self))), dtype=np.int64, count=len(self))

    def loader(self, batches: Sequence[np.ndarray], num_workers: int = 0, pin_memory: bool = False) -> Iterator[Batch]:
        """Yield the given batches in order; ``num_workers`` processes read them in advance.

        Raises:
            UserError: these processes could not send their batches. This is checked here, because an error of the thread
                that sends them would be lost.
        """
        sampler = [batch.tolist() for batch in batches]
        if num_workers:
            _check_workers(num_workers)
        return iter(
            DataLoader(
                self,
                batch_sampler=sampler,
                collate_fn=_shared if num_workers else _collate,
                num_workers=num_workers,
                prefetch_factor=_PREFETCHED if num_workers else None,
                pin_memory=pin_memory,
                timeout=_LONGEST_WAIT_S if num_workers else 0,
            )
        )


def _again(directory: Path, tokenizer: Tokenizer | None, digest: str) -> Corpus:
    """Read a pickled corpus."""
    corpus = Corpus(directory, tokenizer)
    check_unchanged(directory, digest, corpus.digest)
    return corpus


def _check_workers(count: int) -> None:
    """Raise a ``UserError`` if ``count`` processes could not send batches: each tensor is sent by a socket as an open file."""
    if len(arbitrary_address("AF_UNIX")) > _LONGEST_SOCKET:
        raise UserError(
            f"{tempfile.gettempdir()}: this path is too long for the sockets of the processes that read features; set TMPDIR to"
            f" a shorter one, or {_NO_WORKERS}"
        )
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/dev/fd")) + count * (_PREFETCHED * _TENSORS + 8) + 40  # 4 processes: 90 files were enough, 70 not
    if limit < needed and limit != resource.RLIM_INFINITY:
        raise UserError(
            f"train.num_workers={count}: these processes need {needed} open files, but the limit is {limit}; raise it, for"
            f" example `ulimit -n 1024`, or {_NO_WORKERS}"
        )


def _shared(items: list[tuple[int, np.ndarray, list[int]]]) -> Batch:
    """Collate in shared memory. If there is too little, the error is raised here, so that it reaches the training."""
    try:
        return _collate(items)._each(Tensor.share_memory_)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"/dev/shm: has no room for the batches that are read in advance ({first_line(error)}); make it larger, with Docker"
            f" by --shm-size=8g or --ipc=host, or {_NO_WORKERS}"
        ) from None


def _check_letters(corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Raise a ``UserError`` if the text units can write hardly any word of the transcripts, as with another case."""
    sampled = range(0, len(corpus), max(1, len(corpus) // _SAMPLED_TEXTS))
    words = [word for index in sampled for word in corpus.texts[index].split()]
    unknown = [word for word in words if UNKNOWN_LABEL in tokenizer.encode(word)]
    if len(unknown) > _MOST_UNKNOWN * len(words):
        raise UserError(
            f"{corpus.directory}/text: {len(unknown)} of {len(words)} words, such as `{unknown[0]}`, cannot be written in the"
            f" text units of {tokenizer.path}; use the case (a or A) of the transcripts from which the units were made"
        )


def _collate(items: list[tuple[int, np.ndarray, list[int]]]) -> Batch:
    lens = [len(features) for _, features, _ in items]
    label_lens = [len(labels) for _, _, labels in items]
    features = np.zeros((len(items), max(lens), items[0][1].shape[1]), dtype=np.float32)
    labels = np.zeros((len(items), max(label_lens)), dtype=np.int64)
    for row, (_, matrix, units) in enumerate(items):
        features[row, : len(matrix)] = matrix
        labels[row, : len(units)] = units
    index = np.array([position for position, _, _ in items])
    return Batch(torch.from_numpy(features), torch.tensor(lens), torch.from_numpy(labels), torch.tensor(label_lens), index)


def needed_frames(labels: Sequence[int]) -> int:
    """Return the smallest number of encoder frames with which CTC can emit ``labels``.

    Each label needs one frame, and a blank between two equal labels needs another one.

    >>> needed_frames([1, 1, 2])
    4
    """
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def feasible(corpus: Corpus, factor: int) -> np.ndarray:
    """Return (N,) bool: the utterances with at least one label and enough encoder frames for CTC."""
    return (corpus.needed > 0) & (corpus.needed <= output_length(corpus.lengths, factor))


def write_dropped(path: Path, corpus: Corpus, kept: np.ndarray, factor: int) -> None:
    """Write a table of the utterances that training leaves out: ``utterance  encoder_frames  needed_frames``."""
    frames = output_length(corpus.lengths, factor)
    rows = [f"{corpus.ids[int(i)]}\t{frames[i]}\t{corpus.needed[i]}\n" for i in np.flatnonzero(~kept)]
    write_text(path, "utterance\tencoder_frames\tneeded_frames\n" + "".join(rows))
