"""A record's parts that are read from an experiment's files: who spoke, and which layers training ran."""

import json
from pathlib import Path

import numpy as np
import pytest
from records import cell_record, changed, measures, plan_of, row_of

from asrprune.compare import record
from asrprune.compare.grid import Cell
from asrprune.compare.record import CellRecord, make_record, numbers, read_records, record_path
from asrprune.config.schema import Config
from asrprune.report.results import Results, SetData, Training
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
    score = write_score(tmp_path / "decode/test/iterative_d2", *(tuple(of.items()) for of in (TEXTS, hypotheses, SPEAKERS)))
    sums = {name: getattr(score, name) for name in ("utterances", "ref_words", "sub", "del_", "ins")}
    scored = row_of("iterative", 2, **sums)
    data = {"test": SetData(utterances=5, hours=0.2, text_sha256="ab")}
    made_up = cell_record("both", 2, 1, False, data=data)
    made_up.trained_on.write(tmp_path / "data.json")
    training = {key: value for key, value in made_up.training if key != "layer_passes"}
    results = Results.model_construct(
        rows=(scored,), training=Training(**training), model=made_up.model, data=made_up.data, search={},
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


def test_texts_of_another_decoder_than_that_of_the_config_are_refused(
    exp: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a decode by hand; a comparison would mix the decoders."""
    results = record.collect(exp)
    rows = tuple(changed(row, decoder="beam width=8, float32") for row in results.rows)
    monkeypatch.setattr(record, "collect", lambda exp: results.model_copy(update={"rows": rows}))
    with pytest.raises(UserError, match=r"iterative_d2 of test was decoded with beam width=8, float32, not as its config"):
        make_record(exp, cell)


def test_texts_of_other_utterances_are_named(exp: Path, cell: Cell) -> None:
    trn = exp / "decode/test/iterative_d2/ref.trn"
    trn.write_text(trn.read_text().replace("(al-al-2)", "(al-al-3)"))
    with pytest.raises(UserError, match=r"ref\.trn: its utterances are not those of utterances\.tsv; run stage 9"):
        make_record(exp, cell)
    trn.unlink()
    with pytest.raises(UserError, match=r"ref\.trn: no such file; stage 9 \(`asrprune score`\) makes it"):
        make_record(exp, cell)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"al-2\t1\t", b"al-2\tx\t", "3: is not an id and five whole numbers"),
        (b"al-2\t1\t", b"al-2\t", "3: is not an id and five whole numbers"),
        (b"al-2\t", b"\xff\t", " is not UTF-8"),
        (b"cy-al-1\t1\t1\t0\t0\t2\n", b"", r" its sums are not those of score\.json"),
        (b"b-o-1\t1\t0\t1", b"b-o-1\t1\t1\t0", r" its sums are not those of score\.json"),
    ],
)
def test_damaged_counts_of_utterances_are_counted_again(exp: Path, cell: Cell, old: bytes, new: bytes, message: str) -> None:
    table = exp / "decode/test/iterative_d2/utterances.tsv"
    whole = table.read_bytes()
    assert old in whole
    for content in (whole.replace(old, new), b"", b"id\tref_words\tcor\tsub\tdel\tins\n"):
        table.write_bytes(content)
        expected = message if content.count(b"\n") > 1 else " its sums"
        with pytest.raises(UserError, match=rf"utterances\.tsv:{expected}.*; run stage 9 \(`asrprune score`\) again"):
            make_record(exp, cell)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("words", {"test": "3 1 a 2 1"}, r"words\.test: must be whole numbers, with a blank .*, got '3 1 a 2 1'"),
        ("words", {"test": "3 1  1 2 1"}, r"words\.test: must be whole numbers"),
        ("words", {"test": "3 1 1 2"}, r"words\.test: has 4 numbers, but test has 5 utterances"),
        ("words", {}, "words: must have the sets of the rows"),
        ("speakers", {"test": "0 0 1 2"}, r"speakers\.test: has 4 numbers, but test has 5 utterances"),
        ("speakers", {"test": "0 0 1 2 99999999"}, r"speakers\.test: must be below the number of utterances"),
        ("rows", "0 0 1 0 -2", r"rows\.0\.errors: must be whole numbers"),
        ("rows", "0 0 1 0 2 2", r"rows\.0\.errors: has 6 numbers, but test has 5 utterances"),
    ],
)
def test_a_damaged_record_is_named(exp: Path, cell: Cell, part: str, value: object, message: str) -> None:
    made = make_record(exp, cell).plain()
    damaged = {"rows": [{**made["rows"][0], "errors": value}]} if part == "rows" else {part: value}
    write_json(record_path(exp, cell), {**made, **damaged})
    with pytest.raises(UserError, match=rf"both_2l_s1\.json: {message}.*; remove it, `asrprune compare` makes it again"):
        CellRecord.read(record_path(exp, cell))


def test_layers_run_are_those_that_the_trainer_logged(exp: Path, cell: Cell) -> None:
    log(exp, {"layers_run": 7}, {"layers_run": 5}, {"layers_run": 1})
    assert make_record(exp, cell).training.layer_passes == 13


def test_layers_that_run_for_two_views_count_twice(exp: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    results = record.collect(exp)
    train = results.config.train.model_copy(update={"consistency": 0.2})
    config = results.config.model_copy(update={"train": train})
    monkeypatch.setattr(record, "collect", lambda exp: results.model_copy(update={"config": config}))
    assert make_record(exp, cell).training.layer_passes == 2 * 6


def test_a_log_that_does_not_say_what_was_run_is_refused(exp: Path, cell: Cell) -> None:
    log(exp, {"layers_run": 70}, {}, {"layers_run": 10})
    with pytest.raises(UserError, match=r"train\.jsonl: written by an earlier version, without layers_run; remove "):
        make_record(exp, cell)


def test_a_set_has_its_speakers_in_the_order_of_their_names(exp: Path) -> None:
    (exp / "ref.trn").write_text("a (z-1)\nb (y-2)\nc (z-3)\nd (x(1)-4(2))\n")
    assert np.array_equal(record._speakers(exp / "ref.trn", ["1", "2", "3", "4(2)"]), [2, 1, 2, 0])


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
