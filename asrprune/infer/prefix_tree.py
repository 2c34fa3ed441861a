"""Many sub-models in one pass: the layers that they share are run once."""

from collections import defaultdict
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from asrprune.experiment.plan import Keep
from asrprune.model.ctc_model import CtcModel
from asrprune.model.encoder import padding_mask

Streams = dict[Keep, Tensor]  # (B, T', D) each
FRAMES_PER_STEP = 4  # feature frames of an encoder frame


def layers_run(keeps: Collection[Keep]) -> int:
    """How many layers are run for a batch: as many as the sub-models have different beginnings.

    >>> layers_run([(1, 2, 3), (1, 2), (1, 3)])
    4
    """
    return len({keep[:count] for keep in keeps for count in range(1, len(keep) + 1)})


def run_together(
    model: CtcModel, features: Tensor, lens: Tensor, keeps: Sequence[Keep], max_frames: int = 0
) -> tuple[Streams, Tensor]:
    """The streams of many sub-models.

    Args:
        model: all layers.
        features: (B, T, F), raw.
        lens: (B,) feature frames.
        keeps: the sub-models' layers.
        max_frames: several sub-models go through a layer in one call if they have no more feature frames together.

    Returns:
        The stream of each sub-model, and the encoder frames (B,) of each utterance.
    """
    x, lens = model.encoder.embed(model.normalise(features), lens)
    streams: Streams = {(): x}
    mask = padding_mask(lens, x.shape[1])
    for layer in range(1, model.config.num_layers + 1):
        begun = dict.fromkeys(tuple(kept for kept in keep if kept <= layer) for keep in keeps)
        grown = _grow(model, streams, [prefix for prefix in begun if layer in prefix], lens, mask, max_frames)
        streams = grown | {prefix: streams[prefix] for prefix in begun if layer not in prefix}
    return streams, lens


def _grow(
    model: CtcModel, streams: Streams, prefixes: Sequence[Keep], lens: Tensor, mask: Tensor | None, max_frames: int
) -> Streams:
    """Run the last layer of each prefix, several in one call as far as the frame budget allows."""
    alike: dict[int, list[Keep]] = defaultdict(list)  # by the layer before, on which self-conditioning depends
    for prefix in prefixes:
        alike[prefix[-2] if len(prefix) > 1 else 0].append(prefix)
    made: Streams = {}
    for after, members in alike.items():
        frames = FRAMES_PER_STEP * streams[members[0][:-1]].shape[1] * len(lens)
        count = max(1, max_frames // max(1, frames))
        for group in (members[i : i + count] for i in range(0, len(members), count)):
            x = torch.cat([streams[prefix[:-1]] for prefix in group])
            masks = mask if mask is None else mask.repeat(len(group), 1, 1, 1)
            x = model.run(x, lens.repeat(len(group)), (group[0][-1],), after, masks).x
            made.update(zip(group, x.split(len(lens)), strict=True))
    return made
