"""Greedy CTC decoding of a batch."""

import torch
from torch import Tensor

from asrprune.decode.decoder import BestPath
from asrprune.model.head import BLANK


class Greedy:
    """The decoder that takes the most probable label of every frame, merges repetitions and removes blanks."""

    identity = "greedy"

    def decode(self, log_probs: Tensor, lens: Tensor) -> list[BestPath]:
        """Decode a batch; see ``Decoder.decode``."""
        best = log_probs.argmax(dim=-1)  # (B, T')
        frames = torch.arange(best.shape[1], device=best.device)
        real = frames < lens.unsqueeze(1)
        changes = torch.ones(best.shape[0], best.shape[1] + 1, dtype=torch.bool, device=best.device)  # before each frame
        changes[:, 1:-1] = best[:, 1:] != best[:, :-1]
        changes.scatter_(1, lens.clamp(max=best.shape[1]).unsqueeze(1), True)  # a change at the end of the utterance
        label = real & (best != BLANK)
        begins, ends = changes[:, :-1] & label, changes[:, 1:] & label
        counts = begins.sum(dim=1).tolist()
        columns = (best[begins], begins.nonzero()[:, 1], ends.nonzero()[:, 1])
        parts = (column.cpu().split(counts) for column in columns)
        return [BestPath(*(part.tolist() for part in row)) for row in zip(*parts, strict=True)]


GREEDY = Greedy()
