"""Strategies against brute force: nothing cleverer than trying everything may find anything else."""

import itertools

import numpy as np
import pytest

from asrprune.experiment.plan import Keep, Step
from asrprune.prune.dev_score import DevScore
from asrprune.prune.rerank import rerank
from asrprune.prune.strategies import svcca as by_svcca
from asrprune.prune.strategies.every import every
from asrprune.prune.strategies.influence import influence
from asrprune.prune.strategies.iterative import iterative
from asrprune.prune.strategies.lowest import lowest
from asrprune.prune.strategies.svcca import run_similarity, svcca

ALL_SIZES = [1, 2, 3, 6, 12, 24]


# ---- lowest and every


@pytest.mark.parametrize("strategy", [lambda _, depths: lowest(depths), every], ids=["lowest", "every"])
@pytest.mark.parametrize("num_layers", [*ALL_SIZES, 7, 18, 48])
def test_every_depth_is_a_set_of_that_many_layers_deepest_first(strategy, num_layers: int) -> None:
    steps = strategy(num_layers, range(1, num_layers + 1))
    assert [step.depth for step in steps] == list(range(num_layers, 0, -1))
    for step in steps:
        assert list(step.keep) == sorted(set(step.keep))
        assert 1 <= step.keep[0] <= step.keep[-1] <= num_layers
        assert step.score is None


def test_depths_are_taken_once_and_sorted() -> None:
    for steps in (lowest([3, 12, 6, 3]), every(12, [3, 12, 6, 3])):
        assert [step.depth for step in steps] == [12, 6, 3]


def test_lowest_keeps_the_bottom_of_the_stack() -> None:
    assert [step.keep for step in lowest([1, 3])] == [(1, 2, 3), (1,)]


def test_every_is_layerdrops_every_other() -> None:
    assert every(12, [6, 5]) == (Step.of((2, 4, 6, 8, 10, 12)), Step.of((2, 5, 7, 10, 12)))
    assert every(24, [12])[0].keep == tuple(range(2, 25, 2))
    assert every(24, [8])[0].keep == tuple(range(3, 25, 3))
    assert every(24, [6])[0].keep == (4, 8, 12, 16, 20, 24)


@pytest.mark.parametrize("num_layers", ALL_SIZES)
def test_every_is_even_and_keeps_the_last_layer(num_layers: int) -> None:
    for step in every(num_layers, range(1, num_layers + 1)):
        assert step.keep[-1] == num_layers
        gaps = np.diff([0, *step.keep])
        assert gaps.max() - gaps.min() <= 1


# ---- influence


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("num_layers", [1, 2, 5, 8])
def test_influence_keeps_the_set_of_the_highest_sum_and_of_equal_ones_the_lowest_layers(
    num_layers: int, levels: int | None
) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        influences = rng.random(num_layers) if levels is None else rng.integers(levels, size=num_layers).astype(float)
        for step in influence(influences, range(1, num_layers + 1)):
            sets = itertools.combinations(range(1, num_layers + 1), step.depth)
            sums = {keep: sum(sorted(influences[layer - 1] for layer in keep)) for keep in sets}
            assert step.keep == min(sums, key=lambda keep: (-sums[keep], keep))
            assert step.score is None


# ---- iterative


def scorer(seed: int, levels: int | None = None):
    """A score of every set of layers, drawn once (few ``levels`` make ties), and the scorer of a search that tells of them.

    As the real one it gives up what has a worse score than the worst of the first ``best``; it notes what it was asked.
    """
    rng = np.random.default_rng(seed)
    scores: dict[Keep, DevScore] = {}

    def score(keep: Keep) -> DevScore:
        if keep not in scores:
            draw = rng.random(2) if levels is None else rng.integers(levels, size=2)
            scores[keep] = DevScore(float(draw[0]), float(draw[1]))
        return scores[keep]

    def search_scorer(sets, best=None):
        asked.append((list(sets), best))
        limit = np.inf if best is None else max(score(keep).primary for keep in sets[:best])
        return {keep: score(keep) for keep in sets if score(keep).primary <= limit}

    asked: list[tuple[list[Keep], int | None]] = []
    return score, search_scorer, asked


def naive_search(num_layers: int, score, min_depth: int) -> list[tuple[Keep, float]]:
    keep = tuple(range(1, num_layers + 1))
    path = [(keep, score(keep).primary)]
    while len(keep) > min_depth:
        candidates = list(itertools.combinations(keep, len(keep) - 1))
        best = min((score(sub).primary, score(sub).tie_break) for sub in candidates)
        ties = [sub for sub in candidates if (score(sub).primary, score(sub).tie_break) == best]
        keep = min(ties, key=lambda sub: [-next(layer for layer in keep if layer not in sub)])  # the highest layer goes
        path.append((keep, score(keep).primary))
    return path


