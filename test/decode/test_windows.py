"""Long recordings in windows: every frame is covered, every label comes once, and memory does not grow."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from asrprune.config.schema import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tables import write_table
from asrprune.data.windows import WINDOWS, fitting
from asrprune.decode.greedy import GREEDY
from asrprune.decode.shards import hypotheses
from asrprune.decode.windows import Timing, decode_in_windows, windows
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import load
from asrprune.features.ark import write_ark
from asrprune.scoring.edit_distance import edit_distance
from asrprune.train.average import average_best

KEEP = (1, 2)


def timing_of(factor: int, shift_ms: float = 10.0) -> Timing:
    return Timing(shift_ms, factor, WINDOWS)


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("shift_ms", [10.0, 12.5])
def test_windows_cover_a_recording_and_overlap_by_four_seconds(factor: int, shift_ms: float) -> None:
    timing = timing_of(factor, shift_ms)
    second = int(1000 / shift_ms)
    for frames in (0, 1, 60 * second):
        assert list(windows(frames, timing)) == [(0, frames)]
    for frames in (60 * second + 1, 61 * second + 7, 86 * second, 3601 * second):
        parts = list(windows(frames, timing))
        assert parts[0][0] == 0
        assert parts[-1][1] == frames
        assert all(start % factor == 0 for start, _ in parts)
        assert all(stop - start <= 30 * second for start, stop in parts)
        for (_, stop), (start, _) in pairwise(parts):
            assert 3.9 * second < stop - start <= 4 * second


def spoken(frames: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(encoder frame, label) of a recording; labels are 4 to 60 frames apart, and often equal."""
    places = np.cumsum(rng.integers(4, 60, size=frames))
    return [(int(place), int(rng.integers(1, 3))) for place in places[places < frames - 5]]


def emissions(truth: list[tuple[int, int]], begin: int, frames: int, last: bool, rng: np.random.Generator) -> np.ndarray:
    """(T', 3) log-probabilities of a window: each label a frame early or late, and nonsense where the window cuts speech."""
    probs = np.full((frames, 3), 0.01, dtype=np.float32)
    probs[:, 0] = 0.98
    for place, label in truth:
        at = place - begin + int(rng.integers(-1, 2))
        if 0 <= at < frames:
            probs[at] = 0.05
            probs[at, label] = 0.9
    for edge in (slice(0, 12 if begin else 0), slice(frames if last else frames - 12, frames)):
        probs[edge] = rng.dirichlet((1.0, 1.0, 1.0), size=len(probs[edge]))
    return np.log(probs)


@pytest.mark.parametrize("seed", range(5))
def test_no_label_is_lost_or_doubled(seed: int) -> None:
    rng, seconds = np.random.default_rng(seed), 600
    truth = spoken(25 * seconds - 40, rng)

    def emit(start: int, stop: int) -> Iterator[tuple[Keep, np.ndarray]]:
        yield KEEP, emissions(truth, start // 4, (stop - start + 1) // 4 - 1, stop == 100 * seconds, rng)

    found = decode_in_windows(100 * seconds, timing_of(4), GREEDY, emit)[KEEP]
    assert found.labels == [label for _, label in truth]
    assert max(abs(first - place) for first, (place, _) in zip(found.first, truth, strict=True)) <= 1
    assert found.first == found.last == sorted(found.first)
    assert found.confidences == pytest.approx([0.9] * len(truth))


def test_two_windows_at_a_time_are_in_memory() -> None:
    alive, most = set[int](), 0

    def emit(start: int, stop: int) -> Iterator[tuple[Keep, np.ndarray]]:
        nonlocal most
        memory = np.zeros(((stop - start + 1) // 4 - 1, 3), dtype=np.float32)  # freed with the last array that uses it
        alive.add(start)
        weakref.finalize(memory, alive.discard, start)
        most = max(most, len(alive))
        yield KEEP, memory[:]

    decode_in_windows(360_000, timing_of(4), GREEDY, emit)
    assert most == 2


def test_windows_are_as_long_as_the_utterances_of_the_training() -> None:
    """Nearly all of them; attention's memory sets the upper bound."""
    assert fitting(np.array([2.0] * 98 + [3.0, 5.0])).plain() == {"one_piece_s": 5.0, "window_s": 2.0, "overlap_s": 0.67}
    assert fitting(np.array([0.5, 0.6])).plain() == {"one_piece_s": 2.0, "window_s": 2.0, "overlap_s": 0.67}
    assert fitting(np.array([12.0, 20.0])).plain() == {"one_piece_s": 20.0, "window_s": 19.6, "overlap_s": 4.0}
    assert fitting(np.array([90.0, 90.0])) == WINDOWS


@pytest.mark.slow
def test_a_trained_model_says_in_windows_what_it_says_in_one_piece(
    tiny_config_with: Callable[..., Config],
    tiny_data: Path,
    run_training: Callable[[Config, Path], None],
    tmp_path: Path,
) -> None:
    """Two minutes of speech, in an order that was not trained; the model knows the words."""
    numbers = (
        "train.epochs=20 train.schedule.peak=5e-3 train.keep_best=1 train.average=1 train.dev_every_epochs=20 prune.depths=[2]"
        " model.layer=conformer model.num_layers=2 model.dim=32 model.taps=[] model.dropout=0 model.stochastic_depth.rate=0"
        " model.subsampling=conv1d"
    )
    run_training(tiny_config_with(*numbers.split()), tmp_path / "exp")
    average_best(tmp_path / "exp")
    model, corpus = load(tmp_path / "exp"), Corpus(tiny_data / "train", None)
    assert model.record.windows == fitting(corpus.lengths / 100), "those of the training"
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(len(corpus)) for _ in range(8)])
    features = np.concatenate([corpus[index][1] for index in order])
    assert len(features) > 12_000
    ark = tmp_path / "long.ark"
    write_table(tmp_path / "feats.scp", write_ark(ark, ark, [("x", features)]))
    write_table(tmp_path / "utt2num_frames", {"x": str(len(features))})
    texts = []
    for one_piece_s in (60.0, 1e9):
        numbers = WINDOWS.model_copy(update={"one_piece_s": one_piece_s})
        model = replace(model, record=model.record.model_copy(update={"windows": numbers}))
        texts.append(hypotheses(model, Corpus(tmp_path, None), [KEEP], [np.array([0])])[KEEP]["x"].split())
    assert len(texts[0]) > 150
    assert edit_distance(*texts) <= 0.03 * len(texts[1]), "a word that the model is not sure of may differ"
