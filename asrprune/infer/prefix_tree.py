"""Many sub-models in one pass: layers that they share are run once."""

from collections import defaultdict
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from asrprune.experiment.plan import Keep
from asrprune.model.encoder import Context
from asrprune.model.layered import LayeredModel

Streams = dict[Keep, Tensor]  # (B, T', D) each


def layers_run(keeps: Collection[Keep]) -> int:
    """Return the number of layer passes for a batch, which is the number of different prefixes of the sub-models.

    >>> layers_run([(1, 2, 3), (1, 2), (1, 3)])
    4
    """
    return len({keep[:count] for keep in keeps for count in range(1, len(keep) + 1)})


def run_together(model: LayeredModel, x: Tensor, context: Context, keeps: Sequence[Keep], max_frames: int = 0) -> Streams:
    """Run many sub-models.

    Args:
        model: the full model.
        x: (B, T', D), the stream before the first layer.
        context: the context of the batch.
        keeps: the layers of each sub-model; () stands for the stream before the first layer.
        max_frames: several sub-models share one call of a layer if they have at most so many encoder frames in total.

    Returns:
        The output stream of each sub-model.
    """
    streams: Streams = {(): x}
    for layer in range(1, len(model.layers) + 1):
        begun = dict.fromkeys(tuple(kept for kept in keep if kept <= layer) for keep in keeps)
        grown = _grow(model, streams, [prefix for prefix in begun if layer in prefix], context, max_frames)
        streams = grown | {prefix: streams[prefix] for prefix in begun if layer not in prefix}
    return streams


def _grow(model: LayeredModel, streams: Streams, prefixes: Sequence[Keep], context: Context, max_frames: int) -> Streams:
    """Run the last layer of each prefix; several prefixes share one call up to ``max_frames``."""
    alike: dict[int, list[Keep]] = defaultdict(list)  # previous layer, on which self-conditioning depends -> prefixes
    for prefix in prefixes:
        alike[prefix[-2] if len(prefix) > 1 else 0].append(prefix)
    made: Streams = {}
    for after, members in alike.items():
        batch, frames, _ = streams[members[0][:-1]].shape
        count = max(1, max_frames // max(1, batch * frames))
        for group in (members[i : i + count] for i in range(0, len(members), count)):
            x = torch.cat([streams[prefix[:-1]] for prefix in group])
            x = model.step(x, group[0][-1], context.repeat(len(group)), after)
            made.update(zip(group, x.split(batch), strict=True))
    return made
