"""How a recipe's list describes its stages."""

from pathlib import Path

import pytest

from asrprune.recipe.stage import Stage, read_stage, read_stages
from asrprune.runtime.errors import UserError

TRAIN = ["4", "train", "training, in exp", "--in", "my exp", "--needs", "seed", "model", "--makes", "my exp/a", "--", "true"]


def test_a_stage_is_what_its_words_say() -> None:
    words = [
        *("4", "train", "training, in exp", "--in", "my exp", "--after", "3", "--repeatable", "--needs", "seed", "model"),
        *("--reads", "data/train", "--given", "--parts all", "--also-needs", "all", "--also-reads", "data/test"),
        *("--makes", "my exp/a", "my exp/b", "--shared", "features", "--on-failure-redo", "0"),
        *("--", "asrprune", "train", "--exp", "my exp", "--then", "bash", "local/x.sh"),
    ]
    assert read_stage(words) == Stage(
        number=4,
        name="train",
        purpose="training, in exp",
        home=Path("my exp"),
        commands=(("asrprune", "train", "--exp", "my exp"), ("bash", "local/x.sh")),
        after=3,
        needs=("seed", "model"),
        reads=(Path("data/train"),),
        given=("--parts all",),
        also_needs=("all",),
        also_reads=(Path("data/test"),),
        makes=(Path("my exp/a"), Path("my exp/b")),
        repeatable=True,
        shared="features",
        on_failure_redo=0,
    )


def test_what_a_stage_does_not_say_is_nothing() -> None:
    stage = read_stage(["0", "data", "data", "--in", "data", "--given", "--also-needs", "--", "true"])
    assert (stage.after, stage.given, stage.also_needs, stage.repeatable) == (None, (), (), False)


def test_a_command_may_have_words_of_a_list() -> None:
    stage = read_stage(["0", "grid", "grids", "--in", "data", "--", "asrprune", "compare", "--", "--in", "7", ""])
    assert stage.commands == (("asrprune", "compare", "--", "--in", "7", ""),)


def test_a_list_is_split_by_the_numbers_of_words() -> None:
    second = ["5", "7", "7", "--in", "7", "--after", "4", "--", "7", "7"]
    stages = read_stages([str(len(TRAIN)), *TRAIN, str(len(second)), *second])
    assert stages == [read_stage(TRAIN), read_stage(second)]
    assert stages[1].commands == (("7", "7"),)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["4", "train", "--in", "exp", "--", "true"], "write stage NUMBER NAME PURPOSE"),
        (["train", "4", "training", "--in", "exp", "--", "true"], "write stage NUMBER NAME PURPOSE"),
        (["4", "train", "training", "--", "true"], "--in DIR"),
        (["4", "train", "training", "--in", "--", "true"], "--in DIR"),
        (["4", "train", "training", "--in", "exp"], "-- COMMAND"),
        (["4", "train", "training", "--in", "exp", "--after", "5", "--", "true"], "--after 5: there is no such stage above it"),
        (["4", "train", "training", "--in", "exp", "--after", "--", "true"], "--after"),
        (["4", "train", "training", "--in", "exp", "--after", "bpe", "--", "true"], "--after"),
        (["4", "train", "training", "--in", "exp", "--", "true", "--then"], "-- COMMAND"),
    ],
)
def test_wrong_words_are_told(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_stages([str(len(words)), *words])


@pytest.mark.parametrize("words", [["train"], ["0", "x"], ["3", "4", "train"]])
def test_a_list_without_numbers_of_words_is_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="the number of its words"):
        read_stages(words)


def test_marks_and_logs_are_in_the_home_of_the_stage() -> None:
    stage = read_stage(TRAIN)
    assert stage.mark == Path("my exp/.done/4")
    assert stage.log == Path("my exp/log/train.log")
    assert str(stage) == "stage 4 (train)"
