"""The recipes themselves: egs/mini from stage 0 to the report, once more, killed and resumed; egs/an4 up to its text units."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import asrprune
from waiting import has_lines, wait_for

from asrprune.data.check import check_data_dir
from asrprune.data.tables import read_table
from asrprune.runtime.files import sha256_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
AN4 = ROOT / "../shared/data/an4"
SETS = ("train", "dev", "test")
STRATEGIES = ("iterative", "svcca", "influence", "lowest", "every")
DEPTHS = (4, 2, 1)


@dataclass(frozen=True)
class Mini:
    """A finished run of egs/mini with conf/tiny.yaml, in a folder whose name has a space."""

    folder: Path
    output: str

    @property
    def exp(self) -> Path:
        return self.folder / "exp/tiny"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def command(self, *options: str) -> list[str]:
        tiny = ["--config", "conf/tiny.yaml", "--local_opts", "--config conf/corpus_tiny.yaml"]
        return _recipe("mini", self.folder, *tiny, *options)


def _recipe(name: str, folder: Path, *options: str) -> list[str]:
    where = ["--datadir", str(folder / "data"), "--expdir", str(folder / "exp")]
    return [str(ROOT / f"egs/{name}/run.sh"), "--nj", "1", *where, *options]


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}


def _run(command: list[str]) -> str:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Mini:
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed: pip install 'asrprune[mini]'")
    run = Mini(tmp_path_factory.mktemp("recipe") / "mini run", "")
    return Mini(run.folder, _run(run.command()))


def _results(exp: Path) -> dict[str, Any]:
    return json.loads((exp / "results.json").read_text())


def _numbers(exp: Path) -> list[dict[str, Any]]:
    """The rows of results.json, without what is measured with a clock."""
    return [{key: value for key, value in row.items() if key not in ("rtf", "speedup")} for row in _results(exp)["rows"]]


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_results_have_a_row_for_every_strategy_and_depth(mini: Mini) -> None:
    rows = _results(mini.exp)["rows"]
    assert sorted((row["set"], row["strategy"], row["depth"]) for row in rows) == sorted(
        ("test", strategy, depth) for strategy in STRATEGIES for depth in DEPTHS
    )
    words = sum(len(text.split()) for text in read_table(mini.data / "test/text").values())
    for row in rows:
        assert len(row["keep"]) == row["depth"]
        assert row["ref_words"] == words
        assert row["wer"] == pytest.approx(100 * (row["sub"] + row["del"] + row["ins"]) / words)
        assert row["wer_ci95"][0] <= row["wer"] <= row["wer_ci95"][1]
        assert row["rtf"] > 0
        assert row["del"] < words, "silence would make the other tests here meaningless"


def test_every_stage_leaves_what_it_promises(mini: Mini) -> None:
    for name in SETS:
        assert check_data_dir(mini.data / name).faults == []
    for name in ("train_sp", "dev", "test"):
        ids = list(read_table(mini.data / name / "text"))
        assert list(read_table(mini.data / name / "feats.scp")) == ids
    for strategy in STRATEGIES:
        plan = json.loads((mini.exp / f"plans/{strategy}.json").read_text())
        assert {step["depth"] for step in plan["steps"]} >= set(DEPTHS)
    with np.load(mini.exp / "svcca/dev.npz") as matrices:
        assert matrices["similarity"].shape == (5, 5)
        assert np.diag(matrices["similarity"]) == pytest.approx(1.0)
        assert matrices["influence"].shape == (4,)
    config = yaml.safe_load((mini.exp / "config.yaml").read_text())
    assert config["model"]["num_layers"] == 4
    losses = [json.loads(line) for line in (mini.exp / "train.jsonl").read_text().splitlines()]
    dev = [line["dev_loss"]["4"] for line in losses if line["kind"] == "epoch"]
    assert len(dev) == 2
    assert dev[1] < dev[0], "it learns"
    assert len(json.loads((mini.exp / "bench.json").read_text())["rows"]) == len(DEPTHS)


def test_the_report_is_whole(mini: Mini) -> None:
    for name in ("wer_by_depth", "wer_vs_rtf", "layers_kept", "svcca", "training"):
        assert _is_png(mini.exp / f"figures/{name}.png")
    assert _is_png(mini.exp / "svcca/dev.png")
    page = (mini.exp / "report.html").read_text()
    table = (mini.exp / "RESULTS.md").read_text()
    full = _results(mini.exp)["rows"][0]
    assert full["depth"] == 4
    for text in (page, table, mini.output):
        assert f"{full['wer']:.1f}" in text
    assert "Left out" not in page
    assert str(mini.exp / "report.html") in mini.output


def _is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def test_a_second_run_skips_everything_and_changes_nothing(mini: Mini) -> None:
    before, started = _files(mini.folder), time.monotonic()
    output = _run(mini.command())
    assert time.monotonic() - started < 10
    assert output.count("done before") == 12
    assert _files(mini.folder) == before


def test_a_run_killed_in_training_ends_with_the_same_numbers(mini: Mini) -> None:
    command = mini.command("--exp_tag", "killed")
    exp = mini.folder / "exp/killed"
    process = subprocess.Popen(command, env=_environment(), start_new_session=True, stdout=subprocess.DEVNULL)
    _wait_for_lines(exp / "train.jsonl", 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (exp / ".done/4").exists(), "the kill came too late to test anything"
    output = _run(command)
    assert "stage 3 (bpe): done before" in output
    log = (exp / "log/train.log").read_text()
    assert "continuing at epoch" in log
    assert _lines(exp) == _lines(mini.exp)
    assert _numbers(exp) == _numbers(mini.exp)


def _wait_for_lines(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: has_lines(path, count) or process.poll() is not None, 300.0, "no training")
    assert process.poll() is None, "the run ended before it trained"


def _lines(exp: Path) -> list[dict[str, Any]]:
    """train.jsonl without what is measured with a clock."""
    lines = [json.loads(line) for line in (exp / "train.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("frames_per_s", "elapsed_s", "seconds")} for line in lines]


def test_a_pruned_experiment_decodes_as_the_full_one_with_keep(mini: Mini, tmp_path: Path) -> None:
    exp = shutil.copytree(mini.exp, tmp_path / "exp")
    layers = next(row["keep"] for row in _results(exp)["rows"] if row["strategy"] == "iterative" and row["depth"] == 2)
    chosen = ",".join(map(str, layers))
    test = str(mini.data / "test")
    for command in (
        ["prune", "--exp", str(exp), "--depth", "2", "--plan", "iterative", str(tmp_path / "pruned")],
        ["decode", "--exp", str(tmp_path / "pruned"), test, "--layers", "1,2"],
        ["decode", "--exp", str(exp), test, "--layers", chosen],
    ):
        assert asrprune(*command).code == 0
    pruned = (tmp_path / "pruned/decode/test/layers_1_2_d2/text").read_text()
    full = (exp / f"decode/test/layers_{chosen.replace(',', '_')}_d2/text").read_text()
    assert pruned == full == (exp / "decode/test/iterative_d2/text").read_text()
    assert full != (exp / "decode/test/iterative_d4/text").read_text()


def test_a_language_model_is_a_part_of_the_recipe(mini: Mini, tmp_path: Path) -> None:
    """The finished experiment, with a beam: nothing is trained anew but the n-gram."""
    shutil.copytree(mini.exp, tmp_path / "exp/tiny")
    numbers = ("decode.decoder.type=beam", "decode.decoder.lm=2gram.arpa", "prune.strategies=[lowest]", "prune.depths=[1]")
    options = " ".join(f"--set {number}" for number in numbers)
    output = _run(mini.command("--expdir", str(tmp_path / "exp"), "--stop_stage", "8", "--config_opts", options))
    exp = tmp_path / "exp/tiny"
    assert "stage 5 (average): done before" in output
    tuned = json.loads((exp / "decoder.json").read_text())
    assert tuned["set"] == "dev"
    made_with = json.loads((exp / "decode/test/lowest_d1/decode.json").read_text())["decoder"]
    assert f"lm={sha256_of(exp / 'lang/2gram.arpa')[:16]} lm_weight={tuned['lm_weight']} " in made_with


@pytest.mark.skipif(not AN4.is_dir(), reason=f"{AN4} is not there")
def test_an4_prepares_features_and_units_from_the_archive(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text("tokenizer: {type: char, vocab_size: null}\n")
    downloads = ROOT / "egs/an4/downloads"
    before = _files(AN4), downloads.exists()
    _run(_recipe("an4", tmp_path, "--config", str(config), "--download_dir", str(AN4), "--stop_stage", "3"))
    sizes = {name: len(read_table(tmp_path / f"data/{name}/feats.scp")) for name in ("train_sp", "dev", "test")}
    assert sizes == {"train_sp": 857, "dev": 91, "test": 130}
    assert (tmp_path / "exp/tiny/lang/tokens.txt").read_text().startswith("<blk> 0\n")
    assert (_files(AN4), downloads.exists()) == before, "the corpus is unpacked beside --datadir"


# ---- a grid of models

GRID = """
config: conf/tiny.yaml
numbers: {train.epochs: 1, prune.strategies: [iterative], bench.repeats: 1}
methods: {plain: {model.taps: [], model.truncated: {}, model.stochastic_depth.rate: 0}, both: {}}
alone: {methods: [plain], depths: [2]}
prunable: both
plain: plain
baseline: plain
"""


def test_a_grid_runs_what_is_missing_and_compares(mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the tiny recipe's data, stopped by a failing run and started again."""
    monkeypatch.chdir(ROOT / "egs/mini")
    monkeypatch.setenv("PATH", _environment()["PATH"])
    (tmp_path / "grid.yaml").write_text(GRID)
    command = [
        "compare",
        tmp_path / "grid.yaml",
        "--output",
        tmp_path / "paper",
        "--expdir",
        tmp_path / "exp",
        "--jobs",
        2,
        "--",
    ]
    options = ["--datadir", mini.data, "--local_opts", "--config conf/corpus_tiny.yaml"]

    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/plain_2l_s1").write_text("in the way")
    failed = asrprune(*command, *options)
    assert failed.code == 1
    assert "plain_2l_s1" in failed.err
    (tmp_path / "exp/plain_2l_s1").unlink()

    done = asrprune(*command, *options)
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "paper/summary.json").read_text())
    rows = {(row["method"], row["strategy"], row["depth"]): row for row in summary["rows"]}
    assert set(rows) == {
        *((method, "full", 4) for method in ("plain", "both")),
        *((method, "iterative", depth) for method in ("plain", "both") for depth in (2, 1)),
        ("plain", "alone", 2),
    }
    tested = {test["depth"]: test for test in summary["tests"]}
    assert tested[2]["alone_wer"] == rows["plain", "alone", 2]["wer"]
    assert tested[2]["wer"] == rows["both", "iterative", 2]["wer"]
    said = {line.split()[1] for line in (mini.data / "test/utt2spk").read_text().splitlines()}
    assert summary["speakers"] == {"test": len(said)}
    scored = json.loads((tmp_path / "exp/both_4l_s1/decode/test/iterative_d2/score.json").read_text())
    assert rows["both", "iterative", 2]["wer"] == pytest.approx(scored["wer"], abs=1e-3)
    assert [row["depth"] for row in summary["speed"]] == [4, 2, 1]
    assert "| both | iterative |" in (tmp_path / "paper/RESULTS.md").read_text()

    shutil.rmtree(tmp_path / "exp")  # the records are enough
    before = (tmp_path / "paper/summary.json").read_text()
    again = asrprune(*command, *options)
    assert again.code == 0, again.err
    assert "3 of 3 cells are recorded" in again.err
    assert (tmp_path / "paper/summary.json").read_text() == before

    (tmp_path / "paper/RESULTS.md").unlink()
    compared = asrprune("compare", tmp_path / "grid.yaml", "--no-train", "--output", tmp_path / "paper")
    assert compared.code == 0, compared.err
    assert compared.out.splitlines()[-1] == f"report: {tmp_path / 'paper/RESULTS.md'}"
    assert f"{rows['both', 'iterative', 2]['wer']:.1f} [" in compared.out


