"""A record's parts that are read from an experiment's files: who spoke, and which layers training ran."""

import json
from pathlib import Path

import numpy as np
import pytest
from records import cell_record, changed, measures, plan_of, row_of

from asrprune.compare import record
from asrprune.compare.grid import Cell
from asrprune.compare.record import make_record, numbers, read_records, record_path
from asrprune.config.schema import Config
from asrprune.report.results import Results, Training
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import write_json
from asrprune.scoring.sclite import write_score

TEXTS = {"al-1": "one two (three)", "al-2": "four", "b-o-1": "five", "b-p-2": "six seven", "cy-al-1": "eight"}
SPEAKERS = {"al-1": "al", "al-2": "al", "b-o-1": "b-o", "b-p-2": "b-p", "cy-al-1": "cy"}


@pytest.fixture
def exp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scored experiment of one sub-model, of which only the files that a record adds to its results are real."""
    hypotheses = {**TEXTS, "b-o-1": "six", "cy-al-1": "eight nine nine"}
    (tmp_path / "decode/test/iterative_d2").mkdir(parents=True)
    write_score(tmp_path / "decode/test/iterative_d2", *(tuple(of.items()) for of in (TEXTS, hypotheses, SPEAKERS)))
    made_up = cell_record("both", 2, 1, False)
    made_up.trained_on.write(tmp_path / "data.json")
    training = {key: value for key, value in made_up.training if key != "layer_passes"}
    results = Results.model_construct(
        rows=(row_of("iterative", 2),), training=Training(**training), model=made_up.model, data=made_up.data, search={},
        environment={}, config=made_up.config,
    )  # fmt: skip
    monkeypatch.setattr(record, "collect", lambda exp: results)
    log(tmp_path, *[{"layers_run": 2}] * 3)
    return tmp_path


def log(exp: Path, *steps: dict[str, int]) -> None:
    lines = [{"kind": "step", "step": place, "epoch": 1, "lr": 0.1, **step} for place, step in enumerate(steps, start=1)]
    (exp / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def cell(tiny_config: Config) -> Cell:
    return Cell("both", 2, 1, False, (), tiny_config)


def test_it_says_who_spoke_each_utterance(exp: Path, cell: Cell) -> None:
    made = make_record(exp, cell)
    assert numbers(made.speakers["test"]).tolist() == [0, 0, 1, 2, 3]
    assert numbers(made.words["test"]).tolist() == [3, 1, 1, 2, 1]
    assert numbers(made.rows[0].errors).tolist() == [0, 0, 1, 0, 2]


def test_texts_of_other_utterances_are_named(exp: Path, cell: Cell) -> None:
    trn = exp / "decode/test/iterative_d2/ref.trn"
    trn.write_text(trn.read_text().replace("(al-al-2)", "(al-al-3)"))
    with pytest.raises(UserError, match=r"ref\.trn: its utterances are not those of utterances\.tsv; run stage 9"):
        make_record(exp, cell)
    trn.unlink()
    with pytest.raises(UserError, match=r"ref\.trn: no such file; stage 9 \(`asrprune score`\) makes it"):
        make_record(exp, cell)


def test_layers_run_are_those_that_the_trainer_logged(exp: Path, cell: Cell) -> None:
    log(exp, {"layers_run": 7}, {"layers_run": 5}, {"layers_run": 1})
    assert make_record(exp, cell).training.layer_passes == 13


def test_a_log_that_does_not_say_what_was_run_is_refused(exp: Path, cell: Cell) -> None:
    log(exp, {"layers_run": 70}, {}, {"layers_run": 10})
    with pytest.raises(UserError, match=r"train\.jsonl: written by an earlier version, without layers_run; remove "):
        make_record(exp, cell)


def test_a_set_has_its_speakers_in_the_order_of_their_names(exp: Path) -> None:
    (exp / "ref.trn").write_text("a (z-1)\nb (y-2)\nc (z-3)\n")
    assert np.array_equal(record._speakers(exp / "ref.trn", ["1", "2", "3"]), [1, 0, 1])


def test_a_record_with_older_names_of_strategies_is_read_with_todays(exp: Path, cell: Cell) -> None:
    directory = exp / "decode/test/iterative_d2"
    directory.rename(directory.with_name("greedy_d2"))
    search = {name: plan_of(name, 2, (), "cd") for name in ("iterative", "lowest", "every")}
    made = changed(make_record(exp, cell), search=search, config=cell.config)
    old = made.plain()
    for name in ("iterative", "lowest"):
        old["search"][{"iterative": "greedy", "lowest": "top"}[name]] = old["search"].pop(name)
    old["rows"][0]["strategy"] = "greedy"
    old["config"]["prune"]["strategies"] = ["greedy", "svcca", "influence", "top", "every"]
    write_json(record_path(exp, cell), old)
    assert read_records(exp, [cell])[cell.name].plain() == made.plain()


def test_what_was_measured_of_the_layers_is_rounded_and_may_be_missing(tmp_path: Path) -> None:
    assert record._measured(tmp_path, "x") == (None, None)
    path = tmp_path / "svcca/dev.npz"
    path.parent.mkdir()
    np.savez(path, **measures("x", 2))
    assert record._measured(tmp_path, "x") == ([[1.0, 0.0], [0.0, 1.0]], None)
    np.savez(path, **measures("x", 2, influence=np.array([0.123456])))
    assert record._measured(tmp_path, "x")[1] == [0.1235]
