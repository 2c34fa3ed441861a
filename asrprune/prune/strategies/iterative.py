"""Remove one layer after another by scores on the dev set."""

from collections.abc import Mapping, Sequence

from asrprune.experiment.plan import Keep, Step
from asrprune.prune.dev_score import DevScore, Scorer


def iterative(num_layers: int, score: Scorer, min_depth: int = 1, beam: int = 1) -> tuple[Step, ...]:
    """Remove one layer after another; keep the ``beam`` best sub-models of each depth.

    With a beam of 1, each step removes the layer whose removal gives the best dev score. A wider beam also tries the sub-models
    of that search, and the lowest layers of each depth, and keeps the lowest layers unless the best sub-model is clearly better
    (``DevScore.clearly_better``): it is the best of many, so it looks better on the dev set than it is. (Layers 1 to a tap are
    trained as a sub-model, but removing one layer after another may miss them.) The steps of a wider beam need not be nested.
    Removals from the best sub-models are tried first, and among them those that harm the full model least. Bad ones come last,
    and are dropped early.

    Args:
        num_layers: L.
        score: computes dev scores of sub-models.
        min_depth: the smallest depth.
        beam: the number of sub-models of each depth from which the search continues.

    Returns:
        One step for each depth L..min_depth, with the scores of the removals tried from it: of all layers in the first step,
        later only of layers whose removal could have been the best.
    """
    known: dict[Keep, DevScore] = {}

    def remembered(keeps: Sequence[Keep], best: int | None) -> Mapping[Keep, DevScore]:
        if unknown := [keep for keep in keeps if keep not in known]:
            known.update(score(unknown, best))
        return {keep: known[keep] for keep in keeps if keep in known}

    chain = _chain(num_layers, remembered, min_depth)
    if beam == 1:
        return chain
    full, harm = chain[0].keep, chain[0].without
    remembered([full[: step.depth] for step in chain], None)  # one pass: they share their layers
    frontier, chosen = [full], [full]
    for step in chain[1:]:  # frontier: the best sub-models with one layer more
        promise = {_less(parent, layer): (known[parent], harm[layer]) for parent in reversed(frontier) for layer in parent}
        tried, safe = sorted(promise, key=promise.__getitem__), full[: step.depth]
        found = {step.keep: known[step.keep], safe: known[safe], **remembered(tried, beam)}
        frontier = sorted(found, key=lambda keep: (found[keep], keep))[:beam]
        chosen.append(frontier[0] if found[frontier[0]].clearly_better(found[safe]) else safe)
    without = {keep: {layer: score.primary for layer, score in _by_layer(keep, known).items()} for keep in chosen}
    return tuple(Step.of(keep, known[keep].primary, without[keep]) for keep in chosen)


def _chain(num_layers: int, score: Scorer, min_depth: int) -> tuple[Step, ...]:
    """Remove in each step the layer whose removal gives the best dev score; the steps are nested."""
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
    """Return the score of the full model, and the scores without each layer; all are complete, as a figure shows them."""
    removals = [_less(keep, layer) for layer in keep] if len(keep) > min_depth else []
    found = score([keep, *removals], None)
    return found[keep], _by_layer(keep, found)


def _by_layer(keep: Keep, found: Mapping[Keep, DevScore]) -> dict[int, DevScore]:
    return {layer: found[_less(keep, layer)] for layer in keep if _less(keep, layer) in found}


def _less(keep: Keep, gone: int) -> Keep:
    return tuple(layer for layer in keep if layer != gone)
