"""Names that become paths, and links that a stranger planted where we write: nothing leaves its place."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks import Canary
from commands import asrprune, refused, unchanged

from asrprune.data.download import fetch
from asrprune.data.fix import fix_data_dir
from asrprune.data.unpack import unpack
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import file_of, plan_path
from asrprune.recipe.command import run_command
from asrprune.recipe.installation import check_installation
from asrprune.recipe.record import Record
from asrprune.recipe.run import make_homes
from asrprune.recipe.stage import Stage
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import held, write_json, write_text
from asrprune.runtime.planted import file_name, inside
from asrprune.runtime.slurm import Slurm
from asrprune.train.journal import Journal

NAMES = [
    "",
    ".",
    "..",
    "...",
    " ",
    "/",
    "/etc",
    "../x",
    "a/b",
    "a/../b",
    "-rf",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "\u202eb",
    "\udcff",
    "x" * 201,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    for use in (
        lambda: file_name(name, "the name"),
        lambda: inside(tmp_path, name),
        lambda: ExperimentPaths(tmp_path).decoded(name),
    ):
        with pytest.raises(UserError, match="cannot become the name of a file") as caught:
            use()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["dev", "test_clean", "layers_1_2", "iterative_d6", "Prüfung", "a b", "te$t_$x", "v1.5", ".backup"]
)
def test_names_that_are_fine(name: str, tmp_path: Path) -> None:
    assert inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("strategy", ["../../x", "/etc/x", "a/b", "a\0b", "-x", "x\n"])
def test_strategies_do_not_lead_out(strategy: str, tmp_path: Path) -> None:
    for use in (lambda: plan_path(tmp_path, strategy), lambda: file_of(tmp_path, strategy, "_d4")):
        with pytest.raises(UserError, match="cannot become the name of a file"):
            use()
    with pytest.raises(UserError, match="cannot become the name of a file"):
        file_of(tmp_path, "lowest", "_d../../4")  # the depth of a record


@pytest.fixture
def searched(tiny_experiment: Path, tiny_data: Path, copy: Callable[[Path], Path]) -> Path:
    """An experiment with a plan."""
    exp = copy(tiny_experiment)
    assert asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "lowest").code == 0
    return exp


@pytest.mark.parametrize("strategy", ["../../../home", "/CANARY", "..", "\x1b]0;x\7"])
def test_a_plans_strategy(strategy: str, searched: Path, tiny_data: Path, canary: Canary) -> None:
    plan = plan_path(searched, "lowest")
    strategy = strategy.replace("/CANARY", str(canary.path))
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "strategy": strategy}))
    done = asrprune("decode", "--exp", searched, tiny_data / "dev", "--strategy", "lowest", "--depth", 4)
    refused(done, "decode", f"{plan}: the strategy", "cannot become the name of a file")
    assert canary.is_alive()
    assert not (searched / "decode").exists()


@pytest.mark.parametrize("directory", ["..", "/"])
def test_sets_without_a_name(directory: str, searched: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_data / "dev")
    before = sorted(searched.rglob("*"))
    refused(asrprune("score", "--exp", searched, directory), "score")
    assert sorted(searched.rglob("*")) == before


def test_the_working_directory_has_the_name_of_its_folder(
    searched: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_data / "dev")
    done = asrprune("decode", "--exp", searched, ".", "--strategy", "lowest", "--depth", 2)
    assert done.code == 0, done.err
    assert [path.name for path in (searched / "decode").iterdir()] == ["dev"]


@pytest.mark.parametrize("option", ["../../home/canary", "../x", "a/b"])
def test_strategies_on_the_command_line(option: str, searched: Path, tiny_data: Path, canary: Canary) -> None:
    refused(asrprune("decode", "--exp", searched, tiny_data / "dev", "--strategy", option), "decode", "cannot become the name")
    refused(asrprune("prune", "--exp", searched, searched / "new", "--depth", 2, "--plan", option), "prune", "cannot become")
    assert canary.is_alive()


@pytest.mark.parametrize("link", ["decode", "decode/dev", "decode/dev/lowest_d4", "decode/dev/shards"])
def test_results_are_not_written_through_links(link: str, searched: Path, tiny_data: Path, canary: Canary) -> None:
    (searched / link).parent.mkdir(parents=True, exist_ok=True)
    (searched / link).symlink_to(canary.path.parent)
    done = asrprune("decode", "--exp", searched, tiny_data / "dev", "--strategy", "lowest", "--depth", 4)
    refused(done, "decode", "is a symbolic link to a directory")
    assert canary.is_alive()


@pytest.mark.parametrize("link", ["plans", "plans/scores", "svcca"])
def test_measures_are_not_written_through_links(
    link: str, tiny_experiment: Path, tiny_data: Path, canary: Canary, copy: Callable[[Path], Path]
) -> None:
    exp = copy(tiny_experiment)
    (exp / link).parent.mkdir(exist_ok=True)
    (exp / link).symlink_to(canary.path.parent)
    command = ["svcca", "--data"] if link == "svcca" else ["search", "--strategy", "iterative", "--dev"]
    refused(asrprune(*command, tiny_data / "dev", "--exp", exp), command[0], "is a symbolic link to a directory")
    assert canary.is_alive()


def test_scores_are_not_written_through_links(searched: Path, tiny_data: Path, tmp_path: Path) -> None:
    asrprune("decode", "--exp", searched, tiny_data / "dev", "--strategy", "lowest", "--depth", 4)
    other = (searched / "decode" / "dev" / "lowest_d4").rename(tmp_path / "other")
    before = sorted(other.iterdir())
    (searched / "decode" / "dev" / "lowest_d4").symlink_to(other)
    refused(asrprune("score", "--exp", searched, tiny_data / "dev"), "score", "is a symbolic link to a directory")
    assert sorted(other.iterdir()) == before


def test_marks_are_not_written_through_links(tmp_path: Path, canary: Canary) -> None:
    stage = Stage(tmp_path / "exp", number=4, name="train", purpose="training")
    stage.home.mkdir()
    (stage.home / ".done").symlink_to(canary.path.parent)
    for use in (lambda: make_homes([stage]), lambda: check_installation(stage.home, 0)):
        with pytest.raises(UserError, match="is a symbolic link to a directory"):
            use()
    assert canary.is_alive()


# -- links in the place of files that we write ------------------------------------------------------------------------


@pytest.mark.parametrize("plant", [os.symlink, lambda _, path: os.mkfifo(path)])
@pytest.mark.parametrize(
    "writes",
    [
        (".lock", lambda folder: held(folder).__enter__()),
        (".c.tar.lock", lambda folder: unpack(folder / "c.tar", folder / "c.tar")),
        (".f.lock", lambda folder: fetch("http://127.0.0.1:1/f", None, folder / "f", folder)),
        ("f.part", lambda folder: fetch("http://127.0.0.1:1/f", None, folder / "f", folder)),
        ("train.jsonl", lambda folder: Journal(folder, 0, 1)),
        ("x.log", lambda folder: run_command(["echo", "x"], folder / "x.log")),
    ],
    ids=lambda case: case[0],
)
def test_what_is_planted_stays_as_it_is(
    writes: tuple[str, Callable[[Path], object]], plant: Callable[[Path, Path], None], tmp_path: Path, canary: Canary
) -> None:
    name, write = writes
    (tmp_path / "new").mkdir()
    plant(canary.path, tmp_path / "new" / name)
    if name == "train.jsonl" and plant is os.symlink:  # a log that is there is written anew, which replaces the link
        write(tmp_path / "new")
        (tmp_path / "new" / name).unlink()
        plant(canary.path.with_name("absent"), tmp_path / "new" / name)
    with pytest.raises(UserError, match=r"is a symbolic link or a pipe|is a pipe or a device"):
        write(tmp_path / "new")
    assert canary.is_alive()


def test_hard_links_are_not_written_to(tmp_path: Path, canary: Canary) -> None:
    os.link(canary.path, tmp_path / "x.log")
    with pytest.raises(UserError, match=r"x\.log: is a hard link, and the file has another name elsewhere"):
        run_command(["echo", "x"], tmp_path / "x.log")
    assert canary.is_alive()


def test_a_path_is_no_line_of_a_script_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/bin/sbatch")
    with pytest.raises(UserError, match=r"holds a character that is not printed, so no job can be given this path"):
        Slurm(1, "", tmp_path / "a\ntouch CANARY" / "log")


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_log_is_not_written_through_a_link(kind: str, tiny_data: Path, tmp_path: Path, canary: Canary) -> None:
    if kind == "link":
        (tmp_path / "log").symlink_to(canary.path)
    else:
        os.mkfifo(tmp_path / "log")
    done = asrprune("--log", tmp_path / "log", "check-data", tiny_data / "dev")
    refused(done, "check-data", f"{tmp_path / 'log'}: is a symbolic link or a pipe")
    assert canary.is_alive()


def test_a_lock_that_is_there_keeps_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("something else")
    with held(tmp_path):
        assert (tmp_path / ".lock").read_text() == "something else"


def test_temporaries_cannot_be_planted(tmp_path: Path, canary: Canary) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for name in (f".plan.{os.getpid()}.tmp.json", ".plan.tmp.json", ".plan.json.tmp"):
        (folder / name).symlink_to(canary.path)
    write_json(folder / "plan.json", {})
    assert canary.is_alive()


def test_a_link_in_the_place_of_a_result_is_replaced(tmp_path: Path, canary: Canary) -> None:
    (tmp_path / "text").symlink_to(canary.path)
    write_text(tmp_path / "text", "new")
    assert not (tmp_path / "text").is_symlink()
    assert canary.is_alive()


def test_temporaries_that_nobody_writes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    made = {
        ".text.abcd_123.tmp": True,
        ".plan.4711.tmp.json": True,
        ".text.tmp": False,
        "text.abcd1234.tmp": False,
        ".x.tmpdir": False,
    }
    for name in made:
        (tmp_path / name).touch()
    (tmp_path / ".pruned.abcd1234.tmp").mkdir()
    (tmp_path / ".pruned.abcd1234.tmp" / "cmvn").touch()
    write_text(tmp_path / "text", "")
    assert {path.name for path in tmp_path.iterdir()} == {"text", *(name for name, ours in made.items() if not ours)}


@pytest.mark.parametrize("name", [".out.tmp", ".out.lock"])
def test_archives_are_not_unpacked_through_a_link(name: str, tmp_path: Path, canary: Canary) -> None:
    import tarfile

    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("unpacked"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).symlink_to(canary.path.parent if name == ".out.tmp" else canary.path)
    if name == ".out.tmp":
        unpack(tmp_path / "c.tar", tmp_path / "new" / "out")
    else:
        with pytest.raises(UserError, match="is a symbolic link"):
            unpack(tmp_path / "c.tar", tmp_path / "new" / "out")
    assert canary.is_alive()


@pytest.mark.parametrize("link", [".backup", ".backup/text"])
def test_backups_are_not_written_through_links(
    link: str, tiny_data: Path, canary: Canary, copy: Callable[[Path], Path]
) -> None:
    data = copy(tiny_data) / "dev"
    lines = (data / "text").read_text().splitlines()
    (data / "text").write_text("\n".join(reversed(lines)) + "\n")
    (data / link).parent.mkdir(exist_ok=True)
    (data / link).symlink_to(canary.path.parent if link == ".backup" else canary.path)
    assert fix_data_dir(data) == ["text: rewritten; the original file is in .backup2"]
    assert canary.is_alive()


@pytest.mark.parametrize("link", [".fixed", ".fixed/new", ".fixed/old"])
def test_prepared_files_are_not_taken_through_links(
    link: str, tiny_data: Path, tmp_path: Path, copy: Callable[[Path], Path]
) -> None:
    data, other = copy(tiny_data) / "dev", Path(shutil.copytree(tiny_data / "dev", tmp_path / "other"))
    (data / link).parent.mkdir(exist_ok=True)
    (data / link).symlink_to(other)
    with unchanged(other), pytest.raises(UserError, match="is a symbolic link to a directory"):
        fix_data_dir(data)


@pytest.mark.parametrize("name", ["text", "wav.scp", "text.md"])
def test_only_plain_tables_are_put_in_place(name: str, tiny_data: Path, canary: Canary, copy: Callable[[Path], Path]) -> None:
    data = copy(tiny_data) / "dev"
    (data / ".fixed" / "new").mkdir(parents=True)
    (data / ".fixed" / "new" / name).symlink_to(canary.path)
    before = sorted(path.name for path in data.iterdir() if path.name != ".fixed")
    fix_data_dir(data)
    assert sorted(path.name for path in data.iterdir()) == before
    assert not (data / name).is_symlink()
    assert canary.is_alive()


def test_only_old_archives_are_deleted(
    tiny_data: Path, tiny_config_file: Path, canary: Canary, copy: Callable[[Path], Path]
) -> None:
    """fbank may be a link, as features are large; it may lead to anything."""
    data = copy(tiny_data) / "dev"
    (data / "fbank").rename(data / "fbank_before")
    (data / "fbank").symlink_to(canary.path.parent)
    assert asrprune("fbank", data, "--config", tiny_config_file).code == 0
    assert canary.path.read_text() == "still here"


# -- pipes and devices in the place of files that we read --------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    ["PIPE", "/dev/zero", "/dev/stdin", "PIPE?rate=16000&encoding=s16le", "a\0b", "x.wav?rate=2147483648&encoding=s16le"],
)
def test_recordings_that_are_none(entry: str, tmp_path: Path) -> None:
    from asrprune.features.audio import audio_info

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError) as caught:
        audio_info(entry.replace("PIPE", str(tmp_path / "pipe")))
    assert str(caught.value).isprintable()


def test_marks_that_are_pipes_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("4", "doctor"):
        (tmp_path / ".done").mkdir(exist_ok=True)
        os.mkfifo(tmp_path / ".done" / name)
    assert Record.read(tmp_path / ".done" / "4") is None
    (tmp_path / "asrprune").write_text("#!/bin/sh\n")
    (tmp_path / "asrprune").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    check_installation(tmp_path, 0)
    assert (tmp_path / ".done" / "doctor").read_text() == f"{tmp_path}/asrprune, 0 GPUs\n"


# -- grids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["../../x", "/x", "..", "-x", "a\nb"])
def test_methods_of_a_grid(method: str, tmp_path: Path) -> None:
    from asrprune.compare.grid import read_grid

    grid = {"config": "c.yaml", "methods": {method: {}}, "alone": {"methods": [method], "depths": [1]}}
    (tmp_path / "grid.yaml").write_text(json.dumps({**grid, "prunable": method, "plain": method, "baseline": method}))
    with pytest.raises(UserError, match="cannot become the name of a file"):
        read_grid(tmp_path / "grid.yaml")


def test_a_small_grid_of_too_many_models(tmp_path: Path) -> None:
    from asrprune.compare.grid import read_grid

    names, numbers = [f"m{number}" for number in range(100)], list(range(1, 101))
    alone = {"methods": names, "depths": numbers}
    grid = {"config": "c.yaml", "seeds": numbers, "methods": {name: {} for name in names}, "alone": alone}
    (tmp_path / "grid.yaml").write_text(json.dumps({**grid, "prunable": "m0", "plain": "m1", "baseline": "m2"}))
    with pytest.raises(UserError, match=r"grid\.yaml: has 1010000 models, but 10000 are the most"):
        read_grid(tmp_path / "grid.yaml")


def test_numbers_of_a_grid_are_one_word_each() -> None:
    from asrprune.compare.grid import as_overrides

    with pytest.raises(UserError, match="has a blank"):
        as_overrides({"decode.decoder.lm": "x --allow-pipes"})
