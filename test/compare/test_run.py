"""Running a grid: what is in the way is said first, one failing run does not stop the others, and records are checked."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from records import cell_record, cell_row, changed
from waiting import alive, locked_elsewhere, wait_for

from asrprune.compare import run
from asrprune.compare.grid import Cell, cells, read_grid
from asrprune.compare.record import CellRecord, read_records, record_path
from asrprune.config.load import read_config, write_config
from asrprune.experiment.paths import ExperimentPaths
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import held, write_json

GRID = """
config: train.yaml
methods: {plain: {model.taps: []}, both: {}}
alone: {methods: [plain], depths: [2]}
prunable: both
plain: plain
baseline: plain
"""
RUN_SH = """#!/bin/sh
echo "$@" >>calls
case "$*" in *both_4l_s1*) echo "a fault"; exit 3;; esac
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose run.sh does nothing, and fails for the prunable model."""
    (tmp_path / "train.yaml").write_text("model: {num_layers: 4, taps: [2]}\n")
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "run.sh").write_text(RUN_SH)
    (tmp_path / "run.sh").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_POLL_S", 0.01)
    monkeypatch.setattr(run, "make_record", lambda exp, cell: record(cell))
    return tmp_path


def record(cell: Cell) -> CellRecord:
    rows = (cell_row("lowest", cell.depth, "0 1 0", rtf=0.1),)
    return cell_record(cell.method, cell.depth, cell.seed, cell.alone, config=cell.config, rows=rows)


def made(recipe: Path) -> list[Cell]:
    return cells(read_grid(recipe / "grid.yaml"), recipe)


def test_the_others_run_though_one_fails(recipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="1 of 3 runs failed, see above: both_4l_s1; the same command goes on"):
        run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, ["--download_dir", "x", "--nj", "7"])
    assert set(read_records(Path("paper"), made(recipe))) == {"plain_4l_s1", "plain_2l_s1"}
    assert "both_4l_s1: run.sh ended with exit code 3" in caplog.text
    assert "a fault" in caplog.text
    trained = [call for call in (recipe / "calls").read_text().splitlines() if "--stage 3" in call]
    assert len(trained) == 3
    assert all(call.endswith("--download_dir x --nj 7") for call in trained), "what the user says comes last, and wins"


def test_part_of_a_grid_is_trained_for_another_machine(recipe: Path) -> None:
    run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, [], only=["plain_2l_s1", "plain_4*"])
    assert set(read_records(Path("paper"), made(recipe))) == {"plain_4l_s1", "plain_2l_s1"}
    calls = (recipe / "calls").read_text()
    assert "both" not in calls
    with pytest.raises(UserError, match=r"^--only plain: no such cell; grid.yaml has both_4l_s1, plain_2l_s1, plain_4l_s1$"):
        run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, [], only=["plain_2l_s1", "plain"])
    assert (recipe / "calls").read_text() == calls, "nothing ran"


def test_what_cannot_be_recorded_stops_no_other_run(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails_once(exp: Path, cell: Cell) -> CellRecord:
        if cell.alone:
            raise UserError(f"{exp}/train.jsonl: no finished epoch")
        return record(cell)

    monkeypatch.setattr(run, "make_record", fails_once)
    with pytest.raises(UserError, match="2 of 3 runs failed, see above: both_4l_s1, plain_2l_s1; the same"):
        run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, [])
    assert set(read_records(Path("paper"), made(recipe))) == {"plain_4l_s1"}
    assert "exp/plain_2l_s1/train.jsonl: no finished epoch" in caplog.text


@pytest.mark.parametrize(
    ("visible", "jobs", "shares"),
    [("4,5,6,7", 2, ["4,6", "5,7"]), ("4,5,6", 2, ["4,6", "5"]), ("4", 2, ["4", "4"]), ("0,1", 1, ["0,1"]), ("", 1, [None])],
)
def test_runs_share_the_gpus(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, visible: str, jobs: int, shares: list[str | None]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [run._gpus(slot, jobs).get("CUDA_VISIBLE_DEVICES") for slot in range(jobs)] == shares


def test_no_two_runs_have_one_share_at_a_time(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe / "run.sh").write_text(
        "#!/bin/sh\nmkdir gpu$CUDA_VISIBLE_DEVICES || exit 1\nsleep 0.2\nrmdir gpu$CUDA_VISIBLE_DEVICES\n"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 2, [])
    assert len(read_records(Path("paper"), made(recipe))) == 3


@pytest.mark.parametrize("option", ["--config", "--exp_tag", "--config_opts", "--stage", "--exp-tag=x", "--stop-stage"])
def test_options_that_the_grid_decides_are_refused(recipe: Path, option: str) -> None:
    name = option.removesuffix("=x").replace("-", "_").replace("__", "--")
    with pytest.raises(UserError, match=rf"^{name}: the grid decides this .* set it in grid.yaml"):
        run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, [option, "conf/sample.yaml"])
    assert not (recipe / "calls").exists()


def test_an_experiment_of_other_numbers_is_named_before_anything_runs(recipe: Path) -> None:
    (recipe / "exp/plain_2l_s1").mkdir(parents=True)
    write_config(read_config(recipe / "train.yaml", ["model.num_layers=3"]), recipe / "exp/plain_2l_s1/config.yaml")
    with pytest.raises(UserError, match="exp: plain_2l_s1: trained with other numbers than the grid has now; remove"):
        run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, [])
    assert not (recipe / "calls").exists()


def test_a_training_on_other_data_than_the_recorded_ones_is_stopped_at_once(recipe: Path) -> None:
    both, plain, _ = made(recipe)
    recorded, trained = record(both), ExperimentPaths(Path("exp") / plain.name).data
    recorded.write(record_path(Path("paper"), both))
    trained.parent.mkdir(parents=True)
    (recipe / "run.sh").write_text('#!/bin/sh\ncase "$*" in *plain_2l*) sleep 99;; esac\n')

    others = changed(recorded.trained_on, dev=changed(recorded.trained_on.dev, texts="other"))
    others.write(trained)
    with pytest.raises(
        UserError, match=r"^exp/plain_2l_s1: is trained on other data than the recorded both_4l_s1; use its data"
    ):
        run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, [], only=["plain_2l_s1"])

    recorded.trained_on.write(trained)
    (recipe / "run.sh").write_text("#!/bin/sh\n")
    run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, [], only=["plain_2l_s1"])
    assert "plain_2l_s1" in read_records(Path("paper"), made(recipe))


def test_two_grids_do_not_share_a_directory(recipe: Path) -> None:
    with locked_elsewhere(Path("exp")), pytest.raises(UserError, match="exp: another process is using it"):
        run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, [])
    with held(Path("exp")):
        pass


def test_records_of_other_numbers_and_broken_ones_are_named(recipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    both, plain, _ = made(recipe)
    record(both).write(record_path(Path("paper"), both))
    other = record(plain).plain()
    other["config"]["train"]["epochs"] += 1
    write_json(record_path(Path("paper"), plain), other)
    assert set(read_records(Path("paper"), made(recipe))) == {"both_4l_s1"}
    assert f"left out, because they were recorded with other numbers than the grid has now: {plain.name}" in caplog.text
    for broken in ({"format": 2}, {**other, "format": 2}, [], {**other, "rows": None}):
        write_json(record_path(Path("paper"), plain), broken)
        with pytest.raises(UserError, match=f"cells/{plain.name}.json: .*; remove it, `asrprune compare` makes it again"):
            read_records(Path("paper"), made(recipe))


def test_records_with_another_rule_of_letter_case_are_left_out(recipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same training and texts, but other errors."""
    for cell in made(recipe):
        record(cell).write(record_path(Path("paper"), cell))
    assert len(read_records(Path("paper"), made(recipe))) == 3
    (recipe / "grid.yaml").write_text(f"{GRID}numbers: {{scoring.ignore_case: true}}\n")
    assert not read_records(Path("paper"), made(recipe))
    assert "recorded with other numbers than the grid has now" in caplog.text


