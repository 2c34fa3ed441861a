"""Is a difference between two dev scores more than chance?"""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from asrprune.prune.dev_score import CLEAR, DevScore


def scored(errors: np.ndarray | list[float]) -> DevScore:
    return DevScore(float(np.sum(errors)), 0.0, tuple(map(float, errors)))


def test_clearly_better_is_a_paired_t_statistic_above_two() -> None:
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        one, other = rng.poisson(20, size=(2, int(rng.integers(4, 30)))) + rng.integers(0, 9, size=(2, 1))
        expected = ttest_rel(other, one).statistic > CLEAR
        assert scored(one).clearly_better(scored(other)) == expected
        found.append(expected)
    assert 20 < sum(found) < 180


def test_equal_scores_and_small_gains_are_not_clear() -> None:
    assert not scored([3, 4, 5]).clearly_better(scored([3, 4, 5]))
    assert not scored([3, 4, 4]).clearly_better(scored([3, 4, 5]))
    assert scored([2, 3, 4]).clearly_better(scored([3, 4, 5]))
    assert not scored([3, 4, 5]).clearly_better(scored([2, 3, 4]))


@pytest.mark.parametrize("known", [(), (3.0,)])
def test_with_less_than_two_speakers_any_gain_counts(known: tuple[float, ...]) -> None:
    assert DevScore(3.0, 0.0, known).clearly_better(DevScore(4.0, 0.0, known))
    assert not DevScore(3.0, 0.0, known).clearly_better(DevScore(3.0, 0.0, known))


def test_speakers_do_not_order_scores() -> None:
    assert DevScore(1.0, 2.0, (9.0,)) < DevScore(1.0, 3.0, (0.0,))
    assert DevScore(1.0, 2.0, (9.0,)) == DevScore(1.0, 2.0, (0.0,))
