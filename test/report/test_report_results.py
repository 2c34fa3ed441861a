"""results.json says what the files of the run say, and names the stage that makes what is missing."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from records import changed, measures

from asrprune.config.load import resolved
from asrprune.data.tables import sha256_of_rows
from asrprune.decode.benchmark import Bench
from asrprune.experiment.plan import Plan
from asrprune.experiment.store import ModelRecord
from asrprune.report.result_table import set_title
from asrprune.report.results import Results, Row, SetData, Training, collect, read_log
from asrprune.runtime.errors import UserError


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(read(path) | values), encoding="utf-8")


def row_of(results: Results, name: str, strategy: str, depth: int) -> Row:
    (row,) = [row for row in results.rows if (row.set, row.strategy, row.depth) == (name, strategy, depth)]
    return row


def test_every_row_is_what_its_files_say(experiment: Path) -> None:
    rows = collect(experiment).rows
    assert len(rows) == 2 * 4 * 6
    for row in rows:
        directory = experiment / f"decode/{row.set}/{row.strategy}_d{row.depth}"
        files = read(directory / "score.json") | read(directory / "decode.json")
        made = {key: value for key, value in row.plain().items() if key not in ("rtf", "speedup")}
        assert made == {key: files[key] for key in made}
        assert row.wer_ci95[0] <= row.wer <= row.wer_ci95[1]


def test_rows_are_in_the_order_of_the_tables(experiment: Path) -> None:
    order = [(row.set, row.strategy, row.depth) for row in collect(experiment).rows]
    assert order[:12] == [("dev", strategy, depth) for strategy in ("iterative", "svcca") for depth in (12, 10, 8, 6, 4, 2)]
    assert order[-1] == ("test", "lowest", 2)


def test_the_rtf_of_another_decoder_is_left_out(experiment: Path) -> None:
    path = experiment / "bench.json"
    for decoder, dtype in (("greedy", "float32"), ("beam width=8, lm=3gram.arpa", "float32"), ("greedy", "bfloat16")):
        changed(Bench.read(path), decoder=decoder, dtype=dtype).write(path)
        same = (decoder, dtype) == ("greedy", "float32")
        results = collect(experiment)
        assert all((row.rtf is not None) == (row.speedup is not None) == same for row in results.rows)
        told = f"Left out: real-time factors with the decoder greedy, float32. bench.json was measured with {decoder}, {dtype};"
        assert any(sentence.startswith(told) for sentence in results.missing) != same


def test_rtf_is_that_of_the_same_layers_else_of_the_same_depth(experiment: Path) -> None:
    results = collect(experiment)
    assert row_of(results, "test", "iterative", 6).rtf == 0.00354
    assert row_of(results, "test", "svcca", 6).rtf == 0.00356  # its own line of bench.json
    assert row_of(results, "test", "every", 6).rtf == 0.00354  # not measured: the first line of this depth
    assert row_of(results, "test", "iterative", 6).speedup == pytest.approx(0.00618 / 0.00354)
    assert row_of(results, "dev", "lowest", 12).speedup == 1.0


def test_the_title_names_the_recipe_and_elsewhere_the_experiment_alone(experiment: Path, tmp_path: Path) -> None:
    for place, title in (("an4/exp/big", "an4/exp/big"), ("runs/big", "big")):
        shutil.copytree(experiment, tmp_path / place)
        assert collect(tmp_path / place).exp == title


def test_the_rest_of_the_file(experiment: Path) -> None:
    results = collect(experiment)
    assert (results.format, results.missing) == (1, ())
    assert results.data["test"] == SetData(utterances=2000, hours=1.3, text_sha256="test" * 8)
    assert results.model == ModelRecord.read(experiment / "model.json")
    assert resolved(results.config) == yaml.safe_load((experiment / "config.yaml").read_text(encoding="utf-8"))
    assert results.bench == Bench.read(experiment / "bench.json")
    assert list(results.search) == ["iterative", "svcca", "every", "lowest"]
    assert results.search["iterative"].layer_forwards == 402
    assert results.search["lowest"].layer_forwards is None
    assert results.search["svcca"] == Plan.read(experiment / "plans/svcca.json")
    assert {"asrprune", "python", "torch", "torchaudio", "cpu", "cores", "platform"} <= results.environment.keys()


def test_training_summary(experiment: Path) -> None:
    epochs = read_log(experiment / "train.jsonl")[1]
    best = min(epochs, key=lambda epoch: epoch["dev_wer"]["12"])
    assert collect(experiment).training == Training(
        epochs=18, steps=1800, best_dev_wer=best["dev_wer"]["12"], best_epoch=best["epoch"], seconds=270.0
    )


def test_a_benchmark_without_rows_is_damaged(experiment: Path) -> None:
    change(experiment / "bench.json", rows=[])
    with pytest.raises(UserError, match=r"bench\.json: rows: tuple should have at least 1 item.*; remove it, stage 10"):
        collect(experiment)


@pytest.mark.parametrize("epochs", [0, 1, 17])
def test_a_log_that_was_cut_at_the_end_of_a_line_is_left_out_and_named(experiment: Path, epochs: int) -> None:
    log = experiment / "train.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join(line for line in lines if json.loads(line)["epoch"] <= epochs), encoding="utf-8")
    results = collect(experiment)
    assert results.training is None
    (sentence,) = results.missing
    assert sentence.startswith(f"Left out: training curves; train.jsonl ends after epoch {epochs} of 18; copy it again")


def test_the_full_model_is_the_highest_layer_number_not_the_last_word(experiment: Path) -> None:
    """As text, "9" comes after "12"."""
    log = experiment / "train.jsonl"
    line = {"kind": "epoch", "epoch": 18, "step": 1, "dev_wer": {"9": 1.0, "12": 2.0}, "seconds": 1.0}
    line |= {"train_loss": 1.0, "dev_loss": {"9": 1.0, "12": 2.0}}
    change(experiment / "model.json", members=[{"epoch": 18, "wer": 2.0}])
    log.write_text(json.dumps(line) + "\n", encoding="utf-8")
    training = collect(experiment).training
    assert training is not None
    assert training.best_dev_wer == 2.0


@pytest.mark.parametrize(("name", "stage"), [("decode", 8), ("score", 9)])
def test_nothing_decoded_or_scored_names_its_stage(experiment: Path, name: str, stage: int) -> None:
    for path in experiment.glob(f"decode/*/*/{name}.json"):
        path.unlink()
    with pytest.raises(UserError, match=rf"stage {stage} \(`asrprune {name}`\)"):
        collect(experiment)


def test_a_number_of_layers_that_is_not_that_of_the_config(experiment: Path) -> None:
    change(experiment / "model.json", num_layers=2**20)
    with pytest.raises(UserError, match=r"model\.json: num_layers is 1048576, but .* is 12; copy the experiment again"):
        collect(experiment)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(experiment: Path, value: float) -> None:
    (first, *_) = sorted(experiment.glob("decode/*/*/score.json"))
    change(first, cer=value)
    with pytest.raises(UserError, match=r"score\.json: cer: input should be a finite number"):
        collect(experiment)


def test_no_experiment_names_stage_4(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stage 4"):
        collect(tmp_path)


def test_an_unscored_decode_is_left_out_and_named(experiment: Path) -> None:
    (experiment / "decode/test/iterative_d6/score.json").unlink()
    results = collect(experiment)
    assert len(results.rows) == 47
    assert "decode/test/iterative_d6" in results.missing[0]
    assert "stage 9" in results.missing[0]


@pytest.mark.parametrize(
    ("name", "stage", "key", "empty"),
    [
        ("train.jsonl", "stage 4", "training", None),
        ("plans", "stage 7", "search", {}),
        ("bench.json", "stage 10", "bench", None),
        ("svcca", "stage 6", None, None),
    ],
)
def test_a_missing_part_names_its_stage(experiment: Path, name: str, stage: str, key: str | None, empty: object) -> None:
    for path in experiment.glob(f"{name}/*") if (experiment / name).is_dir() else [experiment / name]:
        path.unlink()
    results = collect(experiment)
    (sentence,) = results.missing
    assert stage in sentence
    assert key is None or getattr(results, key) == empty
    assert (results.rows[0].rtf is None) == (name == "bench.json")
    assert (results.rows[0].speedup is None) == (name == "bench.json")


def test_a_config_that_was_cut_short_is_told(experiment: Path) -> None:
    text = (experiment / "config.yaml").read_text(encoding="utf-8")
    (experiment / "config.yaml").write_text(text[: text.index("\n", len(text) // 2)], encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.yaml: lacks .*; the file is truncated"):
        collect(experiment)


def test_decodes_of_other_transcripts_are_both_named(experiment: Path) -> None:
    change(experiment / "decode/dev/lowest_d4/decode.json", text_sha256="others")
    with pytest.raises(UserError, match=r"decode/dev/lowest_d4: .* not those of decode/dev/every_d10; .* remove the dir"):
        collect(experiment)


def test_scores_against_other_transcripts_are_told(experiment: Path) -> None:
    scores = list(experiment.glob("decode/dev/*/score.json"))
    for path in scores:  # all of them have been scored again, after a correction
        change(path, text_sha256="corrected")
    assert collect(experiment).data["dev"].text_sha256 == "corrected"
    change(experiment / "decode/dev/lowest_d4/score.json", text_sha256="others")
    with pytest.raises(
        UserError, match=r"decode/dev/lowest_d4: its utterances, features, transcripts or rule of letter case are not those of"
    ):
        collect(experiment)


@pytest.mark.parametrize("name", ["decode/dev/lowest_d4", "plans/lowest.json", "bench.json", "svcca/dev.npz"])
def test_what_another_model_made_is_left_out_and_named(experiment: Path, name: str) -> None:
    if name.endswith(".npz"):
        np.savez(experiment / name, **measures("0" * 64, 13))
    else:
        change(experiment / (name if name.endswith(".json") else f"{name}/decode.json"), model_sha256="0" * 64)
    results = collect(experiment)
    (sentence,) = results.missing
    assert name in sentence
    assert "another model" in sentence
    assert {row.model_sha256 for row in results.rows} == {results.model.model_sha256}
    assert ("lowest" in results.search) == (name != "plans/lowest.json")
    assert (results.bench is None) == (name == "bench.json")


def test_copies_of_results_are_left_out_and_named(experiment: Path) -> None:
    expected = collect(experiment)
    shutil.copytree(experiment / "decode/dev/lowest_d4", experiment / "decode/dev/lowest_d4_old")
    shutil.copytree(experiment / "decode/test", experiment / "decode/test_backup")
    results = collect(experiment)
    assert results.rows == expected.rows
    assert results.missing[0] == "Left out: decode/dev/lowest_d4_old; it is a copy of decode/dev/lowest_d4."
    assert len(results.missing) == 1 + len(list((experiment / "decode/test").iterdir()))


def test_texts_of_other_features_are_told(experiment: Path) -> None:
    """As after a change of the recordings, if a strategy is not decoded any more: its texts are of the recordings before."""
    for path in experiment.glob("decode/dev/*/decode.json"):
        change(path, features="new")
    change(experiment / "decode/dev/every_d10/decode.json", features=None)  # an earlier version did not say
    collect(experiment)
    change(experiment / "decode/dev/lowest_d4/decode.json", features="old")
    with pytest.raises(UserError, match=r"decode/dev/lowest_d4: its utterances, features, .* remove the directories"):
        collect(experiment)


def test_the_score_of_another_text_is_told(experiment: Path) -> None:
    """As after a copy of the texts of another machine over older ones."""
    folder = experiment / "decode/test/svcca_d8"
    change(folder / "decode.json", output_sha256="new")
    collect(experiment)  # the score does not say
    change(folder / "score.json", output_sha256="old")
    with pytest.raises(UserError, match=r"score\.json: is the score of another text than the one that decode\.json records"):
        collect(experiment)


def test_transcripts_that_were_edited_since_the_scoring_are_told_once(experiment: Path, tmp_path: Path) -> None:
    text = tmp_path / "test/text"
    text.parent.mkdir()
    text.write_text("u1 ONE\nu2 TWO\n")
    for record in experiment.glob("decode/test/*/decode.json"):
        change(record, directory=str(text.parent))
        change(record.with_name("score.json"), text_sha256=sha256_of_rows([("u1", "ONE"), ("u2", "TWO")]))
    assert collect(experiment).missing == ()
    text.write_text("u1 ONE\nu2 TOO\n")
    told = f"Old: the error rates of test; {text} was edited since, run stage 9 (`asrprune score`) again."
    assert collect(experiment).missing == (told,)
    text.unlink()
    assert collect(experiment).missing == ()


def test_the_log_of_another_training_is_left_out_and_named(experiment: Path) -> None:
    change(experiment / "model.json", members=[{"epoch": 18, "wer": 5.0}])
    results = collect(experiment)
    assert results.training is None
    assert results.missing[0].startswith("Left out: training curves; train.jsonl is the log of another training")


def test_letter_case_that_was_ignored_is_told(experiment: Path) -> None:
    for score in experiment.glob("decode/*/*/score.json"):
        change(score, ignore_case=True)
    assert "letter case does not count" in set_title(collect(experiment), "test")


def test_what_has_the_layers_of_an_earlier_plan_is_left_out_and_named(experiment: Path) -> None:
    change(experiment / "decode/dev/lowest_d4/decode.json", keep=[2, 3, 4, 5])
    results = collect(experiment)
    assert results.missing == (
        "Left out: decode/dev/lowest_d4; it has the layers of an earlier plan, run stage 8 (`asrprune decode`) again.",
    )
    assert ("dev", "lowest", 4) not in {(row.set, row.strategy, row.depth) for row in results.rows}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("score.json", {"wer_ci95": [90.0, 91.0]}, "outside its 95 % interval"),
        ("score.json", {"utterances": 1999}, "1999 utterances are scored, but 2000 are decoded"),
        (
            "score.json",
            {"ignore_case": True},
            "decode/test/svcca_d8: its utterances, features, transcripts or rule of letter case",
        ),
        ("decode.json", {"text_sha256": "other"}, "decode/test/svcca_d8: its utterances, features, transcripts or rule"),
        ("decode.json", {"format": 2}, r"decode\.json: format: input should be 1, got 2; remove it, stage 8"),
    ],
)
def test_files_that_disagree_are_refused(experiment: Path, name: str, values: dict[str, Any], message: str) -> None:
    change(experiment / "decode/test/svcca_d8" / name, **values)
    with pytest.raises(UserError, match=message):
        collect(experiment)


def test_a_log_line_that_a_kill_cut_short_does_no_harm(experiment: Path) -> None:
    before = collect(experiment).training
    with open(experiment / "train.jsonl", "a", encoding="utf-8") as log:
        log.write('{"kind": "step", "st')
    assert collect(experiment).training == before


def test_an_experiment_with_older_names_of_strategies_has_the_same_results(experiment: Path) -> None:
    expected = collect(experiment)
    for today, old in (("iterative", "greedy"), ("lowest", "top")):
        for path in [experiment / f"plans/{today}.json", *experiment.glob(f"decode/*/{today}_d*")]:
            renamed = path.rename(path.with_name(path.name.replace(today, old)))
            change(renamed / "decode.json" if renamed.is_dir() else renamed, strategy=old)
    assert collect(experiment) == expected