@pytest.mark.parametrize("levels", [None, 2, 1])
@pytest.mark.parametrize("num_layers", [1, 2, 5, 9])
def test_iterative_is_the_naive_search(num_layers: int, levels: int | None) -> None:
    for seed in range(10):
        for min_depth in {1, max(1, num_layers // 2)}:
            score, search_scorer, _ = scorer(seed, levels)
            steps = iterative(num_layers, search_scorer, min_depth)
            assert [(step.keep, step.score) for step in steps] == naive_search(num_layers, score, min_depth)


def test_iterative_asks_once_a_depth_for_all_removals_the_promising_ones_first() -> None:
    score, search_scorer, asked = scorer(0)
    steps = iterative(8, search_scorer, 3)
    assert [step.depth for step in steps] == [8, 7, 6, 5, 4, 3]
    assert [best for _, best in asked] == [None, 1, 1, 1, 1]
    assert [len(sets) for sets, _ in asked] == [9, 7, 6, 5, 4]
    full = steps[0].keep
    second = [next(layer for layer in steps[1].keep if layer not in keep) for keep in asked[1][0]]
    assert second == sorted(steps[1].keep, key=lambda gone: score(tuple(n for n in full if n != gone)))
    for deeper, shallower in itertools.pairwise(steps):
        assert set(shallower.keep) < set(deeper.keep)


def test_each_step_tells_what_removals_would_have_cost() -> None:
    score, search_scorer, _ = scorer(1)
    first, *steps, last = iterative(6, search_scorer, 2)
    assert first.without == {gone: score(tuple(n for n in first.keep if n != gone)).primary for gone in first.keep}
    for step, after in itertools.pairwise([*steps, last]):
        (gone,) = set(step.keep) - set(after.keep)
        assert min(step.without.values()) == step.without[gone] == after.score
        for layer, value in step.without.items():
            assert value == score(tuple(n for n in step.keep if n != layer)).primary
    assert last.without == {}


def test_loss_decides_between_equal_errors_and_then_the_highest_layer_goes() -> None:
    scores = {
        (2, 3, 4): DevScore(5.0, 2.0),
        (1, 3, 4): DevScore(5.0, 1.0),
        (1, 2, 4): DevScore(5.0, 1.0),
        (1, 2, 3): DevScore(6.0, 0.0),
    }

    def score(sets, best):
        return {keep: scores.get(keep, DevScore(5.0, 1.0)) for keep in sets}

    assert iterative(4, score, 3)[-1] == Step.of((1, 2, 4), 5.0)


# ---- beam


@pytest.mark.parametrize("num_layers", [1, 2, 6, 9])
@pytest.mark.parametrize("levels", [None, 2])
def test_a_beam_is_never_worse_than_none_or_the_lowest_layers(num_layers: int, levels: int | None) -> None:
    better = 0
    for seed in range(20):
        score, search_scorer, _ = scorer(seed, levels)
        for chosen, step in zip(iterative(num_layers, search_scorer, 1, 3), iterative(num_layers, search_scorer), strict=True):
            assert chosen.depth == step.depth
            assert chosen.score == score(chosen.keep).primary
            assert chosen.score <= min(step.score, score(tuple(range(1, step.depth + 1))).primary)
            better += chosen.score < step.score
    assert better or num_layers < 3


def test_a_beam_keeps_the_lowest_layers_unless_others_are_clearly_better() -> None:
    """(2, 3) is better by 2 errors for one of two speakers only, (2,) for both."""
    errors = {(1, 2): (6.0, 6.0), (2, 3): (4.0, 6.0), (1,): (9.0, 9.0), (2,): (8.0, 8.0)}

    def score(sets, best):
        found = {keep: errors.get(keep, (20.0, 20.0) if len(keep) < 3 else (5.0, 5.0)) for keep in sets}
        return {keep: DevScore(sum(errors), 0.0, errors) for keep, errors in found.items()}

    assert [step.keep for step in iterative(3, score, 1, 3)] == [(1, 2, 3), (1, 2), (2,)]
    assert [step.score for step in iterative(3, score, 1, 3)] == [10.0, 12.0, 16.0]
    assert [step.keep for step in iterative(3, score, 1, 1)] == [(1, 2, 3), (2, 3), (2,)]


def test_a_beam_scores_bad_lowest_layers_completely_and_in_one_pass() -> None:
    """Else there would be nothing to compare with."""
    asked = []

    def score(sets, best):
        found = {keep: DevScore(9.0 if keep[-1] == len(keep) else 1.0, 0.0, (1.0, 2.0)) for keep in sets}
        limit = np.inf if best is None else max(found[keep].primary for keep in sets[:best])
        asked.append((list(sets), best))
        return {keep: score for keep, score in found.items() if score.primary <= limit}

    assert [step.keep for step in iterative(6, score, 2, 3)[1:]] == [tuple(range(1, depth + 1)) for depth in (5, 4, 3, 2)]
    assert [sets for sets, best in asked if best is None][1:] == [[(1, 2, 3, 4), (1, 2, 3), (1, 2)]]


def test_a_beam_of_everything_finds_the_best_set_of_every_depth() -> None:
    for seed in range(5):
        score, search_scorer, _ = scorer(seed)
        for step in iterative(6, search_scorer, 1, 100):
            assert step.score == min(score(keep).primary for keep in itertools.combinations(range(1, 7), step.depth))


def test_a_beam_scores_nothing_twice() -> None:
    _, search_scorer, asked = scorer(3, levels=1)  # of equal scores none is given up
    iterative(7, search_scorer, 1, 3)
    sets = [keep for sets, _ in asked for keep in sets]
    assert len(sets) == len(set(sets)) > 30


# ---- rerank


def test_rerank_takes_the_best_proposal_and_the_first_of_equal_ones() -> None:
    scores = {
        (1, 2): DevScore(4.0, 0.0),
        (1, 3): DevScore(3.0, 1.0),
        (2, 3): DevScore(3.0, 1.0),
        (3,): DevScore(9.0, 0.0),
        (1,): DevScore(9.0, 1.0),
    }

    def score(sets, best):
        assert best == 1
        return {keep: scores[keep] for keep in sets if scores[keep].primary <= scores[sets[0]].primary}

    steps = rerank({1: [(1,), (3,)], 2: [(1, 2), (2, 3), (1, 3)]}, score)
    assert steps == (Step.of((2, 3), 3.0), Step.of((3,), 9.0))


# ---- svcca


def similarity(num_layers: int, seed: int = 0) -> np.ndarray:
    """(L + 1, L + 1): falls with distance, with noise."""
    rng = np.random.default_rng(seed)
    distance = np.abs(np.subtract.outer(np.arange(num_layers + 1), np.arange(num_layers + 1)))
    noise = rng.uniform(-0.2, 0.2, size=distance.shape)
    return np.clip(0.95**distance + np.triu(noise, 1) + np.triu(noise, 1).T, 0.0, 1.0)


def value_by_definition(removed: tuple[int, ...], matrix: np.ndarray) -> float:
    """The mean over maximal runs [a..b] of removed layers of C[a - 1][b]."""
    runs = [
        (a, b)
        for a in removed
        for b in removed
        if a <= b and set(range(a, b + 1)) <= set(removed) and a - 1 not in removed and b + 1 not in removed
    ]
    return sum(matrix[a - 1][b] for a, b in runs) / len(runs)


def test_run_similarity_by_hand() -> None:
    matrix = np.arange(36.0).reshape(6, 6)
    assert run_similarity((2,), matrix) == matrix[1, 2]
    assert run_similarity((1, 2, 3, 4, 5), matrix) == matrix[0, 5]
    assert run_similarity((1, 3, 4), matrix) == (matrix[0, 1] + matrix[2, 4]) / 2
    assert run_similarity((1, 3, 5), matrix) == pytest.approx((matrix[0, 1] + matrix[2, 3] + matrix[4, 5]) / 3)


@pytest.mark.parametrize("num_layers", [2, 4, 7])
def test_svcca_is_the_best_of_all_sets(num_layers: int) -> None:
    for seed in range(5):
        matrix = similarity(num_layers, seed)
        for (keep,) in svcca(matrix, range(1, num_layers + 1)).values():
            removed = tuple(layer for layer in range(1, num_layers + 1) if layer not in keep)
            if not removed:
                continue
            best = max(value_by_definition(s, matrix) for s in itertools.combinations(range(1, num_layers + 1), len(removed)))
            assert value_by_definition(removed, matrix) == pytest.approx(best, abs=1e-12)
            assert run_similarity(removed, matrix) == pytest.approx(best, abs=1e-12)


def test_svcca_keeps_everything_at_full_depth_and_only_wanted_depths() -> None:
    proposed = svcca(similarity(6), [6, 2, 2, 4])
    assert [(depth, len(keep)) for depth, (keep,) in proposed.items()] == [(6, 6), (4, 4), (2, 2)]
    assert proposed[6] == [(1, 2, 3, 4, 5, 6)]


def test_svcca_proposes_the_best_few() -> None:
    matrix = similarity(7)
    for depth, proposed in svcca(matrix, range(1, 8), count=4).items():
        layers = range(1, 8)
        removed = sorted(
            itertools.combinations(layers, 7 - depth), key=lambda gone: -run_similarity(gone, matrix) if gone else 0
        )
        assert proposed == [tuple(n for n in layers if n not in gone) for gone in removed[:4]]


def test_beam_finds_what_trying_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        matrix = similarity(8, seed)
        everything = svcca(matrix, range(1, 9))
        monkeypatch.setattr(by_svcca, "MOST_EXHAUSTIVE", 0)
        assert svcca(matrix, range(1, 9)) == everything
        monkeypatch.undo()


def test_beam_is_a_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a beam of one, a better pair whose layers are each worse alone is missed: the switch is really thrown."""
    matrix = np.full((5, 5), 0.1)
    matrix[0, 1] = 0.9  # layer 1 alone is the best
    matrix[2, 4] = 0.95  # but layers 3 and 4 together are better than any pair with layer 1
    assert svcca(matrix, [2]) == {2: [(1, 2)]}
    monkeypatch.setattr(by_svcca, "MOST_EXHAUSTIVE", 0)
    monkeypatch.setattr(by_svcca, "BEAM", 1)
    assert 1 not in svcca(matrix, [2])[2][0]


def test_twenty_four_layers_take_no_time() -> None:
    assert list(svcca(similarity(24), [24, 18, 12, 6])) == [24, 18, 12, 6]
