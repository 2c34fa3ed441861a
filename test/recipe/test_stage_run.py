"""Which stages of a recipe run. Commands are pretended: each writes a file that says what it was made of."""

import contextlib
import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from waiting import locked_elsewhere

from asrprune.recipe.products import are_there, damaged, products_of
from asrprune.recipe.run import Recipe, make_homes
from asrprune.recipe.stage import Stage
from asrprune.runtime.errors import UserError

CONFIG = {"features": {"mels": 80}, "train": {"epochs": 2, "pace": 1}, "search": {"beam": 3}, "bench": {"repeats": 5}}


class Toy:
    """Data shared by experiments, then training, search and bench; ``config`` and ``ran`` are for the tests to look at."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.said, self.ran, self.failing = root, [], [], {}  # type: ignore[var-annotated]
        self.config: dict[str, dict[str, Any]] = {section: dict(numbers) for section, numbers in CONFIG.items()}
        self.exp = "exp"
        for name in ("train", "test"):
            (root / "data" / name).mkdir(parents=True)
            (root / "data" / name / "text").write_text(f"{name} text\n")
        monkeypatch.setattr("asrprune.recipe.run.run_command", self._pretend)

    @property
    def stages(self) -> list[Stage]:
        data, exp = self.root / "data", self.root / self.exp
        text, numbers = (data / "train/text").read_text(), {name: str(values) for name, values in self.config.items()}
        return [
            Stage(
                data, number=2, name="fbank", purpose="features", follows=False, shared="features", repeatable=True,
                needs=("features",), reads=(data / "train",), also_reads=(data / "test",), makes=(data / "feats",),
                commands=(("make", "fbank", f"{data}/feats", numbers["features"], text),),
            ),
            Stage(
                exp, number=4, name="train", purpose="training", repeatable=True,
                needs=("train.epochs",), also_needs=("all",), makes=(exp / "config", exp / "model"),
                commands=(
                    ("make", "config", f"{exp}/config", str(self.config)),
                    ("make", "train", f"{exp}/model", f"{data}/feats", str(self.config["train"]["epochs"])),
                ),
            ),
            Stage(
                exp, number=7, name="search", purpose="plans", needs=("search",), makes=(exp / "plans",),
                commands=(("make", "search", f"{exp}/plans", f"{exp}/model", numbers["search"]),),
            ),
            Stage(
                exp, number=10, name="bench", purpose="speed", needs=("bench",), makes=(exp / "bench",),
                commands=(("make", "bench", f"{exp}/bench", f"{exp}/plans", numbers["bench"]),),
            ),
        ]  # fmt: skip

    def _pretend(self, command: Sequence[str], log: Path) -> int:
        """Write of what a file is made: the contents of files, other words as they are."""
        _, name, output, *sources = command
        self.ran.append(name)
        if name in self.failing:
            log.write_text("".join(f"line {number}\n" for number in range(1, 31)))
            if isinstance(self.failing[name], type):
                raise self.failing[name]
            return self.failing[name]
        made_of = [Path(source).read_text() if source.startswith("/") else source for source in sources]
        Path(output).write_text(f"{name}({', '.join(made_of)})")
        return 0

    def run(self, first: int = 0, last: int = 11) -> list[str]:
        """The names of the commands that ran."""
        self.ran.clear()
        self.said.clear()
        recipe = Recipe(self.stages, self.config, self.said.append)
        make_homes(recipe.stages)
        recipe.run(first, last, lambda: self.ran.append("prepare"))
        return [name for name in self.ran if name != "prepare"]

    def made(self) -> dict[str, str]:
        paths = [path for stage in self.stages for path in stage.makes]
        return {path.name: path.read_text() for path in paths if path.exists()}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return Toy(tmp_path, monkeypatch)


@pytest.fixture
def done(toy: Toy) -> Toy:
    toy.run()
    return toy


def test_stages_run_in_order_and_once(toy: Toy) -> None:
    assert toy.run() == ["fbank", "config", "train", "search", "bench"]
    assert toy.ran[0] == "prepare"
    assert toy.ran.count("prepare") == 1
    assert toy.said[0] == f"stage 2 (fbank): features; log: {toy.root}/data/log/fbank.log"
    assert toy.said[1] == "stage 2 (fbank): took 0 s"
    assert toy.run() == toy.ran == []
    assert toy.said[0] == f"stage 2 (fbank): done before; to run it again: rm '{toy.root}/data/.done/2'"
    assert len(toy.said) == 4


def test_only_the_stages_asked_for(toy: Toy) -> None:
    assert toy.run(last=4) == ["fbank", "config", "train"]
    assert toy.run(7, 7) == ["search"]
    assert toy.run(7, 7) == []


@pytest.mark.parametrize(
    ("number", "names"),
    [
        ("features.mels", ["fbank", "config", "train", "search", "bench"]),
        ("train.epochs", ["config", "train", "search", "bench"]),
        ("train.pace", ["config", "train"]),  # of the whole config, which counts for training alone
        ("search.beam", ["config", "train", "search", "bench"]),
        ("bench.repeats", ["config", "train", "bench"]),
    ],
)
def test_a_changed_number_reruns_what_depends_on_it(number: str, names: list[str], done: Toy) -> None:
    section, key = number.split(".")
    before = done.config[section][key]
    done.config[section][key] = 7
    assert done.run() == names
    assert f"{number}: {before}, now 7" in "\n".join(done.said)
    assert done.run() == []


def test_changed_files_rerun_what_depends_on_them(done: Toy) -> None:
    (done.root / "data/test/text").write_text("another")
    assert done.run() == ["fbank"]
    (done.root / "data/train/text").write_text("another")
    assert done.run() == ["fbank", "config", "train", "search", "bench"]
    assert any("runs again, changed: train/text" in line for line in done.said)
    (done.root / "data/train/utt2spk").write_text("a b")
    assert done.run()[0] == "fbank"


def test_lost_outputs_are_made_again_and_what_follows_unless_they_are_the_same(done: Toy) -> None:
    (done.root / "exp/model").unlink()
    assert done.run() == ["config", "train"]
    (done.root / "exp/plans").unlink()
    assert done.run() == ["search"]
    (done.root / "exp/.done/7").unlink()
    assert done.run() == ["search"]


def test_damaged_outputs_are_made_again(done: Toy) -> None:
    (done.root / "exp/plans").write_text("half")
    assert done.run() == ["search"]
    assert any("stage 7 (search): runs again, changed: plans" in line for line in done.said)
    (done.root / "exp/plans").write_text("")
    (done.root / "exp/bench").unlink()
    assert done.run() == ["search", "bench"]


def test_a_flipped_bit_in_a_large_file_is_noticed_unless_there_is_too_much_to_hash(
    done: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrprune.runtime.files._HASHED_BYTES", 1000)
    plans = done.root / "exp/plans"
    search = done.stages[2]
    for huge in (False, True):
        stage = dataclasses.replace(search, huge=huge)
        plans.write_bytes(bytes(2000))
        made = products_of(stage)
        plans.write_bytes(bytes(1000) + b"\1" + bytes(999))
        assert damaged(stage, made) == ([] if huge else ["plans"])
        plans.write_bytes(bytes(2001))
        assert damaged(stage, made) == ["plans"]
    assert damaged(search, {"plans": "2001 bytes"}) == [], "as in marks of earlier versions"


def test_what_people_may_edit_counts_only_if_it_is_gone(done: Toy) -> None:
    stages = [dataclasses.replace(stage, editable=True) for stage in done.stages]
    recipe = Recipe(stages, done.config, done.said.append)
    for stage in stages:
        stage.mark.unlink()
    recipe.run(0, 11, lambda: None)
    (done.root / "exp/plans").write_text("edited")
    assert all(map(recipe.is_done, stages))
    (done.root / "exp/plans").unlink()
    assert [recipe.is_done(stage) for stage in stages] == [True, True, False, True]


def test_recordings_that_a_stage_made_may_not_be_lost(toy: Toy) -> None:
    train, audio = toy.root / "data/train", toy.root / "a.wav"
    stage = dataclasses.replace(toy.stages[0], makes_audio=(train,), editable=True)
    assert damaged(stage, products_of(stage)) == [], "there is no wav.scp"
    (train / "wav.scp").write_text(f"a {audio}\nb cat b.wav |\n")
    audio.touch()
    made = products_of(stage)
    assert damaged(stage, made) == []
    audio.unlink()
    assert damaged(stage, made) == ["recordings of train"]
    (train / "wav.scp").write_text("a none.wav\n")
    assert damaged(stage, made) == [], "somebody edited it"
    assert damaged(dataclasses.replace(stage, editable=False), {}) == ["recordings of train"]


def test_a_pattern_stands_for_files_of_which_there_is_at_least_one(toy: Toy) -> None:
    stage = dataclasses.replace(toy.stages[2], makes=(toy.root / "exp/*/pl*",))
    assert not are_there(stage)
    (toy.root / "exp/a").mkdir(parents=True)
    (toy.root / "exp/a/plan").write_text("x")
    assert are_there(stage)
    made = products_of(stage)
    assert list(made) == ["a/plan"]
    (toy.root / "exp/a/plan2").write_text("one more")
    assert damaged(stage, made) == []
    (toy.root / "exp/a/plan").write_text("y")
    assert damaged(stage, made) == ["a/plan"]


def test_shared_data_stay_as_they_are_while_an_experiment_uses_them(done: Toy) -> None:
    with locked_elsewhere(done.root / "data/.done", "lock", shared=True):
        done.config["search"]["beam"] = 4
        assert done.run() == ["config", "train", "search", "bench"], "others may use them, too"
        done.config["features"]["mels"] = 40
        with pytest.raises(UserError, match=r"data: another process is using it; wait until it ends, or stop it"):
            done.run()
    assert done.run() == ["fbank", "config", "train", "search", "bench"]


def test_a_mark_of_another_format_is_none(done: Toy) -> None:
    (done.root / "exp/.done/10").write_text("1234 5, 678 9\n")
    assert done.run() == ["bench"]
    (done.root / "exp/.done/10").write_text('{"after": "x"}')
    assert done.run() == ["bench"]


def test_fewer_sets_need_no_other_run(done: Toy) -> None:
    """Experiments with other test sets share the features."""
    stages = [dataclasses.replace(stage, also_reads=()) for stage in done.stages]
    recipe = Recipe(stages, done.config)
    assert all(map(recipe.is_done, stages))


@pytest.mark.parametrize(
    ("section", "key", "again"),
    [
        ("train", "epochs", ["config", "train", "search", "bench"]),
        ("train", "pace", ["config", "train"]),
        ("search", "beam", ["config", "train", "search", "bench"]),
    ],
)
def test_numbers_do_not_change_without_the_stage_that_writes_them(done: Toy, section: str, key: str, again: list[str]) -> None:
    """Later stages read the config of the experiment, so they would use the old numbers."""
    old = done.config[section][key]
    done.config[section][key] = old + 1
    sentence = rf"exp has other numbers: {section}\.{key}: {old}, now {old + 1}; start with --stage 4, which changes them"
    with pytest.raises(UserError, match=sentence):
        done.run(7)
    assert done.run(2, 2) == [], "the stages before it do not use them"
    assert done.run() == again


def test_any_sequence_of_runs_ends_with_what_one_run_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: Toy) -> None:
    """What matters of all the rules, on random changes, partial runs, interruptions and lost files."""
    draw = random.Random(1)
    numbers = [(section, key) for section, values in CONFIG.items() for key in values]
    for trial in range(60):
        for _ in range(draw.randint(1, 4)):
            section, key = draw.choice(numbers)
            toy.config[section][key] = draw.randint(1, 2)
            if draw.random() < 0.2:
                draw.choice([path for stage in toy.stages for path in (*stage.makes, stage.mark)]).unlink(missing_ok=True)
            toy.failing = {draw.choice(["fbank", "train", "search", "bench"]): KeyboardInterrupt} if draw.random() < 0.3 else {}
            first = draw.choice([0, 4, 7, 10])
            with contextlib.suppress(KeyboardInterrupt, FileNotFoundError, UserError):  # an input may not be made yet
                toy.run(first, draw.choice([last for last in (2, 4, 7, 10) if last >= first]))
        toy.failing = {}
        toy.run()
        fresh = Toy(tmp_path / f"fresh{trial}", monkeypatch)
        fresh.config = toy.config
        fresh.run()
        monkeypatch.setattr("asrprune.recipe.run.run_command", toy._pretend)
        assert toy.made() == fresh.made(), trial
        assert toy.run() == []


def test_features_of_another_experiment_are_refused(done: Toy) -> None:
    done.exp, done.config["features"] = "other", {"mels": 40}
    done.run()
    done.exp, done.config["features"] = "exp", {"mels": 80}
    (done.root / "exp/plans").unlink()
    with pytest.raises(UserError, match=r"the features in .*data belong to another config .* run stage 2"):
        done.run(7)
    assert done.run() == ["fbank", "search"]
    assert (done.root / "exp/model").read_text() == "train(fbank({'mels': 80}, train text\n), 2)"


def test_data_without_marks_are_trusted(done: Toy) -> None:
    (done.root / "data/.done/2").unlink()
    (done.root / "exp/plans").unlink()
    assert done.run(7) == ["search"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_stage_does_not_look_done(error: type[BaseException], done: Toy) -> None:
    (done.root / "exp/plans").unlink()
    done.failing = {"search": error}
    with pytest.raises(error):
        done.run()
    (done.root / "exp/plans").write_text("half of them")
    done.failing = {}
    assert done.run() == ["search"]


def test_a_failing_command_ends_the_run(toy: Toy) -> None:
    toy.failing = {"config": 3}
    with pytest.raises(UserError, match=r"^stage 4 \(train\) failed \(3\); log: .*/exp/log/train.log; fix the cause"):
        toy.run()
    assert toy.ran == ["prepare", "fbank", "config"]
    assert not any("line 30" in line for line in toy.said), "it was on the screen already"
    toy.failing = {}
    assert toy.run() == ["config", "train", "search", "bench"]


def test_the_end_of_the_log_is_shown_of_a_mistake_of_ours(toy: Toy) -> None:
    toy.failing = {"train": 70}
    with pytest.raises(UserError, match="failed"):
        toy.run()
    assert toy.said[-1].splitlines() == [f"line {number}" for number in range(11, 31)]


def test_a_failure_may_be_that_of_the_previous_stage(done: Toy) -> None:
    *others, bench = done.stages
    stages = [*others, dataclasses.replace(bench, blames_previous=True)]
    for status, redone in ((137, ["bench"]), (1, ["search", "bench"])):  # 137: killed, for which nobody is to blame
        (done.root / "exp/bench").unlink()
        done.failing = {"bench": status}
        with pytest.raises(UserError, match="failed"):
            Recipe(stages, done.config, done.said.append).run(0, 11, lambda: None)
        done.failing = {}
        assert done.run() == redone
