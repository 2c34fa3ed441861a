"""The margin; power and numbers of seeds against simulation and the textbook's formula."""

from math import ceil

import numpy as np
import pytest
from scipy import stats

from asrprune.compare.hierarchical import SeedSpread, Spread
from asrprune.compare.noninferiority import margin, power, seeds_for


@pytest.mark.parametrize(("alone", "expected"), [(2.4, 0.24), (5.0, 0.5), (8.3, 0.5), (100.0, 0.5), (0.0, 0.0)])
def test_the_margin_is_half_a_point_or_a_tenth(alone: float, expected: float) -> None:
    assert margin(alone) == pytest.approx(expected)


def test_power_is_how_often_the_bound_of_simulated_seeds_passes() -> None:
    rng, seeds, deviation, limit = np.random.default_rng(1), 8, 0.4, 0.5
    drawn = rng.normal(0, deviation, size=(20000, seeds))
    bounds = drawn.mean(1) + stats.t.ppf(0.95, seeds - 1) * stats.sem(drawn, axis=1)
    found = power(Spread(1000, 0.0, (SeedSpread(seeds, deviation**2 / seeds, 0.0),)), limit)
    assert found == pytest.approx(np.mean(bounds < limit), abs=0.03)


def test_seeds_for_a_power_are_those_of_the_textbook_where_the_normal_distribution_holds() -> None:
    spread = Spread(10**6, 0.0, (SeedSpread(4, 1.0**2 / 4, 0.0),))
    textbook = ceil(((stats.norm.ppf(0.95) + stats.norm.ppf(0.9)) * 1.0 / 0.4) ** 2)
    assert textbook == 54
    assert textbook <= seeds_for(0.9, spread, 0.4) <= textbook + 2  # Student's quantile asks for a little more
    assert seeds_for(0.8, spread, 0.4) < seeds_for(0.9, spread, 0.4)


def test_what_no_number_of_seeds_mends_and_what_is_not_known() -> None:
    assert seeds_for(0.8, Spread(100, 1.0, (SeedSpread(2, 0.1, 0.0),)), 0.5) is None
    assert seeds_for(0.8, Spread(100, 0.001, (SeedSpread(1, 0.0, 0.0),)), 0.5) is None
    assert power(Spread(100, 0.0, (SeedSpread(2, 0.0, 0.0),)), 0.5) == 1.0


def test_with_the_margin_at_the_bound_of_no_difference_power_is_one_half() -> None:
    spread = Spread(501, 0.04, (SeedSpread(1, 0.0, 0.0),))
    assert power(spread, 0.2 * stats.t.ppf(0.95, 500)) == pytest.approx(0.5, abs=1e-3)
