"""Early exit gives what the sub-model of the layers that ran gives."""

import math

import pytest
import torch
from torch import Tensor

from asrprune.config.schema import ModelConfig
from asrprune.infer.early_exit import confidence, run_until_sure
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import CtcModel, Emissions

EXITS = (1, 3, 4)


@pytest.fixture(scope="module", params=[False, True])
def runner(request: pytest.FixtureRequest) -> Runner:
    torch.manual_seed(0)
    options = {"num_layers": 4, "dim": 16, "heads": 2, "ffn": 32, "subsampling": {"channels": 4}, "taps": [1, 3]}
    config = ModelConfig.model_validate({**options, "self_conditioning": request.param})
    return Runner(CtcModel(config, 80, 7), torch.device("cpu"), "float32")


def emissions_of(runner: Runner, features: Tensor, depth: int) -> Emissions:
    ((_, made),) = runner.emissions(features.unsqueeze(0), torch.tensor([len(features)]), [tuple(range(1, depth + 1))])
    return made


@pytest.mark.parametrize(("place", "depth"), [(0, 1), (1, 3), (2, 4)])
def test_the_first_exit_that_is_sure_enough_ends_it(runner: Runner, place: int, depth: int) -> None:
    features = torch.randn(60, 80, generator=torch.Generator().manual_seed(3))
    sure = [float(confidence(emissions_of(runner, features, exit))[0]) for exit in EXITS]
    threshold = max(sure) + 1.0 if place == 2 else sure[place]
    expected = next((exit for exit, value in zip(EXITS, sure, strict=True) if value >= threshold), EXITS[-1])
    layers, made = run_until_sure(runner, features, EXITS, [threshold, threshold])
    assert layers == expected
    torch.testing.assert_close(made.log_probs, emissions_of(runner, features, layers).log_probs)
    assert place != 2 or layers == depth


def test_confidence_counts_real_frames_with_a_label() -> None:
    probabilities = torch.tensor(
        [
            [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6], [0.0, 0.0, 1.0]],
            [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]],
        ]
    )
    made = Emissions(probabilities.clamp(min=1e-9).log(), torch.tensor([3, 2]))
    first, second = confidence(made).tolist()
    assert math.isclose(first, (0.7 + 0.6) / 2, rel_tol=1e-5)  # the fourth frame is padding
    assert second == 0.0  # blanks only
