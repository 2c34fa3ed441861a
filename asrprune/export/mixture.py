"""The layers of an int8 file that stay in float32, so that no depth loses more than a given number of points of error rate."""

import logging
from collections.abc import Callable, Sequence
from math import inf

from asrprune.experiment.plan import Keep
from asrprune.runtime.progress import track

logger = logging.getLogger(__name__)
Loss = Callable[[Keep, Keep], float]  # float32 layers, layers of a depth -> increase of its error rate, in points


def smallest_mixture(num_layers: int, keeps: Sequence[Keep], loss: Loss, limit: float) -> Keep:
    """Return the layers to leave in float32: add the one that helps most, again and again, until the loss is at most ``limit``.

    >>> smallest_mixture(4, [(1, 2, 3, 4), (1, 3)], lambda left, keep: 0.5 - 0.4 * (3 in left) - 0.1 * (1 in left), 0.2)
    (3,)
    """
    losses, left = _Losses(keeps, loss), Keep()
    found = losses.largest(left, inf)
    while found > limit and len(left) < num_layers:
        logger.info("layers in float32: %d; int8 loses up to %.2f points; one more is tried", len(left), found)
        tried = [tuple(sorted({*left, layer})) for layer in range(1, num_layers + 1) if layer not in left]
        best, found = tried[0], inf
        for candidate in track(tried, "layers in float32"):
            if (value := losses.largest(candidate, found)) < found:
                best, found = candidate, value
            if found <= limit:
                break
        left = best
    if found > limit:
        logger.warning(
            "int8 still loses %.2f points with all layers in float32, more than --max-loss %g; compare more utterances, as in"
            " few words one error is many points, or export without --int8", found, limit,
        )  # fmt: skip
    elif left:
        logger.info("with layers %s in float32, int8 loses at most %.2f points", ",".join(map(str, left)), found)
    return left


class _Losses:
    """The losses of mixtures. A depth is measured again only if layers that it runs have changed."""

    def __init__(self, keeps: Sequence[Keep], loss: Loss) -> None:
        self._order, self._loss = list(keeps), loss
        self._known: dict[tuple[Keep, Keep], float] = {}

    def largest(self, left: Keep, bound: float) -> float:
        """Return the largest loss at any depth. A loss of ``bound`` or more ends the search for a larger one."""
        worst = -inf
        for keep in self._order[:]:
            worst = max(worst, self._at(left, keep))
            if worst >= bound:
                self._order.remove(keep)
                self._order.insert(0, keep)  # the first one to ask next time: it decides most often
                break
        return worst

    def _at(self, left: Keep, keep: Keep) -> float:
        key = tuple(layer for layer in left if layer in keep), keep
        if key not in self._known:
            self._known[key] = self._loss(left, keep)
        return self._known[key]
