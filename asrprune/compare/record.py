"""The record of one cell: a small JSON file with all that a comparison needs, so that the experiment can be deleted."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from asrprune.analysis.matrices import read_matrices
from asrprune.compare.grid import Cell
from asrprune.config.load import RecordedConfig
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Search, StrategyLabel, file_of
from asrprune.experiment.provenance import TrainedOn
from asrprune.experiment.store import ModelRecord
from asrprune.report.results import Row, SetData, Training, collect, read_log, similarities
from asrprune.runtime.errors import UserError
from asrprune.runtime.hardware import Environment
from asrprune.runtime.records import Record

logger = logging.getLogger(__name__)


class CellRow(Row):
    """A sub-model on a set."""

    errors: str  # of each utterance, in the order of the ids, separated by blanks


class CellTraining(Training):
    """A training run."""

    layer_passes: int  # layers run, summed over updates


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
    words: dict[str, str]  # set -> reference words of each utterance, separated by blanks
    speakers: dict[str, str] = Field({})  # set -> speaker 0, 1, ... of each utterance; not in files of earlier versions
    rows: tuple[CellRow, ...]


def record_path(output: Path, cell: Cell) -> Path:
    """Return the path of the record of a cell."""
    return output / "cells" / f"{cell.name}.json"


def read_records(output: Path, wanted: Sequence[Cell]) -> dict[str, CellRecord]:
    """Return the existing records by the names of their cells. A record with other numbers is left out, with a warning.

    Raises:
        UserError: a file is not valid.
    """
    there = {cell: CellRecord.read(path) for cell in wanted if (path := record_path(output, cell)).exists()}
    kept = {cell.name: record for cell, record in there.items() if cell.learnt_in(record.config) == cell.learnt}
    if other := [cell.name for cell in there if cell.name not in kept]:
        logger.warning("left out, because they were recorded with other numbers than the grid has now: %s", ", ".join(other))
    return kept


def make_record(exp: Path, cell: Cell) -> CellRecord:
    """Make the record of a finished experiment.

    Raises:
        UserError: a part of the experiment is missing.
    """
    results = collect(exp)
    if results.training is None:
        raise UserError(f"{exp}/train.jsonl: no finished epoch")
    rows, words, speakers = [], dict[str, str](), dict[str, str]()
    for row in results.rows:
        scored = file_of(ExperimentPaths(exp).decoded(row.set), row.strategy, f"_d{row.depth}")
        ids, counts = _utterances(scored / "utterances.tsv")
        words[row.set] = _joined(counts[:, 0])
        if row.set not in speakers:
            speakers[row.set] = _joined(_speakers(scored / "ref.trn", ids))
        rows.append(CellRow(**vars(row), errors=_joined(counts[:, 2:].sum(axis=1))))
    similarity, influence = _measured(exp, results.model.model_sha256)
    return CellRecord(
        format=1, method=cell.method, depth=cell.depth, seed=cell.seed, alone=cell.alone, config=results.config,
        trained_on=TrainedOn.read(ExperimentPaths(exp).data), data=results.data, model=results.model,
        training=CellTraining(**vars(results.training), layer_passes=_layers_run(exp)), search=results.search,
        similarity=similarity, influence=influence, environment=results.environment, words=words, speakers=speakers,
        rows=tuple(rows),
    )  # fmt: skip


def _layers_run(exp: Path) -> int:
    """Return the number of layers run, summed over updates, from the log of training."""
    steps = read_log(ExperimentPaths(exp).log)[0]
    if any("layers_run" not in step for step in steps):
        raise UserError(
            f"{exp}/train.jsonl: written by an earlier version, without layers_run; remove {exp}, {CellRecord.made_by} makes it"
        )
    return sum(int(step["layers_run"]) for step in steps)


def numbers(text: str) -> np.ndarray:
    """Read the (U,) integers that ``_joined`` wrote."""
    return np.array(text.split(), dtype=np.int64)


def _joined(values: np.ndarray) -> str:
    """Write numbers as one string, because a JSON list would take a line for each."""
    return " ".join(map(str, values.tolist()))


def _utterances(path: Path) -> tuple[list[str], np.ndarray]:
    """Read utterances.tsv: ids, and counts (U, 5) of reference, correct, substituted, deleted and inserted words."""
    ids, *columns = zip(*(line.split("\t") for line in _lines(path)[1:]), strict=True)
    return list(ids), np.array(columns, dtype=np.int64).T


def _speakers(path: Path, ids: Sequence[str]) -> np.ndarray:
    """Return the speaker of each utterance (U,), from 0, in the order of names; a line of ref.trn ends with ``(SPEAKER-ID)``.

    Raises:
        UserError: the file has other utterances.
    """
    names = [line.rpartition("(")[2].removesuffix(")") for line in _lines(path)]
    if len(names) != len(ids) or not all(name.endswith(f"-{key}") for name, key in zip(names, ids, strict=True)):
        raise UserError(f"{path}: its utterances are not those of utterances.tsv; run stage 9 (`asrprune score`) again")
    return np.unique([name.removesuffix(f"-{key}") for name, key in zip(names, ids, strict=True)], return_inverse=True)[1]


def _lines(path: Path) -> list[str]:
    if not path.exists():
        raise UserError(f"{path}: no such file; stage 9 (`asrprune score`) makes it")
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _measured(exp: Path, model_sha256: str) -> tuple[list[list[float]] | None, list[float] | None]:
    """Return the SVCCA matrix (L + 1, L + 1) and the influence (L,) of the first measured set; None: not measured."""
    paths, _ = similarities(exp, model_sha256)
    stored = read_matrices(paths[0]) if paths else {}
    similarity, influence = (
        np.round(stored[name], 4).tolist() if name in stored else None for name in ("similarity", "influence")
    )
    return similarity, influence
