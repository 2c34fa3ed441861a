"""Early exit: for each utterance, layers run until an exit of the model is sure enough."""

from collections.abc import Sequence

import torch
from torch import Tensor

from asrprune.data.units import BLANK
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import Emissions
from asrprune.model.masks import real_frames
from asrprune.runtime.hardware import inference


def confidence(emissions: Emissions) -> Tensor:
    """Return how sure the model is of each utterance, (B,): the mean probability of the best label where it is no blank.

    Most frames are blank with a probability near 1 at any depth, so they say nothing. An utterance of blanks alone has 0.
    """
    best, labels = emissions.log_probs.exp().max(dim=-1)  # (B, T')
    spoken = real_frames(emissions.lens, best.shape[1]) & (labels != BLANK)
    return (best * spoken).sum(dim=1) / spoken.sum(dim=1).clamp(min=1)


def run_until_sure(
    runner: Runner, features: Tensor, exits: Sequence[int], thresholds: Sequence[float]
) -> tuple[int, Emissions]:
    """Run the layers of one utterance up to the first exit that is sure enough.

    Args:
        runner: the model, its device and precision.
        features: (T, F), before normalisation.
        exits: layers, ascending.
        thresholds: the confidence, 0..1, that each exit but the last one must have.

    Returns:
        The number of layers that ran, and the emissions (1, T', V).
    """
    model, after, needed = runner.model, 0, dict(zip(exits, (*thresholds, 0.0), strict=True))
    with inference(runner.precision, runner.device):
        x, context = model.embed(features.unsqueeze(0).to(runner.device), torch.tensor([len(features)], device=runner.device))
        for layer in range(1, exits[-1] + 1):
            x, after = model.step(x, layer, context, after), layer
            if layer in needed:
                emissions = Emissions(model.head(x), context.lens)
                if float(confidence(emissions)[0]) >= needed[layer]:
                    break
    return after, emissions
