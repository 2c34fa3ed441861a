"""Greedy CTC decoding of a batch."""

import numpy as np

from asrprune.data.units import BLANK
from asrprune.decode.decoder import Array, BestPath, on_cpu


class Greedy:
    """The decoder that takes the most probable label of every frame, merges repetitions and removes blanks."""

    identity = "greedy"

    def decode(self, log_probs: Array, lens: Array) -> list[BestPath]:
        """Decode a batch; see ``Decoder.decode``."""
        best, lens = on_cpu(log_probs.argmax(-1)), on_cpu(lens)  # (B, T'), computed on the device of the emissions
        real = np.arange(best.shape[1]) < lens[:, None]
        changes = np.ones((best.shape[0], best.shape[1] + 1), dtype=bool)  # whether the best label changes before this frame
        changes[:, 1:-1] = best[:, 1:] != best[:, :-1]
        np.put_along_axis(changes, np.minimum(lens, best.shape[1])[:, None], True, axis=1)  # at the end of the utterance
        label = real & (best != BLANK)
        begins, ends = changes[:, :-1] & label, changes[:, 1:] & label
        bounds = np.cumsum(begins.sum(axis=1))[:-1]  # end of each utterance in the list of all labels of the batch
        columns = (best[begins], begins.nonzero()[1], ends.nonzero()[1])
        parts = (np.split(column, bounds) for column in columns)
        return [BestPath(*(part.tolist() for part in row)) for row in zip(*parts, strict=True)]


GREEDY = Greedy()