def test_a_report_is_of_an_experiment(tmp_path: Path) -> None:
    for options in ((), ("--exp", tmp_path, "--grid", tmp_path / "grid.yaml"), ("--grid", "x", "--copy-to", tmp_path)):
        failed = asrprune("report", *options)
        assert (failed.code, failed.out) == (1, "")
        assert "give an experiment, --exp DIR; to compare a grid of models, use `asrprune compare FILE`" in failed.err


def test_nothing_is_run_without_training_in_both_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "egs/mini")
    (tmp_path / "grid.yaml").write_text(GRID)
    where = tmp_path / "grid.yaml", "--output", tmp_path / "none"
    for command in (("compare", "--no-train"), ("report", "--grid")):
        failed = asrprune(*command, *where)
        assert (failed.code, failed.out) == (1, "")
        assert "no cell of the grid is recorded yet; `asrprune compare` runs them" in failed.err
    failed = asrprune("compare", "--no-train", *where, "--", "--ngpu", 1)
    assert "--no-train trains nothing; remove it, or remove --only and the options after --" in failed.err


def test_a_grid_outside_a_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    for name in ("compare", "grid"):  # its name in earlier versions
        failed = asrprune(name, "grid.yaml")
        assert (failed.code, failed.out) == (1, "")
        assert "no run.sh here; run this in a recipe's directory" in failed.err
