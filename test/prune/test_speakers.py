"""Utterances belong to speakers; copies at another speed do not make new ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from asrprune.data.dataset import Corpus
from asrprune.prune.speakers import speakers_of


@pytest.fixture
def corpus(tiny_data: Path, tmp_path: Path) -> Corpus:
    return Corpus(Path(shutil.copytree(tiny_data / "dev", tmp_path / "dev")), None)


def spoken_by(corpus: Corpus, names: list[str], ids: list[str] | None = None) -> None:
    rows = zip(ids or list(corpus.ids), names, strict=True)
    (corpus.directory / "utt2spk").write_text("".join(f"{key} {name}\n" for key, name in rows))


def test_utterances_of_a_speaker_have_one_number(corpus: Corpus) -> None:
    names = [("ann", "bob", "eve")[place * 3 // len(corpus)] for place in range(len(corpus))]
    spoken_by(corpus, names)
    assert speakers_of(corpus).tolist() == [("ann", "bob", "eve").index(name) for name in names]


def test_a_copy_at_another_speed_has_the_same_speaker(corpus: Corpus) -> None:
    names = ["ann", *["sp0.9-ann"] * (len(corpus) - 4), "sp1.1-spy", "spy", "asp1-nn"]
    spoken_by(corpus, names)
    assert speakers_of(corpus).tolist() == [0] * (len(corpus) - 3) + [2, 2, 1]


@pytest.mark.parametrize("fault", ["one speaker", "no file", "another utterance"])
def test_without_speakers_each_utterance_is_one(corpus: Corpus, fault: str) -> None:
    if fault == "no file":
        (corpus.directory / "utt2spk").unlink(missing_ok=True)
    else:
        ids = list(corpus.ids) if fault == "one speaker" else [*list(corpus.ids)[1:], "zzz"]
        spoken_by(corpus, ["ann"] * len(corpus) if fault == "one speaker" else list(corpus.ids), ids)
    assert np.array_equal(speakers_of(corpus), np.arange(len(corpus)))
