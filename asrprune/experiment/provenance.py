"""Checks that a resumed training run has the same config, text units and data as before."""

import hashlib
import itertools
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from asrprune.config.load import write_config
from asrprune.config.schema import Config, CosineConfig
from asrprune.data.dataset import Corpus
from asrprune.data.tokenizer import Tokenizer
from asrprune.data.windows import Windows, fitting
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.store import read_experiment_config
from asrprune.experiment.trained_with import changes
from asrprune.features.cmvn import read_cmvn
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path, sha256_of
from asrprune.runtime.records import Record

logger = logging.getLogger(__name__)


class Fingerprint(Record):
    """The fingerprint of a corpus: its size, and hashes of its ids, lengths, texts and features, but not its path."""

    utterances: int
    frames: int
    ids: str
    lengths: str
    texts: str
    features: str | None = None  # None: an earlier version did not record it


class TrainedOn(Record):
    """data.json: the fingerprints of the training and dev data, and the SHA-256 of the files copied into the experiment."""

    made_by: ClassVar[str] = "stage 4 (`asrprune train`)"
    format: Literal[1]
    train: Fingerprint
    dev: Fingerprint
    copied: dict[str, str] = Field({})  # earlier versions did not record them
    windows: Windows | None = None  # that fit the training utterances; earlier versions did not record them

    def on_any_machine(self) -> "TrainedOn":
        """Return a copy with what is the same on any machine and in any version.

        The last bits of features and CMVN vary by machine, so their hashes are left out. The windows follow from the lengths.
        """
        bare = {name: getattr(self, name).model_copy(update={"features": None}) for name in ("train", "dev")}
        return self.model_copy(update={**bare, "copied": {}, "windows": None})


def start(exp: Path, config: Config, bpe_model: Path, cmvn: Path) -> None:
    """Create an experiment directory, or check that the existing one has the same config, text units and CMVN.

    Raises:
        UserError: the existing experiment differs (the error lists all numbers that differ); a file is missing; CMVN and config
            have different numbers of filters.
    """
    Tokenizer(bpe_model)  # raises if it is missing
    tokens = bpe_model.with_name("tokens.txt")
    if not tokens.is_file():
        raise UserError(f"{tokens}: no such file; stage 3 (`asrprune bpe`) makes it with {bpe_model.name}")
    if not cmvn.is_file():
        raise UserError(f"{cmvn}: no such CMVN statistics; stage 2 (`asrprune fbank --cmvn`) makes them")
    paths = ExperimentPaths(exp)
    if paths.config.exists():
        _check_same(paths.config, config)
        copied = TrainedOn.read(paths.data).copied if paths.data.exists() else {}
        _check_same_file(paths.tokenizer, bpe_model, copied)
        _check_same_file(paths.cmvn, cmvn, copied)
    if (width := len(read_cmvn(cmvn)[0])) != config.frontend.num_mels:
        raise UserError(
            f"{cmvn}: has {width} filters, but frontend.num_mels is {config.frontend.num_mels}; run stage 2 (fbank) with"
            " this config, or set frontend.num_mels back"
        )
    for source, name in ((bpe_model, "bpe.model"), (tokens, "tokens.txt"), (cmvn, "cmvn")):
        with atomic_path(exp / name) as temporary:
            shutil.copyfile(source, temporary)
    write_config(config, paths.config)


