"""Decoding a set with several sub-models: depths and strategies of one model."""

import logging
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from asrprune.config.strategies import spellings
from asrprune.data.dataset import Corpus
from asrprune.data.tables import sha256_of_rows, write_ascending
from asrprune.data.windows import Windows
from asrprune.decode.decoder import Decoder, with_precision
from asrprune.decode.greedy import GREEDY
from asrprune.decode.shards import decode_in_shards
from asrprune.decode.windows import Timing, is_long
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Keep, Plan, StrategyLabel, file_of
from asrprune.experiment.provenance import check_frontend, features_of
from asrprune.experiment.store import Experiment
from asrprune.model.ctc_model import num_params
from asrprune.runtime.errors import UserError, printable
from asrprune.runtime.executor import HERE, Executor
from asrprune.runtime.files import held, read_json, sha256_of
from asrprune.runtime.planted import inside
from asrprune.runtime.records import Record

logger = logging.getLogger(__name__)
_DATA = ("text", "utt2num_frames", "utt2crc")  # the files that tell one set from another


class Decoded(Record):
    """decode.json: the data, model, layers and decoder of a text."""

    made_by: ClassVar[str] = "stage 8 (`asrprune decode`)"
    format: Literal[1]
    set: str
    decoder: str
    model_sha256: str
    utterances: int
    hours: float
    text_sha256: str  # hash of the transcripts
    directory: str | None = None  # of the data; earlier versions did not record it
    features: str | None = None  # hash of the checksums of the features; an earlier version recorded none without utt2crc
    strategy: StrategyLabel
    depth: int
    keep: Keep
    params_m: float
    output_sha256: str | None = None  # of the file of the texts
    windows: Windows | None = None  # if some utterances are longer than the model takes in one piece


@dataclass(frozen=True)
class SubModel:
    """A sub-model to decode with: a depth of a plan."""

    strategy: str
    keep: Keep

    def output(self, folder: Path) -> Path:
        """Return the directory of its results, such as ``folder/iterative_d6``."""
        return file_of(folder, self.strategy, f"_d{len(self.keep)}")


def sub_models(plans: Sequence[Plan], depths: Sequence[int]) -> list[SubModel]:
    """Return the sub-models of all ``depths`` of all plans; raise a ``UserError`` if a plan lacks a depth."""
    return [SubModel(plan.strategy, plan.keep(depth)) for plan in plans for depth in depths]


def decode_set(
    experiment: Experiment,
    directory: Path,
    wanted: Sequence[SubModel],
    executor: Executor = HERE,
    decoder: Decoder = GREEDY,
) -> list[Path]:
    """Decode a data directory with all sub-models in one pass; existing results are kept.

    Write ``decode/<set>/<strategy>_d<depth>/text`` and ``decode.json`` into the experiment, and return the directories.

    Raises:
        UserError: another process is decoding the set.
    """
    experiment, corpus = experiment.decided(executor.num_gpus), Corpus(directory, None)
    check_frontend(experiment.path, experiment.config, corpus)
    models = {model.output(ExperimentPaths(experiment.path).decoded(directory.name)): model for model in wanted}
    records = dict(zip(models, _records(experiment, corpus, decoder, models.values()), strict=True))
    missing = [output for output, record in records.items() if not _is_decoded(output, record)]
    keeps = list(dict.fromkeys(models[output].keep for output in missing))
    shards = inside(ExperimentPaths(experiment.path).decoded(directory.name), "shards")
    if not keeps:
        if shards.exists():  # a run was killed while it removed them
            with suppress(UserError), held(shards.parent):  # if another process uses them, they stay
                shutil.rmtree(shards)
        return list(models)
    with held(shards.parent):  # not ``shards``: on NFS the open lock file would remain there and block its removal
        check_same_set(shards.parent, directory)
        texts = decode_in_shards(experiment, corpus, keeps, shards, executor, decoder)
        for output in missing:
            for stale in ("decode.json", "score.json"):
                (output / stale).unlink(missing_ok=True)
            write_ascending(output / "text", texts(models[output].keep))
            made = {"output_sha256": sha256_of(output / "text")}
            records[output].model_copy(update=made).write(output / "decode.json")
        shutil.rmtree(shards)
    return list(models)


