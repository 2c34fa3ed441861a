"""The alignment of labels to frames."""

from collections.abc import Sequence

import numpy as np

from asrprune.data.units import BLANK
from asrprune.decode.decoder import BestPath


def align(log_probs: np.ndarray, labels: Sequence[int]) -> BestPath:
    """Align labels to frames by the most probable CTC path that collapses to them (Viterbi).

    Args:
        log_probs: (T', V), with enough frames for the labels and a blank between equal labels.
        labels: the labels, without blanks.
    """
    states = np.full(2 * len(labels) + 1, BLANK)  # blanks around all labels
    states[1::2] = labels
    if not labels:
        return BestPath([], [], [])
    path = _best_states(log_probs[:, states].astype(np.float64), states)
    changes = np.diff(path, prepend=-1, append=-1) != 0
    odd = path % 2 == 1
    first, last = np.flatnonzero(changes[:-1] & odd), np.flatnonzero(changes[1:] & odd)
    return BestPath(list(labels), first.tolist(), last.tolist())


def _best_states(scores: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return the state at each frame (T',), for (T', S) log-probabilities of the states."""
    skips = np.zeros(len(states), dtype=bool)  # whether state i can follow state i - 2: two different labels need no blank
    skips[3::2] = states[3::2] != states[1:-2:2]
    forbidden = np.where(skips, 0.0, -np.inf)
    best = np.full((3, len(states)), -np.inf)  # row k: score of coming from state i - k
    before = np.full(len(states), -np.inf)
    before[0] = 0.0  # start in the first blank
    steps = np.empty(scores.shape, dtype=np.int8)
    for frame, now in enumerate(scores):
        best[0], best[1, 1:], best[2, 2:] = before, before[:-1], before[:-2]
        best[2] += forbidden
        steps[frame] = best.argmax(axis=0)
        before = best.max(axis=0) + now
    state = len(states) - 1 - int(before[-2] > before[-1])
    path = np.empty(len(scores), dtype=np.int64)
    for frame in range(len(scores) - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state])
    return path
