"""Records for tests: with other values, and made up."""

from typing import Any, TypeVar

import numpy as np

from asrprune.compare.grid import Grid
from asrprune.compare.record import CellRecord, CellRow
from asrprune.config.schema import Config
from asrprune.experiment.plan import Plan, Step
from asrprune.experiment.provenance import Fingerprint, TrainedOn
from asrprune.experiment.store import ModelRecord
from asrprune.report.results import Row, SetData
from asrprune.runtime.records import Record

AnyRecord = TypeVar("AnyRecord", bound=Record)


def changed(record: AnyRecord, **values: Any) -> AnyRecord:
    """A record with other values."""
    return record.model_copy(update=values)


def plan_of(strategy: str, num_layers: int, steps: tuple[Step, ...], model_sha256: str, **values: Any) -> Plan:
    """The plan of a model; nothing was scored, unless the other values say so."""
    values = {"metric": None, "dev_set": None, **values}
    return Plan(format=1, strategy=strategy, num_layers=num_layers, steps=steps, model_sha256=model_sha256, **values)


def row_of(strategy: str, depth: int, **values: Any) -> Row:
    """A row of the set ``test``; its rates are made up."""
    made_up: dict[str, Any] = {
        "set": "test", "params_m": depth / 10, "wer": 9.0, "wer_ci95": (8.0, 10.0), "cer": 4.0, "sub": 1, "del_": 2, "ins": 3,
        "ref_words": 9, "rtf": None, "decoder": "greedy, float32", "speedup": None, "model_sha256": "cd", "utterances": 3,
    }  # fmt: skip
    return Row(**{**made_up, **values}, strategy=strategy, depth=depth, keep=tuple(range(1, depth + 1)))


def grid_of(*depths: int, **values: Any) -> Grid:
    """A grid of the paper's methods, with models trained for these depths."""
    methods: dict[str, Any] = {"plain": {}, "interctc": {}, "both": {}}
    alone = {"methods": ["plain", "interctc"], "depths": depths}
    roles = {"prunable": "both", "plain": "plain", "baseline": "interctc"}
    return Grid.model_validate({"config": "x.yaml", "methods": methods, "alone": alone, **roles, **values})


def cell_row(strategy: str, depth: int, errors: str, **values: Any) -> CellRow:
    """A row of a cell's record."""
    return CellRow(**vars(row_of(strategy, depth, **values)), errors=errors)


def cell_record(method: str, depth: int, seed: int, alone: bool, **values: Any) -> CellRecord:
    """The record of a cell, of a training of 1,000 updates, without rows."""
    corpus = Fingerprint(utterances=900, frames=9, ids="a", lengths="b", texts="c")
    model = ModelRecord(format=1, model_sha256="cd", num_layers=depth, params_m=0.4, asrprune="0.1.0", seed=seed, members=())
    training = {"epochs": 1, "steps": 1000, "best_dev_wer": 9.0, "best_epoch": 1, "seconds": 60.0, "layer_passes": 1000 * depth}
    made_up: dict[str, Any] = {
        "config": Config(), "trained_on": TrainedOn(format=1, train=corpus, dev=corpus), "model": model, "training": training,
        "data": {"test": SetData(utterances=3, hours=0.2, text_sha256="ab")}, "search": {}, "similarity": None,
        "environment": {"python": "3.11"}, "words": {row.set: "2 2 2" for row in values.get("rows", ())}, "rows": (),
    }  # fmt: skip
    return CellRecord(format=1, method=method, depth=depth, seed=seed, alone=alone, **{**made_up, **values})


def measures(model_sha256: str, count: int, **known: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a file ``svcca/SET.npz`` about ``count`` - 1 layers; those that are not given are made up."""
    made_up = {"similarity": np.eye(count), "cka": np.eye(count), "layers": np.arange(count), "frames": np.array(99)}
    return {**made_up, "model_sha256": np.array(model_sha256), **known}