def check_same_set(folder: Path, directory: Path) -> None:
    """Check that the results in ``folder`` are not those of a different set with the same name.

    A set that was moved, copied or made anew counts as the same.

    Raises:
        UserError: results were made from another directory, which is still there and has other data.
    """
    for path in sorted(folder.glob("*/decode.json")):
        made_from = _directory_of(path)
        if made_from is not None and not made_from.samefile(directory) and _data_of(made_from) != _data_of(directory):
            raise UserError(
                f"{folder}: has results of {made_from}, and {directory} has the same name, but other data; rename one of the"
                f" two sets, or remove {folder}"
            )


def features_now(directory: Path) -> str | None:
    """Return the hash of the features of a set; None without checksums."""
    return features_of(Corpus(directory, None)) if (directory / "utt2crc").is_file() else None


def check_decoded(folder: Path, model_sha256: str, features: str | None) -> Decoded:
    """Check that the text in ``folder`` is what this model made of the set; return its record.

    Warn if the features of the set, see ``features_now``, have changed since: perhaps in their last bits, on another machine.

    Raises:
        UserError: the text was changed after the decoding, or is of another model.
    """
    record, text = Decoded.read(folder / "decode.json"), folder / "text"
    again = f"run {Decoded.made_by} again, or remove {folder} if you do not need it"
    if record.output_sha256 not in (None, sha256_of(text)):
        raise UserError(f"{text}: does not have the SHA-256 of decode.json, so it was changed after the decoding; {again}")
    if record.model_sha256 != model_sha256:
        raise UserError(f"{text}: was decoded with another model than that of model.json; {again}")
    if None not in (features, record.features) and features != record.features:
        logger.warning("%s: was decoded from other features than the set has now; if its recordings changed, %s", text, again)
    return record


def _directory_of(record: Path) -> Path | None:
    """Return the data directory that a decode.json names, if it is still there."""
    try:
        named = read_json(record).get("directory")
    except (UserError, AttributeError):  # damaged; it is decoded again
        return None
    return Path(named) if isinstance(named, str) and Path(named).is_dir() else None


def _data_of(directory: Path) -> list[str | None]:
    return [sha256_of(file) if (file := directory / name).is_file() else None for name in _DATA]


def _is_decoded(output: Path, record: Decoded) -> bool:
    written = output / "decode.json"
    if not ((output / "text").exists() and written.exists()):
        return False
    try:
        known = read_json(written)  # a record of another version may have other fields; then the set is decoded again
    except UserError:  # damaged
        return False
    if not isinstance(known, dict) or known.pop("output_sha256", made := sha256_of(output / "text")) != made:
        return False
    known["directory"] = record.directory  # data may be moved
    return any(known == {**record.plain(), "strategy": name} for name in spellings(record.strategy))


def _records(experiment: Experiment, corpus: Corpus, decoder: Decoder, models: Iterable[SubModel]) -> list[Decoded]:
    text_sha256 = sha256_of_rows(zip(corpus.ids, corpus.texts, strict=True))
    config, features = experiment.config, features_of(corpus)
    timing = Timing.of(experiment)
    windows = timing.windows if is_long(int(corpus.lengths.max()), timing) else None
    return [
        Decoded(
            format=1,
            set=corpus.directory.name,
            directory=printable(str(corpus.directory.resolve())),
            decoder=with_precision(decoder.identity, config.decode.precision),
            model_sha256=experiment.record.model_sha256,
            utterances=len(corpus),
            hours=round(float(corpus.lengths.sum()) * config.frontend.shift_ms / 3.6e6, 4),
            text_sha256=text_sha256,
            features=features,
            windows=windows,
            strategy=model.strategy,
            depth=len(model.keep),
            keep=model.keep,
            params_m=num_params(experiment.model, model.keep) / 1e6,
        )
        for model in models
    ]
