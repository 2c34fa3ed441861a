"""Greedy CTC decoding against the rule written out: best label of each real frame, repetitions merged, blanks removed."""

import pytest
import torch
from torch import Tensor

from asrprune.decode.decoder import BestPath
from asrprune.decode.greedy import GREEDY


def slow(best: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Labels, first and last frames of a best path, frame by frame."""
    labels: list[int] = []
    first: list[int] = []
    last: list[int] = []
    before = 0
    for frame, label in enumerate(best):
        if label != 0 and label == before:
            last[-1] = frame
        elif label != 0:
            labels.append(label)
            first.append(frame)
            last.append(frame)
        before = label
    return labels, first, last


def emissions(batch: int, frames: int, vocab: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random log-probabilities with many blanks and repetitions, and random lengths, 0 among them."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch, frames, vocab, generator=generator)
    scores[:, :, 0] += 1.0
    scores[:, 1:] += 1.5 * scores[:, :-1].clone()  # neighbours resemble each other
    lens = torch.randint(0, frames + 1, (batch,), generator=generator)
    return scores.log_softmax(-1), lens


@pytest.mark.parametrize(("batch", "frames", "vocab"), [(1, 1, 2), (5, 30, 4), (16, 80, 6), (7, 50, 500)])
def test_greedy_is_the_rule(batch: int, frames: int, vocab: int) -> None:
    for seed in range(10):
        log_probs, lens = emissions(batch, frames, vocab, seed)
        expected = [
            BestPath(*slow(row[:length].argmax(-1).tolist())) for row, length in zip(log_probs, lens.tolist(), strict=True)
        ]
        assert GREEDY.decode(log_probs, lens) == expected


def one_hot(best: list[int], vocab: int = 4) -> Tensor:
    """(T', V) log-probabilities whose best path is ``best``."""
    return torch.nn.functional.one_hot(torch.tensor(best, dtype=torch.int64), vocab).float().log_softmax(-1)


@pytest.mark.parametrize(
    ("best", "path"),
    [
        ([0, 0, 0], BestPath([], [], [])),
        ([1, 1, 1], BestPath([1], [0], [2])),
        ([1, 0, 1], BestPath([1, 1], [0, 2], [0, 2])),
        ([0, 2, 2, 3, 0, 0, 3, 3], BestPath([2, 3, 3], [1, 3, 6], [2, 3, 7])),
        ([3], BestPath([3], [0], [0])),
        ([], BestPath([], [], [])),
    ],
)
def test_paths_by_hand(best: list[int], path: BestPath) -> None:
    log_probs = one_hot(best) if best else torch.zeros(0, 4)
    assert GREEDY.decode(log_probs.unsqueeze(0), torch.tensor([len(best)])) == [path]
