"""Long recordings in windows: every frame is covered, every label comes once, and memory does not grow."""

import weakref
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from asrprune.config.schema import Config
from asrprune.decode.greedy import GREEDY
from asrprune.decode.windows import decode_in_windows, windows
from asrprune.experiment.plan import Keep

KEEP = (1, 2)


def config_of(factor: int, shift_ms: float = 10.0) -> Config:
    return Config.model_validate(
        {"model": {"subsampling": {"factor": factor}}, "frontend": {"frame_shift_ms": shift_ms, "frame_length_ms": 25.0}}
    )


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("shift_ms", [10.0, 12.5])
def test_windows_cover_a_recording_and_overlap_by_four_seconds(factor: int, shift_ms: float) -> None:
    config = config_of(factor, shift_ms)
    second = int(1000 / shift_ms)
    for frames in (0, 1, 60 * second):
        assert list(windows(frames, config)) == [(0, frames)]
    for frames in (60 * second + 1, 61 * second + 7, 86 * second, 3601 * second):
        parts = list(windows(frames, config))
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


def emissions(truth: list[tuple[int, int]], begin: int, frames: int, last: bool, rng: np.random.Generator) -> Tensor:
    """(T', 3) log-probabilities of a window: each label a frame early or late, and nonsense where the window cuts speech."""
    probs = torch.full((frames, 3), 0.01)
    probs[:, 0] = 0.98
    for place, label in truth:
        at = place - begin + int(rng.integers(-1, 2))
        if 0 <= at < frames:
            probs[at] = torch.tensor([0.05, 0.05, 0.05])
            probs[at, label] = 0.9
    for edge in (slice(0, 12 if begin else 0), slice(frames if last else frames - 12, frames)):
        probs[edge] = torch.from_numpy(rng.dirichlet((1.0, 1.0, 1.0), size=len(probs[edge]))).float()
    return probs.log()


@pytest.mark.parametrize("seed", range(5))
def test_no_label_is_lost_or_doubled(seed: int) -> None:
    rng, config, seconds = np.random.default_rng(seed), config_of(4), 600
    truth = spoken(25 * seconds - 40, rng)

    def emit(start: int, stop: int) -> Iterator[tuple[Keep, Tensor]]:
        yield KEEP, emissions(truth, start // 4, (stop - start + 1) // 4 - 1, stop == 100 * seconds, rng)

    found = decode_in_windows(100 * seconds, config, GREEDY, emit)[KEEP]
    assert found.labels == [label for _, label in truth]
    assert max(abs(first - place) for first, (place, _) in zip(found.first, truth, strict=True)) <= 1
    assert found.first == found.last == sorted(found.first)
    assert found.confidences == pytest.approx([0.9] * len(truth))


def test_two_windows_at_a_time_are_in_memory() -> None:
    alive, most = set[int](), 0

    def emit(start: int, stop: int) -> Iterator[tuple[Keep, Tensor]]:
        nonlocal most
        memory = np.zeros(((stop - start + 1) // 4 - 1, 3), dtype=np.float32)  # freed with the last tensor that uses it
        alive.add(start)
        weakref.finalize(memory, alive.discard, start)
        most = max(most, len(alive))
        yield KEEP, torch.from_numpy(memory)

    decode_in_windows(360_000, config_of(4), GREEDY, emit)
    assert most == 2
