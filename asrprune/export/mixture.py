"""The layers of an int8 file that stay in float32, so that no depth loses more than a given number of points of WER."""

import logging
from collections.abc import Callable

from asrprune.experiment.plan import Keep

logger = logging.getLogger(__name__)
Loss = Callable[[Keep], float]  # float32 layers -> the largest increase of the WER at any depth, in points


def smallest_mixture(num_layers: int, loss: Loss, limit: float) -> Keep:
    """Return the layers to leave in float32: add the one that helps most, again and again, until the loss is at most ``limit``.

    >>> smallest_mixture(4, lambda left: 0.5 - 0.4 * (3 in left) - 0.1 * (1 in left), 0.2)
    (3,)
    """
    left: Keep = ()
    found = loss(left)
    while found > limit and len(left) < num_layers:
        tried = {tuple(sorted({*left, layer})) for layer in range(1, num_layers + 1) if layer not in left}
        losses = {candidate: loss(candidate) for candidate in sorted(tried)}
        left = min(losses, key=losses.__getitem__)
        found = losses[left]
        logger.info("with layers %s in float32, int8 loses at most %.2f points", ",".join(map(str, left)), found)
    if found > limit:
        logger.warning("int8 loses %.2f points even with all layers in float32, more than %g", found, limit)
    return left
