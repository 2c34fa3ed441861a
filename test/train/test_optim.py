"""Learning rates against their formulas, and what the optimiser decays."""

import math

import pytest
import torch
from torch import nn

from asrprune.config.schema import CosineConfig, ModelConfig, NoamConfig, TrainConfig
from asrprune.model.ctc_model import CtcModel
from asrprune.train.optim import learning_rate, make_optimizer, set_learning_rate

NOAM = NoamConfig(peak=1.19e-3, warmup_steps=25000)
COSINE = CosineConfig(peak=2e-3, warmup_steps=10, final=1e-4)


@pytest.mark.parametrize("step", [1, 100, 24999, 25000, 25001, 400000])
def test_noam_is_the_papers_formula(step: int) -> None:
    """factor * D^-0.5 * min(step^-0.5, step * warmup^-1.5), here with factor 3 and D 256, peaks at 3 / 16 / sqrt(25000)."""
    peak = 3 * 256**-0.5 * 25000**-0.5
    assert peak == pytest.approx(1.19e-3, rel=5e-3)
    expected = 3 * 256**-0.5 * min(step**-0.5, step * 25000**-1.5)
    assert learning_rate(step, 10**6, NOAM.model_copy(update={"peak": peak})) == pytest.approx(expected)


def test_warm_up_is_linear_and_meets_the_rest() -> None:
    for schedule in (NOAM.model_copy(update={"warmup_steps": 10}), COSINE):
        rates = [learning_rate(step, 100, schedule) for step in range(1, 12)]
        assert rates[:10] == pytest.approx([schedule.peak * step / 10 for step in range(1, 11)])
        assert schedule.peak * 0.9 < rates[10] < schedule.peak


def test_cosine_is_half_a_period_down_to_the_final_rate() -> None:
    for step in (11, 30, 55, 99):
        expected = 1e-4 + (2e-3 - 1e-4) * (1 + math.cos(math.pi * (step - 10) / 90)) / 2
        assert learning_rate(step, 100, COSINE) == pytest.approx(expected)
    assert learning_rate(55, 100, COSINE) == pytest.approx((2e-3 + 1e-4) / 2)
    assert learning_rate(100, 100, COSINE) == pytest.approx(1e-4)


def test_cosine_stays_at_the_final_rate_when_the_warm_up_is_longer_than_the_run() -> None:
    assert learning_rate(5, 5, COSINE) == pytest.approx(1e-3)
    assert learning_rate(11, 5, COSINE) == learning_rate(12, 5, COSINE) == pytest.approx(1e-4)


def test_matrices_are_decayed_and_biases_and_norms_are_not() -> None:
    model = CtcModel(ModelConfig(num_layers=2, dim=8, heads=2, ffn=8, self_conditioning=True), 20, 5)
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.1, betas=(0.8, 0.9), eps=1e-7))
    decay = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert decay[parameter] == (0.0 if "norm" in name or name.endswith("bias") else 0.1), name
    assert all(group["betas"] == (0.8, 0.9) and group["eps"] == 1e-7 for group in optimizer.param_groups)


def test_update_is_adam_at_the_rate_that_was_set() -> None:
    model, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    ours = make_optimizer(model, TrainConfig())
    adam = torch.optim.Adam(twin.parameters(), lr=0.01, betas=(0.9, 0.98), eps=1e-9)
    set_learning_rate(ours, 0.01)
    for step in range(3):
        for module, optimizer in ((model, ours), (twin, adam)):
            optimizer.zero_grad()
            module(torch.full((1, 3), step + 1.0)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(model.weight, twin.weight)
    torch.testing.assert_close(model.bias, twin.bias)
