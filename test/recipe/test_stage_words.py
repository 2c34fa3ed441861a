"""How a recipe's list describes its stages."""

from pathlib import Path

import pytest

from asrprune.recipe.stage import Dependencies, Stage, read_stages
from asrprune.runtime.errors import UserError

DATA = Dependencies(Path("data"), follows=False, editable=True)
TRAIN = Dependencies(Path("my exp"), needs=("seed", "model"), makes=(Path("my exp/a"),), repeatable=True)
KNOWN = {"data": DATA, "train": TRAIN}
FIRST = ["stage", "1", "data", "data in data", "--parts all"]


def _words(*entries: list[str]) -> list[str]:
    return [word for entry in entries for word in (str(len(entry) - 1), *entry)]


def test_a_stage_is_what_its_words_and_its_dependencies_say() -> None:
    commands = ["run", "bash", "local/x.sh"], ["run", "asrprune", "train", "--exp", "my exp", "", "7", "stage", "run"]
    stages = read_stages(_words(FIRST, ["stage", "4", "train", "training, in exp"], *commands), KNOWN)
    assert stages == [
        Stage(
            Path("data"), follows=False, editable=True, number=1, name="data", purpose="data in data", given=("--parts all",)
        ),
        Stage(
            home=Path("my exp"),
            needs=("seed", "model"),
            makes=(Path("my exp/a"),),
            repeatable=True,
            number=4,
            name="train",
            purpose="training, in exp",
            commands=(("bash", "local/x.sh"), ("asrprune", "train", "--exp", "my exp", "", "7", "stage", "run")),
        ),
    ]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([["stage", "4", "train"]], "write stage NUMBER NAME PURPOSE"),
        ([["stage", "train", "4", "training"]], "write stage NUMBER NAME PURPOSE"),
        ([FIRST, ["stage", "4", "trian", "training"]], "trian: has no dependencies in .*; did you mean train?"),
        ([["stage", "4", "train", "training"]], r"stage 4 \(train\): must not be the first stage"),
        ([["run", "true"]], "run true: write run COMMAND below its stage"),
        ([FIRST, ["run"]], "write run COMMAND"),
        ([FIRST, ["then", "true"]], "then true: write run COMMAND"),
    ],
)
def test_wrong_words_are_told(entries: list[list[str]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_stages(_words(*entries), KNOWN)


@pytest.mark.parametrize("words", [["stage"], ["1", "x"], ["3", "stage", "4", "train"]])
def test_a_list_without_numbers_of_words_is_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="the number of its words"):
        read_stages(words, KNOWN)


def test_marks_and_logs_are_in_the_home_of_the_stage() -> None:
    stage = Stage(Path("my exp"), number=4, name="train", purpose="training")
    assert stage.mark == Path("my exp/.done/4")
    assert stage.log == Path("my exp/log/train.log")
    assert str(stage) == "stage 4 (train)"
