"""Stochastic depth: its formulas, its draws, and that it keeps the expected value of what a layer adds."""

import pytest
import torch

from asrprune.config.schema import ModelConfig
from asrprune.model.encoder import Encoder
from asrprune.model.stochastic_depth import branch_scales, draw_depth, draw_layers, drop_probabilities
from asrprune.runtime.seeds import mix

STEPS = 4000


@pytest.fixture(scope="module")
def draws() -> torch.Tensor:
    """(STEPS, 6) of 0 and 1: which layers ran, at the linear probabilities 0.1 to 0.6."""
    probabilities = drop_probabilities(6, 0.6, "linear")
    ran = torch.zeros(STEPS, 6)
    for step in range(STEPS):
        ran[step, [layer - 1 for layer in draw_layers(probabilities, 7, step)]] = 1.0
    return ran


def test_linear_probabilities_grow_to_the_rate() -> None:
    assert drop_probabilities(24, 0.3, "linear") == pytest.approx([0.3 * layer / 24 for layer in range(1, 25)])
    assert 24 - sum(drop_probabilities(24, 0.3, "linear")) == pytest.approx(20.25)


def test_uniform_probabilities_are_the_rate() -> None:
    assert drop_probabilities(5, 0.2, "uniform") == [0.2] * 5


def test_scale_is_the_inverse_of_the_probability_to_run() -> None:
    assert branch_scales([0.0, 0.2, 0.5]) == pytest.approx([1.0, 1.25, 2.0])


def test_draws_depend_on_seed_and_step_alone() -> None:
    probabilities = [0.5] * 64
    torch.manual_seed(1)
    first = draw_layers(probabilities, 3, 10)
    torch.manual_seed(2)
    assert draw_layers(probabilities, 3, 10) == first
    assert draw_layers(probabilities, 3, 11) != first
    assert draw_layers(probabilities, 4, 10) != first


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_hundred_updates_end_at_each_depth_in_its_share(seed: int) -> None:
    shares = {2: 0.25, 4: 0.15, 9: 0.2}
    for start in (1, 977, 31_000):
        depths = [draw_depth(shares, 12, seed, step) for step in range(start, start + 100)]
        counts = [depths.count(depth) for depth in (2, 4, 9, 12)]
        assert counts == pytest.approx([25, 15, 20, 40], abs=3)
        assert sum(counts) == 100


def test_depths_depend_on_the_seed() -> None:
    first, second = ([draw_depth({2: 0.5}, 4, seed, step) for step in range(40)] for seed in (1, 2))
    assert first != second
    assert [draw_depth({}, 4, 1, step) for step in range(40)] == [4] * 40, "no shares: all layers"


def test_drawing_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    draw_layers([0.5] * 4, 1, 1)
    assert torch.equal(torch.rand(3), expected)


def test_layers_are_ascending_and_count_from_1() -> None:
    assert draw_layers([0.0] * 4, 1, 1) == [1, 2, 3, 4]
    assert draw_layers([0.0, 1.0, 0.0], 1, 1) == [1, 3]


def test_frequencies_are_the_probabilities(draws: torch.Tensor) -> None:
    deviation = (0.25 / STEPS) ** 0.5
    expected = 1.0 - torch.tensor(drop_probabilities(6, 0.6, "linear"))
    torch.testing.assert_close(draws.mean(0), expected, atol=4 * deviation, rtol=0.0)


def test_layers_and_neighbouring_steps_are_drawn_independently(draws: torch.Tensor) -> None:
    layers = torch.corrcoef(draws.T)
    steps = torch.corrcoef(torch.cat([draws[1:].T, draws[:-1].T]))
    limit = 4 * STEPS**-0.5
    assert (layers - torch.eye(6)).abs().max() < limit
    assert (steps - torch.eye(12)).abs().max() < limit


def test_a_layer_adds_on_average_what_it_adds_without_stochastic_depth() -> None:
    """With the feed-forward branch silenced the layer is linear in its scale, so only the number of draws limits the mean."""
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(num_layers=1, dim=8, heads=2, ffn=8, dropout=0.0, taps=()), 20)
    torch.nn.init.zeros_(encoder.layers[0].contract.weight)
    torch.nn.init.zeros_(encoder.layers[0].contract.bias)
    x, context = torch.randn(1, 5, 8), encoder.context(torch.tensor([5]), 5)
    probabilities = drop_probabilities(1, 0.3, "linear")
    scales = branch_scales(probabilities)
    with torch.inference_mode():
        added = encoder.eval().run(x, context).x - x
        steps = [encoder.run(x, context, draw_layers(probabilities, 1, step), scales=scales).x - x for step in range(1000)]
    deviation = (0.3 / 0.7 / 1000) ** 0.5
    torch.testing.assert_close(torch.stack(steps).mean(0), added, atol=0.0, rtol=4 * deviation)


def test_mixed_seeds_are_different_and_fit_torch() -> None:
    seeds = {mix(a, b) for a in range(60) for b in range(60)}
    assert len(seeds) == 3600
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix(1, 2) != mix(1, 2, 1)
