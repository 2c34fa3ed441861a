"""The optimiser, and the learning rate as a function of the update."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from asrprune.config.schema import CosineConfig, ScheduleConfig, TrainConfig


def learning_rate(step: int, total_steps: int, schedule: ScheduleConfig) -> float:
    """Return the learning rate of update ``step`` = 1, 2, ... of ``total_steps``.

    noam: rises linearly to ``peak`` at ``warmup_steps``, then falls with 1 / sqrt(step) ("Attention is all you need",
    equation 3, scaled so that its highest value is ``peak``). cosine: the same rise, then half a cosine down to ``final``.
    """
    if step <= schedule.warmup_steps:
        return schedule.peak * step / schedule.warmup_steps
    if isinstance(schedule, CosineConfig):
        done = (step - schedule.warmup_steps) / max(1, total_steps - schedule.warmup_steps)
        return schedule.final + (schedule.peak - schedule.final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return schedule.peak * math.sqrt(schedule.warmup_steps / step)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make AdamW, without weight decay on biases and norms."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups: Iterable[dict[str, object]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` in the next update."""
    for group in optimizer.param_groups:
        group["lr"] = rate
