"""Greedy CTC decoding, vectorised over the batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from asrprune.model.ctc_model import BLANK


@dataclass(frozen=True)
class BestPath:
    """The best path of one utterance, blanks and repetitions removed."""

    labels: list[int]
    first: list[int]  # encoder frame at which each label begins
    last: list[int]  # and the last frame on which it is held


def greedy(log_probs: Tensor, lens: Tensor) -> list[list[int]]:
    """The most probable label of every frame, repetitions merged, blanks removed.

    Args:
        log_probs: (B, T', V).
        lens: (B,) real frames; an utterance of 0 frames gives no label.

    Returns:
        Labels of each utterance.
    """
    best = log_probs.argmax(dim=-1)  # (B, T')
    emitted = _starts(best, lens) & (best != BLANK)
    counts = emitted.sum(dim=1).tolist()
    return [part.tolist() for part in best[emitted].cpu().split(counts)]


def greedy_path(log_probs: Tensor) -> BestPath:
    """As ``greedy``, for one utterance (T', V), with the frames of every label."""
    best = log_probs.argmax(dim=-1)
    labels, counts = torch.unique_consecutive(best, return_counts=True)
    ends = counts.cumsum(0)
    real = labels != BLANK
    return BestPath(labels[real].tolist(), (ends - counts)[real].tolist(), (ends - 1)[real].tolist())


def _starts(best: Tensor, lens: Tensor) -> Tensor:
    """(B, T') bool: real frames whose label differs from the frame before."""
    changed = torch.ones_like(best, dtype=torch.bool)
    changed[:, 1:] = best[:, 1:] != best[:, :-1]
    return changed & (torch.arange(best.shape[1], device=lens.device) < lens.unsqueeze(1))
