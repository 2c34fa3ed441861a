"""Influence: the plain formula, frame by frame."""

import math

import numpy as np
import pytest

from asrprune.analysis.influence import influence


def by_definition(before: np.ndarray, after: np.ndarray) -> float:
    cosines = []
    for x, y in zip(before.tolist(), after.tolist(), strict=True):
        dot = math.fsum(a * b for a, b in zip(x, y, strict=True))
        cosines.append(dot / (math.hypot(*x) * math.hypot(*y)))
    return 1.0 - math.fsum(cosines) / len(cosines)


def test_it_is_the_formula() -> None:
    steps = np.random.default_rng(1).normal(size=(5, 100, 16)) * np.array([9.0, 1.0, 0.5, 3.0, 2.0])[:, None, None]
    streams = list(steps.cumsum(axis=0).astype(np.float32))
    found = influence(streams)
    assert found.shape == (4,)
    assert found == pytest.approx([by_definition(streams[layer - 1], streams[layer]) for layer in range(1, 5)], abs=1e-12)
    assert len({round(value, 6) for value in found}) == 4, "the layers differ, so that equality says something"


def test_by_hand() -> None:
    x = np.array([[3.0, 4.0], [1.0, 0.0]], dtype=np.float32)
    turned = np.array([[-4.0, 3.0], [0.0, 2.0]], dtype=np.float32)
    half = np.array([[-4.0, 3.0], [0.0, -1.0]], dtype=np.float32)
    assert influence([x, 7 * x, turned, -turned, half]) == pytest.approx([0.0, 1.0, 2.0, 1.0])


def test_a_frame_of_zeros_is_like_nothing() -> None:
    x = np.array([[0.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    assert influence([x, x]) == pytest.approx([0.5])