def check_data(exp: Path, config: Config, train: Corpus, dev: Corpus) -> None:
    """Write fingerprints of the data to ``data.json``, or compare them with the existing ones.

    The paths of the data may change. Ids, lengths, texts and features must stay the same, because the model depends on them.

    Raises:
        UserError: the data have changed.
    """
    paths, now = ExperimentPaths(exp), TrainedOn(format=1, train=fingerprint(train), dev=fingerprint(dev))
    path = paths.data
    if now.train == now.dev:
        logger.warning(
            "%s: is the training set, too, so dev results, and the epochs that they choose, say nothing about other speech;"
            " give a dev set of other speakers", dev.directory,
        )  # fmt: skip
    if not path.exists():
        copied = {file.name: sha256_of(file) for file in (paths.tokenizer, paths.cmvn) if file.is_file()}
        windows = fitting(train.lengths * config.frontend.shift_ms / 1000)
        return now.model_copy(update={"copied": copied, "windows": windows}).write(path)
    before = TrainedOn.read(path)
    for name, corpus, old, new in (("train", train, before.train, now.train), ("dev", dev, before.dev, now.dev)):
        pairs = zip(old, new, strict=True)
        if changed := [f"{key} was {was}, is {value}" for (key, was), (_, value) in pairs if was not in (value, None)]:
            raise UserError(
                f"{corpus.directory} is not the {name} data of {exp} ({'; '.join(changed)}); "
                f"give a new experiment (--exp; run.sh: --exp_tag), or remove {exp}"
            )
    return None


def check_frontend(exp: Path, config: Config, *corpora: Corpus) -> None:
    """Check that features were computed with the numbers of the experiment, as far as that is known.

    Raises:
        UserError: a number differs.
    """
    wanted = config.frontend.model_dump(mode="json")
    for corpus in corpora:
        for name, was in itertools.chain.from_iterable(known.items() for known in corpus.frontends):
            if was != wanted.get(name, was):
                raise UserError(
                    f"{corpus.directory}: its features were computed with frontend.{name} = {was}, but those of {exp} have"
                    f" {wanted[name]}; run `asrprune fbank {corpus.directory} --config {exp / 'config.yaml'}`"
                )


def fingerprint(corpus: Corpus) -> Fingerprint:
    """Return the fingerprint of a corpus."""
    return Fingerprint(
        utterances=len(corpus), frames=int(corpus.lengths.sum()), ids=_hash_of_lines(corpus.ids),
        lengths=_hash_of_lines(map(str, corpus.lengths)), texts=_hash_of_lines(corpus.texts),
        features=features_of(corpus),
    )  # fmt: skip


def features_of(corpus: Corpus) -> str:
    """Return a hash of the checksums of the features."""
    return _hash_of_lines(map(str, corpus.known_by))


def utterances_of(corpus: Corpus) -> str:
    """Return a hash of ids, lengths and features of a corpus, on which the outputs of a model depend."""
    return _hash_of_lines((_hash_of_lines(corpus.ids), _hash_of_lines(map(str, corpus.lengths)), features_of(corpus)))


def _hash_of_lines(lines: Iterable[str]) -> str:
    """Hash lines, joined by line feeds, without holding all of them in memory."""
    digest = hashlib.sha256()
    for number, line in enumerate(lines):
        digest.update(f"\n{line}".encode() if number else line.encode())
    return digest.hexdigest()[:16]


def _check_same(path: Path, new: Config) -> None:
    """Compare the numbers that affect learning. The others may change between two starts, and ``train.epochs`` may grow."""
    old = read_experiment_config(path.parent)
    before, after = old.train.epochs, new.train.epochs
    differences = changes(old, new)
    if differences:
        listed = "\n".join(f"  {name}: was {was}, is {now}" for name, was, now in differences)
        raise UserError(
            f"{path.parent}: was trained with other numbers; give a new experiment (--exp; run.sh: --exp_tag), or remove this"
            f" one:\n{listed}"
        )
    if before < after and isinstance(new.train.schedule, CosineConfig):
        logger.warning("train.epochs was %d, is %d: the learning rate now follows the cosine of %d epochs, so it rises again,"
                       " and the model is not that of %d epochs without a stop", before, after, after, after)  # fmt: skip


def _check_same_file(old: Path, new: Path, copied: Mapping[str, str]) -> None:
    """Raise a ``UserError`` if ``old`` was not copied from ``new``. A damaged copy is no error; the caller replaces it."""
    if old.exists() and sha256_of(new) not in (sha256_of(old), copied.get(old.name)):
        raise UserError(
            f"{new} is not the file that {old} was copied from; give a new experiment (--exp; run.sh: --exp_tag), or remove"
            f" {old.parent}"
        )
