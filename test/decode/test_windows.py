"""Long recordings in windows: every frame is covered, every label comes once, and memory does not grow."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from asrprune.config.schema import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tables import write_table
from asrprune.data.windows import WINDOWS, Windows, fitting
from asrprune.decode.greedy import GREEDY
from asrprune.decode.shards import _in_windows, hypotheses
from asrprune.decode.windows import Energy, Timing, decode_in_windows, windows
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment, load
from asrprune.features.ark import write_ark
from asrprune.features.fbank import compute_fbank
from asrprune.infer.runner import Runner
from asrprune.recognizer import Recognizer
from asrprune.scoring.edit_distance import edit_distance
from asrprune.train.average import average_best
from asrprune.transcribe.trained import TrainedModel

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


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("seconds", [3.0, 30.0])
def test_windows_end_in_pauses(factor: int, seconds: float) -> None:
    """Words of 0.3 to 0.6 s, and pauses of 0.24 s or longer, which are 40 dB quieter."""
    rng = np.random.default_rng(factor)
    timing = Timing(10.0, factor, fitting(np.array([seconds])))
    words = [part for _ in range(400) for part in ((1.0, rng.integers(30, 60)), (0.0001, rng.integers(24, 60)))]
    loudness = np.concatenate([np.full(frames, level) for level, frames in words]) * rng.uniform(0.5, 1.0)
    asked: list[int] = []

    def energy(start: int, stop: int) -> np.ndarray:
        asked.append(stop - start)
        return loudness[start:stop]

    parts = list(windows(len(loudness), timing, energy))
    assert parts[0][0] == 0
    assert parts[-1][1] == len(loudness)
    length, overlap = timing.window_frames
    assert max(asked) <= length
    for (start, stop), (following, _) in pairwise(parts):
        assert stop == following
        assert stop % factor == 0
        assert loudness[stop - 10 : stop + 10].max() < 0.001, "the middle of a pause"
        assert length // 3 <= stop - start <= length
    assert parts[-1][1] - parts[-1][0] >= overlap, "long enough for the model"


@pytest.mark.parametrize("reader", ["transcribe", "decode"])
def test_a_recording_is_cut_in_its_pauses(experiment: Experiment, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bursts of noise of 1 s, and 0.4 s of soft noise after each. Samples and features show the same pauses."""
    rng = np.random.default_rng(0)
    long = Windows(one_piece_s=5.0, window_s=4.0, overlap_s=1.0, pause_db=20.0)
    own = replace(experiment, record=experiment.record.model_copy(update={"windows": long}))
    samples = np.concatenate([rng.normal(0.0, level, size) for _ in range(20) for level, size in ((0.1, 16000), (0.001, 6400))])
    samples = samples.astype(np.float32)
    parts: list[tuple[int, int]] = []

    def kept(frames: int, timing: Timing, energy: Energy | None = None) -> Iterator[tuple[int, int]]:
        parts.extend(windows(frames, timing, energy))
        return iter(parts)

    monkeypatch.setattr("asrprune.decode.windows.windows", kept)
    if reader == "transcribe":
        model = TrainedModel(own)
        Recognizer(model, GREEDY).transcribe(samples)
    else:
        features = torch.from_numpy(compute_fbank(samples, own.config.frontend))
        _in_windows(Runner.of(own), Timing.of(own), features, [KEEP], GREEDY)
    assert len(parts) > 6
    for (_, stop), (start, _) in pairwise(parts):
        assert stop == start
        assert 108 <= stop % 140 <= 132, "10 frames of a pause on each side"


def test_the_last_window_is_long_enough_for_the_model() -> None:
    """A pause at 29.88 s ends the window of 30 s, unless the recording ends soon afterwards."""
    timing = Timing(10.0, 4, WINDOWS.model_copy(update={"one_piece_s": 30.0}))
    length, overlap = timing.window_frames
    loudness = np.ones(2 * length)
    loudness[2978:2998] = 0.0
    for frames, second in ((length + overlap, 2988), (length + overlap // 2, length - overlap)):
        assert list(windows(frames, timing, lambda start, stop: loudness[start:stop]))[1] == (second, frames)


def test_windows_shorter_than_a_pause_overlap() -> None:
    """A file of a stranger may say so."""
    timing = Timing(10.0, 4, Windows(one_piece_s=0.1, window_s=0.16, overlap_s=0.08, pause_db=20.0))
    parts = list(windows(40, timing, lambda start, stop: np.zeros(stop - start)))
    assert parts == [(0, 16), (8, 24), (16, 32), (24, 40)]


def test_without_pauses_windows_overlap() -> None:
    rng = np.random.default_rng(0)
    loudness = rng.uniform(0.1, 1.0, size=10_000)
    loudness[::7] = 0.0  # too short for a pause
    for pause_db in (20.0, None):
        loudness[5000:6000] = 0.5 if pause_db else 0.0  # a model of an earlier version looks for no pauses
        timing = Timing(10.0, 4, WINDOWS.model_copy(update={"pause_db": pause_db}))
        parts = list(windows(len(loudness), timing, lambda start, stop: loudness[start:stop]))
        assert parts == list(windows(len(loudness), timing))
        assert all(stop - start == 400 for (_, stop), (start, _) in pairwise(parts))


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
    for lengths_s, numbers in (
        ([2.0] * 98 + [3.0, 5.0], (5.0, 2.0, 0.67)),
        ([0.5, 0.6], (2.0, 2.0, 0.67)),
        ([12.0, 20.0], (20.0, 19.6, 4.0)),
    ):
        one_piece_s, window_s, overlap_s = numbers
        fit = Windows(one_piece_s=one_piece_s, window_s=window_s, overlap_s=overlap_s, pause_db=WINDOWS.pause_db)
        assert fitting(np.array(lengths_s)) == fit
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