def test_the_speed_is_that_of_the_model_that_is_pruned(recipe: Path) -> None:
    """Not that of a model trained for a depth, by the same method."""
    (recipe / "grid.yaml").write_text(GRID.replace("prunable: both", "prunable: plain"))
    for cell in made(recipe):
        slow = record(cell)
        rows = tuple(row.model_copy(update={"rtf": None}) for row in slow.rows)
        slow.model_copy(update={"rows": rows}).write(record_path(Path("paper"), cell))
        ExperimentPaths(Path("exp") / cell.name).root.mkdir(parents=True)
        ExperimentPaths(Path("exp") / cell.name).model.touch()
    run.run_grid(Path("grid.yaml"), Path("paper"), Path("exp"), 1, [])
    assert [line.split("--exp_tag ")[1].split()[0] for line in Path("calls").read_text().splitlines()] == ["plain_4l_s1"]


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGTERM])
def test_when_the_terminal_is_gone_nothing_trains_on(recipe: Path, how: signal.Signals) -> None:
    (recipe / "run.sh").write_text("#!/bin/sh\nmkdir -p exp\necho $$ >exp/child\nexec sleep 60\n")
    (recipe / "exp/plain_2l_s1").mkdir(parents=True)
    command = [f"{Path(sys.executable).parent}/asrprune", "compare", "grid.yaml"]
    with subprocess.Popen(
        [*command, "--expdir", "exp", "--output", "paper"], stderr=subprocess.PIPE, text=True, preexec_fn=_with_a_terminal
    ) as grid:
        child = recipe / "exp/child"
        wait_for(lambda: child.exists() and child.read_text().strip() != "")
        grid.send_signal(how)
        assert grid.stderr is not None
        assert "interrupted; no file is incomplete" in grid.stderr.read()
    assert grid.returncode == 128 + how
    wait_for(lambda: not alive(int(child.read_text())))


def _with_a_terminal() -> None:
    """These tests may themselves run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
