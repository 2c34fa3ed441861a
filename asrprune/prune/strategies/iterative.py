"""Remove one layer after another, judged on the dev set."""

from collections.abc import Mapping, Sequence

from asrprune.experiment.plan import Keep, Step
from asrprune.prune.dev_score import DevScore, Scorer


def iterative(num_layers: int, score: Scorer, min_depth: int = 1, beam: int = 1) -> tuple[Step, ...]:
    """Remove one layer after another, going on from the ``beam`` best sub-models of each depth.

    A beam of 1 takes, each time, the layer whose removal hurts the dev score least. A wider one tries the sub-models of that
    search and the lowest layers of each depth, too, so that no depth can be worse than theirs: a layer that is removed never
    comes back, and it may be needed below a tap. Its steps need not be nested. Removals from the best parents come first, of
    one parent those that harm the full model least: the hopeless ones come last and are given up.

    Args:
        num_layers: L.
        score: dev scores of sub-models.
        min_depth: where to stop.
        beam: from how many sub-models of each depth to go on.

    Returns:
        One step for each depth L..min_depth. Each has the scores of the removals that were tried from it: the first of all
        layers, the others of those that could have been the best.
    """
    known: dict[Keep, DevScore] = {}

    def remembered(keeps: Sequence[Keep], best: int | None) -> Mapping[Keep, DevScore]:
        if unknown := [keep for keep in keeps if keep not in known]:
            known.update(score(unknown, best))
        return {keep: known[keep] for keep in keeps if keep in known}

    chain = _chain(num_layers, remembered, min_depth)
    if beam == 1:
        return chain
    frontier, chosen, harm = [chain[0].keep], [chain[0].keep], chain[0].without
    for step in chain[1:]:  # the frontier holds the best sub-models with one layer more
        promise = {_less(parent, layer): (known[parent], harm[layer]) for parent in reversed(frontier) for layer in parent}
        tried = dict.fromkeys([*sorted(promise, key=promise.__getitem__), chain[0].keep[: step.depth]])
        found = {step.keep: known[step.keep], **remembered(list(tried), beam)}
        frontier = sorted(found, key=lambda keep: (found[keep], keep))[:beam]
        chosen.append(frontier[0])
    return tuple(Step.of(keep, known[keep].primary, _without(keep, known)) for keep in chosen)


def _chain(num_layers: int, score: Scorer, min_depth: int) -> tuple[Step, ...]:
    """Remove, each time, the layer whose removal hurts the dev score least: the steps are nested."""
    keep: Keep = tuple(range(1, num_layers + 1))
    now, found = _first(keep, score, min_depth)
    harm, steps = dict(found), []
    while len(keep) > min_depth:
        if len(keep) < num_layers:
            promising = sorted(keep, key=lambda layer: harm[layer])
            found = _by_layer(keep, score([_less(keep, layer) for layer in promising], 1))
            harm |= found
        steps.append(Step.of(keep, now.primary, {layer: result.primary for layer, result in found.items()}))
        gone = min(found, key=lambda layer: (found[layer], -layer))
        keep, now = _less(keep, gone), found[gone]
    return (*steps, Step.of(keep, now.primary))


def _first(keep: Keep, score: Scorer, min_depth: int) -> tuple[DevScore, dict[int, DevScore]]:
    """Score of all layers, and of all removals of one, which a figure shows: none of them is given up."""
    removals = [_less(keep, layer) for layer in keep] if len(keep) > min_depth else []
    found = score([keep, *removals], None)
    return found[keep], _by_layer(keep, found)


def _by_layer(keep: Keep, found: Mapping[Keep, DevScore]) -> dict[int, DevScore]:
    return {layer: found[_less(keep, layer)] for layer in keep if _less(keep, layer) in found}


def _without(keep: Keep, known: Mapping[Keep, DevScore]) -> dict[int, float]:
    return {layer: result.primary for layer, result in _by_layer(keep, known).items()}


def _less(keep: Keep, gone: int) -> Keep:
    return tuple(layer for layer in keep if layer != gone)
