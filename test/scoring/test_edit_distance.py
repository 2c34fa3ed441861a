"""The edit distance against the other library."""

import numpy as np
from rapidfuzz.distance import Levenshtein

from asrprune.scoring.edit_distance import edit_distance


def test_both_libraries_count_the_same() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        first, second = ([*map(str, rng.integers(4, size=rng.integers(12)))] for _ in range(2))
        assert edit_distance(first, second) == Levenshtein.distance(first, second)
    assert edit_distance([], []) == 0
    assert edit_distance(["no"], ["on"]) == 1, "words count, not letters"
