"""The verdict of a comparison, in sentences: the depths at which one pruned model is not worse than individual ones."""

from collections.abc import Sequence

from asrprune.compare.grid import Grid
from asrprune.compare.summary import Comparison, Summary, shown
from asrprune.report.result_table import seen

_WORDS = {"passes": "not worse than", "worse": "worse than", "undecided": "undecided against"}


def verdict(summary: Summary, grid: Grid, name: str) -> list[str]:
    """Return the verdict on one set: the claim, its exceptions, the rule of the test, the intervals, the power."""
    tests = [test for test in summary.tests if test.set == name]
    by_depth = {test.depth: [other for other in tests if other.depth == test.depth] for test in tests}
    whole = {depth: found for depth, found in by_depth.items() if len(found) == len(grid.roles)}
    if not whole:
        return [f"On {name} no depth has both a pruned model and those that were trained for it yet."]
    depths = sorted(whole, reverse=True)
    good = [depth for depth in depths if all(test.outcome == "passes" for test in whole[depth])]
    bad = [depth for depth in depths if any(test.outcome == "worse" for test in whole[depth])]
    sentences = [_claim(summary, grid, name, good, bad, depths)]
    if silent := [depth for depth in depths if any(test.alone_wer >= 100 for test in whole[depth])]:
        sentences.append(
            f"With {listed(silent)} layer{'s' * (silent != [1])} a model trained for the depth recognises nothing"
            " (100 % errors or more), so a comparison with it shows nothing; train for more epochs."
        )
    sentences += [_exception(grid, depth, whole[depth]) for depth in depths if depth not in good]
    return [*sentences, _rule(summary), rests_on(summary, name), _power([test for found in whole.values() for test in found])]


def rests_on(summary: Summary, name: str) -> str:
    """Say which random choices the intervals of a set include: seeds, and speakers or utterances."""
    counts = sorted({len(row.seeds) for row in shown(summary, name)})
    speakers = summary.speakers[name]
    units = "utterances (the records do not name the speakers)" if speakers is None else f"the {speakers} speakers"
    if counts == [1]:
        return f"One seed: the intervals include the choice of {units}, but not of the seed."
    seeds = f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    alone = "; with one seed, only the latter" if counts[0] == 1 else ""
    return f"{seeds}: the intervals include the choice of seeds and of {units}{alone}."


def listed(items: Sequence[object]) -> str:
    """Write a list as ``12, 9 and 6``."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def difference(test: Comparison) -> str:
    """Write a difference and its interval as ``+0.7 [+0.4, +1.0]``."""
    low, high = test.ci90
    return f"{test.difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def _claim(summary: Summary, grid: Grid, name: str, good: Sequence[int], bad: Sequence[int], depths: Sequence[int]) -> str:
    model = f"On {name} one model ({grid.prunable}), trained once and pruned by its {grid.strategy} plan,"
    others = f"models trained for each depth, {' or '.join(getattr(grid, role) for role in grid.roles)}"
    if not good:
        said = f"{model} was compared with {others}, with {listed(depths)} layers: at no depth is it shown to be not worse."
    elif len(good) == len(depths):
        said = f"{model} is not worse than {others}, at any depth compared: {listed(good)} layers."
    else:
        said = f"{model} is not worse than {others}, with {listed(good)} layers."
    if bad:
        said += f" With {listed(bad)} layers it is worse than some of them."
    return said + (" Layers were chosen on this set, so this is optimistic." if seen(name, summary.search_sets) else "")


def _exception(grid: Grid, depth: int, tests: Sequence[Comparison]) -> str:
    found = []
    for outcome, words in _WORDS.items():
        if others := [f"{getattr(grid, t.role)} ({difference(t)} points)" for t in tests if t.outcome == outcome]:
            found.append(f"{words} {listed(others)}")
    return f"With {depth} layer{'s' * (depth > 1)} it is {', but '.join(found)}."


def _rule(summary: Summary) -> str:
    points, share = summary.margin.points, summary.margin.share
    rate = summary.in_units("word error rate").removeprefix("word ")
    return (
        "Not worse: the upper end of the 90 % interval in brackets, which is the one-sided 95 % bound of the difference, lies"
        f" below the margin. The margin is {points:g} points or {100 * share:g} % of the {rate} of the model trained alone,"
        " whichever is less."
        " Worse: the interval lies above 0. Undecided: neither."
    )


def _power(tests: Sequence[Comparison]) -> str:
    lowest, highest = (f"{100 * extreme(test.power for test in tests):.0f}" for extreme in (min, max))
    power = f"{lowest} %" if lowest == highest else f"{lowest} to {highest} %"
    unknown = any(test.one_seed for test in tests)
    without = "; the true power is lower, because the spread between seeds is not known" if unknown else ""
    return f'Power, the probability of "not worse" at a depth with a true difference of 0: {power}{without}.'
