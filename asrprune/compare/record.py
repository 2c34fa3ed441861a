"""The record of one cell: a small JSON file with all that a comparison needs, so that the experiment can be deleted."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from asrprune.analysis.matrices import read_matrices
from asrprune.compare.grid import Cell
from asrprune.config.load import RecordedConfig
from asrprune.data.tables import is_count
from asrprune.decode.decoder import without_precision
from asrprune.decode.sweep import Decoded
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Search, StrategyLabel, file_of
from asrprune.experiment.provenance import TrainedOn
from asrprune.experiment.store import ModelRecord
from asrprune.report.results import Row, SetData, Training, collect, read_log, similarities
from asrprune.runtime.errors import UserError
from asrprune.runtime.hardware import Environment
from asrprune.runtime.planted import open_plain
from asrprune.runtime.records import Record
from asrprune.scoring.wer import Score

logger = logging.getLogger(__name__)
_AGAIN = f"run {Score.made_by} again"


def _counts(text: str) -> str:
    if not all(map(is_count, text.split(" "))):
        raise ValueError("must be whole numbers, with a blank between two of them")
    return text


Counts = Annotated[str, AfterValidator(_counts)]  # a whole number of each utterance, in the order of the ids


class CellRow(Row):
    """A sub-model on a set."""

    errors: Counts


class CellTraining(Training):
    """A training run."""

    layer_passes: int  # layers run, summed over updates; two views of an utterance count twice


class CellRecord(Record):
    """A finished experiment of a grid."""

    made_by: ClassVar[str] = "`asrprune compare`"
    format: Literal[1]
    method: str
    depth: int
    seed: int
    alone: bool
    config: RecordedConfig
    trained_on: TrainedOn
    data: dict[str, SetData]
    model: ModelRecord
    training: CellTraining
    search: dict[StrategyLabel, Search]
    similarity: list[list[float]] | None  # SVCCA of x_0..x_L, on the first measured set; None: not measured
    influence: list[float] | None = None  # of layers 1..L
    environment: Environment
    words: dict[str, Counts]  # set -> reference words
    speakers: dict[str, Counts] = Field({})  # set -> speakers 0, 1, ...; not in files of earlier versions
    rows: tuple[CellRow, ...]

    @model_validator(mode="after")
    def _same_utterances(self) -> "CellRecord":
        if self.words.keys() != {row.set for row in self.rows}:
            raise ValueError("words: must have the sets of the rows")
        said = [(f"words.{name}", name, text) for name, text in self.words.items()]
        said += [(f"speakers.{name}", name, text) for name, text in self.speakers.items()]
        said += [(f"rows.{place}.errors", row.set, row.errors) for place, row in enumerate(self.rows)]
        for place, name, text in said:
            count, expected = len(text.split()), self.data[name].utterances if name in self.data else 0
            if count != expected:
                raise ValueError(f"{place}: has {count} numbers, but {name} has {expected} utterances")
        for name, text in self.speakers.items():
            if numbers(text).max() >= len(text.split()):
                raise ValueError(f"speakers.{name}: must be below the number of utterances")
        return self


def record_path(output: Path, cell: Cell) -> Path:
    """Return the path of the record of a cell."""
    return output / "cells" / f"{cell.name}.json"


def read_records(output: Path, wanted: Sequence[Cell]) -> dict[str, CellRecord]:
    """Return the existing records by the names of their cells. A record with other numbers is left out, with a warning.

    Raises:
        UserError: a file is not valid.
    """
    there = {cell: _read(path, cell) for cell in wanted if (path := record_path(output, cell)).exists()}
    kept = {cell.name: record for cell, record in there.items() if _fits(cell, record)}
    if other := [cell.name for cell in there if cell.name not in kept]:
        logger.warning("left out, because they were recorded with other numbers than the grid has now: %s", ", ".join(other))
    return kept


def _fits(cell: Cell, record: CellRecord) -> bool:
    """Return whether a record has the numbers that its cell has now, and its errors the rule of letter case."""
    same_case = all(data.ignore_case == cell.config.scoring.ignore_case for data in record.data.values())
    return same_case and cell.learnt_in(record.config) == cell.learnt


def _read(path: Path, cell: Cell) -> CellRecord:
    """Read the record of a cell; raise a ``UserError`` if it is not valid, or is that of another cell."""
    record = CellRecord.read(path)
    if (record.method, record.depth, record.seed, record.alone) != (cell.method, cell.depth, cell.seed, cell.alone):
        raise UserError(f"{path}: is the record of another cell; remove it, {CellRecord.made_by} makes it again")
    return record


def make_record(exp: Path, cell: Cell) -> CellRecord:
    """Make the record of a finished experiment.

    Raises:
        UserError: a part of the experiment is missing.
    """
    results = collect(exp)
    if results.training is None:
        raise UserError(f"{exp}/train.jsonl: is missing or not whole; remove {exp}, {CellRecord.made_by} makes it")
    rows, words, speakers = [], dict[str, str](), dict[str, str]()
    decode = results.config.decode
    for row in results.rows:
        identity, precision = without_precision(row.decoder)
        if identity.split()[0] != decode.decoder.type or decode.precision not in ("auto", precision):
            raise UserError(
                f"{exp}: {row.strategy}_d{row.depth} of {row.set} was decoded with {row.decoder}, not as its config.yaml says;"
                f" run {Decoded.made_by} again"
            )
        scored = file_of(ExperimentPaths(exp).decoded(row.set), row.strategy, f"_d{row.depth}")
        ids, counts = read_utterances(scored / "utterances.tsv", row)
        words[row.set] = _joined(counts[:, 0])
        if row.set not in speakers:
            speakers[row.set] = _joined(_speakers(scored / "ref.trn", ids))
        rows.append(CellRow(**vars(row), errors=_joined(counts[:, 2:].sum(axis=1))))
    similarity, influence = _measured(exp, results.model.model_sha256)
    return CellRecord(
        format=1, method=cell.method, depth=cell.depth, seed=cell.seed, alone=cell.alone, config=results.config,
        trained_on=TrainedOn.read(ExperimentPaths(exp).data), data=results.data, model=results.model,
        training=CellTraining(**vars(results.training), layer_passes=_layers_run(exp, results.config.train.views)),
        search=results.search, similarity=similarity, influence=influence, environment=results.environment, words=words,
        speakers=speakers, rows=tuple(rows),
    )  # fmt: skip


def _layers_run(exp: Path, views: int) -> int:
    """Return the number of layers run, summed over updates and views, from the log of training."""
    steps = read_log(ExperimentPaths(exp).log)[0]
    if any("layers_run" not in step for step in steps):
        raise UserError(
            f"{exp}/train.jsonl: written by an earlier version, without layers_run; remove {exp}, {CellRecord.made_by} makes it"
        )
    return views * sum(int(step["layers_run"]) for step in steps)


def numbers(text: str) -> np.ndarray:
    """Read the (U,) integers that ``_joined`` wrote."""
    return np.array(text.split(), dtype=np.int64)


def _joined(values: np.ndarray) -> str:
    """Write numbers as one string, because a JSON list would take a line for each."""
    return " ".join(map(str, values.tolist()))


def read_utterances(path: Path, row: Row) -> tuple[list[str], np.ndarray]:
    """Read utterances.tsv: ids, and counts (U, 5) of reference, correct, substituted, deleted and inserted words.

    Raises:
        UserError: the file is damaged, or its sums are not those of ``row``, which are in score.json.
    """
    ids, counts = [], []
    for number, line in enumerate(_lines(path)[1:], start=2):
        key, *columns = line.split("\t")
        if len(columns) != 5 or not all(map(is_count, columns)):
            raise UserError(f"{path}:{number}: is not an id and five whole numbers; {_AGAIN}")
        ids.append(key)
        counts.append([*map(int, columns)])
    table = np.array(counts, dtype=np.int64).reshape(-1, 5)
    words, _, *errors = table.sum(axis=0).tolist()
    if (len(table), words, *errors) != (row.utterances, row.ref_words, row.sub, row.del_, row.ins):
        raise UserError(f"{path}: its sums are not those of score.json; {_AGAIN}")
    return ids, table


def _speakers(path: Path, ids: Sequence[str]) -> np.ndarray:
    """Return the speaker of each utterance (U,), from 0, in the order of names; a line of ref.trn ends with ``(SPEAKER-ID)``.

    Raises:
        UserError: the file has other utterances.
    """
    names = [line.rpartition(" ")[2].removeprefix("(").removesuffix(")") for line in _lines(path)]
    if len(names) != len(ids) or not all(name.endswith(f"-{key}") for name, key in zip(names, ids, strict=True)):
        raise UserError(f"{path}: its utterances are not those of utterances.tsv; {_AGAIN}")
    return np.unique([name.removesuffix(f"-{key}") for name, key in zip(names, ids, strict=True)], return_inverse=True)[1]


def _lines(path: Path) -> list[str]:
    try:
        with open_plain(path) as handle:
            return handle.read().decode("utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {Score.made_by} makes it") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8; {_AGAIN}") from None


def _measured(exp: Path, model_sha256: str) -> tuple[list[list[float]] | None, list[float] | None]:
    """Return the SVCCA matrix (L + 1, L + 1) and the influence (L,) of the first measured set; None: not measured."""
    paths, _ = similarities(exp, model_sha256)
    stored = read_matrices(paths[0]) if paths else {}
    similarity, influence = (
        np.round(stored[name], 4).tolist() if name in stored else None for name in ("similarity", "influence")
    )
    return similarity, influence
