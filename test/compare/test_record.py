"""A record's parts that are read from an experiment's files: who spoke, and which layers training ran."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrprune.compare import record
from asrprune.compare.grid import Cell
from asrprune.compare.record import make_record, numbers
from asrprune.config.schema import Config
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import write_json
from asrprune.scoring.sclite import write_score

TEXTS = {"al-1": "one two (three)", "al-2": "four", "b-o-1": "five", "b-p-2": "six seven", "cy-al-1": "eight"}
SPEAKERS = {"al-1": "al", "al-2": "al", "b-o-1": "b-o", "b-p-2": "b-p", "cy-al-1": "cy"}


@pytest.fixture
def exp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scored experiment of one sub-model, of which only the files that a record adds to its results are real."""
    hypotheses = {**TEXTS, "b-o-1": "six", "cy-al-1": "eight nine nine"}
    (tmp_path / "decode/test/greedy_d2").mkdir(parents=True)
    write_score(tmp_path / "decode/test/greedy_d2", *(tuple(of.items()) for of in (TEXTS, hypotheses, SPEAKERS)))
    write_json(tmp_path / "data.json", {"format": 1})
    keys = ("data", "search", "environment", "config")
    results: dict[str, Any] = {key: {} for key in keys}
    results |= {"rows": [{"set": "test", "strategy": "greedy", "depth": 2}], "training": {"steps": 3}, "model": {}}
    monkeypatch.setattr(record, "collect", lambda exp: results)
    monkeypatch.setattr(record, "_similarity", lambda exp, results: None)
    log(tmp_path, *[{"layers_run": 2}] * 3)
    return tmp_path


def log(exp: Path, *steps: dict[str, int]) -> None:
    lines = [{"kind": "step", "step": place, **step} for place, step in enumerate(steps, start=1)]
    (exp / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"kind": "epoch"}]))


@pytest.fixture
def cell(tiny_config: Config) -> Cell:
    return Cell("both", 2, 1, False, (), tiny_config)


def test_it_says_who_spoke_each_utterance(exp: Path, cell: Cell) -> None:
    made = make_record(exp, cell)
    assert numbers(made["speakers"]["test"]).tolist() == [0, 0, 1, 2, 3]
    assert numbers(made["words"]["test"]).tolist() == [3, 1, 1, 2, 1]
    assert numbers(made["rows"][0]["errors"]).tolist() == [0, 0, 1, 0, 2]


def test_texts_of_other_utterances_are_named(exp: Path, cell: Cell) -> None:
    trn = exp / "decode/test/greedy_d2/ref.trn"
    trn.write_text(trn.read_text().replace("(al-al-2)", "(al-al-3)"))
    with pytest.raises(UserError, match=r"ref\.trn: its utterances are not those of utterances\.tsv; run stage 9"):
        make_record(exp, cell)
    trn.unlink()
    with pytest.raises(UserError, match=r"ref\.trn: no such file; stage 9 \(`asrprune score`\) makes it"):
        make_record(exp, cell)


def test_layers_run_are_those_that_the_trainer_logged(exp: Path, cell: Cell) -> None:
    log(exp, {"layers_run": 7}, {"layers_run": 5}, {"layers_run": 1})
    assert make_record(exp, cell)["training"] == {"steps": 3, "layer_passes": 13}


def test_a_log_that_does_not_say_what_was_run_is_refused(exp: Path, cell: Cell) -> None:
    log(exp, {"layers_run": 70}, {}, {"layers_run": 10})
    with pytest.raises(UserError, match=r"train\.jsonl: written by an earlier version, without layers_run; remove "):
        make_record(exp, cell)


def test_a_set_has_its_speakers_in_the_order_of_their_names(exp: Path) -> None:
    (exp / "ref.trn").write_text("a (z-1)\nb (y-2)\nc (z-3)\n")
    assert np.array_equal(record._speakers(exp / "ref.trn", ["1", "2", "3"]), [1, 0, 1])
