"""What stages depend on."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from asrprune.recipe.needs import contents_of, numbers_of, recordings_of
from asrprune.runtime.errors import UserError

CONFIG: dict[str, Any] = {
    "seed": 1,
    "seeds": 2,
    "model": {"dim": 8, "dims": 9, "taps": [1, 2], "truncated": {}, "subsampling": {"type": "conv2d", "factor": 4}},
}


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        ([], {}),
        (["seed"], {"seed": 1}),
        (["model.dim", "seed"], {"model.dim": 8, "seed": 1}),
        (["model.subsampling"], {"model.subsampling.type": "conv2d", "model.subsampling.factor": 4}),
        (["model.taps"], {"model.taps": [1, 2]}),
    ],
)
def test_names_stand_for_sections_and_numbers(names: list[str], numbers: dict[str, Any]) -> None:
    assert numbers_of(names, CONFIG) == numbers


def test_all_stands_for_the_whole_config() -> None:
    assert list(numbers_of(["all"], CONFIG)) == [
        *("seed", "seeds", "model.dim", "model.dims", "model.taps", "model.subsampling.type", "model.subsampling.factor")
    ]


@pytest.mark.parametrize("name", ["sed", "model.di", "model.dim.x", ""])
def test_an_unknown_name_is_told(name: str) -> None:
    with pytest.raises(UserError, match="no such section or number"):
        numbers_of(["seed", name], CONFIG)


def test_a_value_without_set_is_told() -> None:
    with pytest.raises(UserError, match="seed=2: is the name of no number; to change a number, write --set seed=2"):
        numbers_of(["seed=2"], CONFIG)


@pytest.mark.parametrize("entry", ["{}", "cat {} |"])
def test_a_replaced_recording_is_noticed(tmp_path: Path, entry: str) -> None:
    recording = tmp_path / "a.wav"
    recording.write_bytes(b"one")
    (tmp_path / "wav.scp").write_text(f"a {entry.format(recording)}\n")
    before = recordings_of([tmp_path])
    assert recordings_of([tmp_path]) == before
    os.utime(recording, ns=(0, 0))
    assert recordings_of([tmp_path]) != before


def test_contents_are_those_of_files_and_of_tables(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local/data.sh").write_text("echo")
    for name in ("train", "test"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data/train/text").write_text("a one")
    (tmp_path / "data/train/utt2speed").write_text("a 1.1")
    (tmp_path / "data/train/feats.scp").write_text("made from the others")
    found = contents_of([tmp_path / "local/data.sh", tmp_path / "data/train", tmp_path / "data/test"])
    tables = ("wav.scp", "segments", "text", "utt2spk")
    assert found == {
        "local/data.sh": hashlib.sha256(b"echo").hexdigest(),
        **{f"{name}/{table}": None for name in ("train", "test") for table in tables},
        "train/text": hashlib.sha256(b"a one").hexdigest(),
        "train/utt2speed": hashlib.sha256(b"a 1.1").hexdigest(),
    }
