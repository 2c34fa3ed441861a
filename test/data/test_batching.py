"""Batches: every utterance once, never more frames than the budget, drawn from (seed, epoch) alone, little padding."""

import itertools

import numpy as np
import pytest

from asrprune.config.schema import BatchConfig
from asrprune.data.batching import epoch_batches, frame_budget_batches, padding_share, sorted_batches
from asrprune.runtime.errors import UserError


def realistic_lengths(count: int, seed: int = 0) -> np.ndarray:
    """(count,) frames of read speech: most utterances are 12 to 16 s, some shorter (as in LibriSpeech's training sets)."""
    rng = np.random.default_rng(seed)
    long, short = rng.normal(1400, 120, count), rng.uniform(150, 1400, count)
    return np.clip(np.where(rng.random(count) < 0.6, long, short), 100, 1700).astype(np.int64)


def random_cases() -> list[tuple[np.ndarray, int]]:
    """(lengths, budget) of all kinds: few and many, equal lengths, zeros, budgets that fit one utterance exactly."""
    rng = np.random.default_rng(7)
    cases = []
    for _ in range(60):
        lengths = rng.integers(0, rng.integers(1, 500), size=rng.integers(1, 200))
        cases.append((lengths, int(max(lengths.max(), 1) * rng.integers(1, 8) + rng.integers(0, 50))))
    return [*cases, (np.full(17, 100), 100), (np.full(17, 100), 199), (np.zeros(5, dtype=np.int64), 10)]


def assert_partition(batches: list[np.ndarray], count: int) -> None:
    assert all(len(batch) for batch in batches)
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))


def padded(lengths: np.ndarray, batch: np.ndarray) -> int:
    return int(lengths[batch].max()) * len(batch)


def test_an_epoch_has_every_utterance_once_and_keeps_the_budget() -> None:
    for number, (lengths, budget) in enumerate(random_cases()):
        batches = epoch_batches(lengths, BatchConfig(max_frames=budget), seed=number, epoch=1)
        assert_partition(batches, len(lengths))
        assert max(padded(lengths, batch) for batch in batches) <= budget


def test_frame_budget_batches_keep_the_order_and_are_full() -> None:
    for lengths, budget in random_cases():
        batches = frame_budget_batches(lengths, budget)
        assert np.concatenate(batches).tolist() == list(range(len(lengths)))
        for batch, following in itertools.pairwise(batches):
            assert padded(lengths, np.append(batch, following[0])) > budget, "the next utterance would have fitted"


def test_batches_by_hand() -> None:
    batches = frame_budget_batches(np.array([10, 10, 10, 5, 5, 40, 1]), 20)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4], [5], [6]]
    batches = sorted_batches(np.array([10, 10, 10, 5, 5, 40, 1]), 20)
    assert [batch.tolist() for batch in batches] == [[5], [0, 1], [2, 3], [4, 6]]


def test_decoding_takes_the_longest_first_and_any_length() -> None:
    for lengths, budget in random_cases():
        batches = sorted_batches(lengths, max(budget // 4, 1))
        assert_partition(batches, len(lengths))
        longest_first = lengths[np.concatenate(batches)]
        assert (np.diff(longest_first) <= 0).all()
        assert all(len(batch) == 1 or padded(lengths, batch) <= max(budget // 4, 1) for batch in batches)


def test_seed_and_epoch_decide_and_nothing_else() -> None:
    lengths, config = realistic_lengths(500), BatchConfig(max_frames=8000)

    def order(seed: int, epoch: int) -> list[list[int]]:
        np.random.seed(seed + epoch)  # the global generator has no say
        return [batch.tolist() for batch in epoch_batches(lengths, config, seed, epoch)]

    assert order(1, 1) == order(1, 1)
    kinds = {str(order(seed, epoch)) for seed in (1, 2, 3) for epoch in (1, 2, 3)}
    assert len(kinds) == 9
    together = [{frozenset(batch) for batch in order(1, epoch)} for epoch in (1, 2)]
    assert len(together[0] & together[1]) < 0.1 * len(together[0]), "other epochs put other utterances together"


def test_short_and_long_batches_are_mixed_over_the_epoch() -> None:
    lengths = realistic_lengths(2000)
    longest = [lengths[batch].max() for batch in epoch_batches(lengths, BatchConfig(max_frames=20000), 1, 1)]
    halves = np.array_split(np.array(longest), 2)
    assert abs(halves[0].mean() - halves[1].mean()) < 0.15 * np.mean(longest)


@pytest.mark.parametrize("max_frames", [20000, 60000])
def test_little_is_padding_on_realistic_lengths(max_frames: int) -> None:
    lengths = realistic_lengths(5000)
    batches = epoch_batches(lengths, BatchConfig(max_frames=max_frames), 1, 1)
    assert padding_share(lengths, batches) < 0.06
    unsorted = frame_budget_batches(lengths, max_frames)
    assert padding_share(lengths, unsorted) > 0.15


def test_padding_share_by_hand() -> None:
    lengths = np.array([10, 5, 20])
    assert padding_share(lengths, [np.array([0, 1]), np.array([2])]) == pytest.approx(5 / 40)
    assert padding_share(lengths, [np.array([0]), np.array([2])]) == 0.0
    assert padding_share(lengths, []) == 0.0


def test_an_utterance_beyond_the_budget_is_refused_with_its_length() -> None:
    lengths = np.array([100, 3000, 50])
    with pytest.raises(
        UserError, match=r"batch.max_frames is 2999, but an utterance has 3000 frames \(see utt2num_frames\); raise"
    ):
        epoch_batches(lengths, BatchConfig(max_frames=2999), 1, 1)
    assert_partition(epoch_batches(lengths, BatchConfig(max_frames=3000), 1, 1), 3)


def test_no_utterances_make_no_batches() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert epoch_batches(nothing, BatchConfig(), 1, 1) == []
    assert sorted_batches(nothing, 100) == []
