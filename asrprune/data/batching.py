"""Batches of utterances of similar length, limited by a number of frames; their order depends only on (seed, epoch)."""

import numpy as np

from asrprune.config.schema import BatchConfig
from asrprune.runtime.errors import UserError
from asrprune.runtime.seeds import mix

BUCKET_RATIO = 1.08  # lengths in a bucket differ by at most 8 %, which limits the padding


def frame_budget_batches(lengths: np.ndarray, max_frames: int) -> list[np.ndarray]:
    """Split utterances, in the given order, into batches with (longest length) x (utterances) <= ``max_frames``.

    A single utterance longer than ``max_frames`` is a batch on its own.
    """
    batches, start, longest = [], 0, 0
    for position, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if position > start and longest * (position - start + 1) > max_frames:
            batches.append(np.arange(start, position))
            start, longest = position, length
    if len(lengths):
        batches.append(np.arange(start, len(lengths)))
    return batches


def sorted_batches(lengths: np.ndarray, max_frames: int) -> list[np.ndarray]:
    """Return batches for decoding, sorted by length, longest first: if the memory is too small, this shows at once."""
    order = np.argsort(-lengths, kind="stable")
    return [order[batch] for batch in frame_budget_batches(lengths[order], max_frames)]


def epoch_batches(lengths: np.ndarray, config: BatchConfig, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of one epoch, with every utterance once, in random order.

    Utterances are shuffled, sorted into buckets by length and split into batches; then the batches are shuffled.

    Args:
        lengths: (N,) feature frames of each utterance.
        config: ``max_frames`` of a batch.
        seed, epoch: they determine the order.

    Returns:
        Arrays of indices into ``lengths``.
    """
    if lengths.max(initial=0) > config.max_frames:
        raise UserError(
            f"batch.max_frames is {config.max_frames}, but an utterance has {lengths.max()} frames (see utt2num_frames);"
            " raise batch.max_frames or remove the utterance"
        )
    rng = np.random.default_rng(mix(seed, epoch))
    order = rng.permutation(len(lengths))
    bucket = (np.log(np.maximum(lengths[order], 1)) / np.log(BUCKET_RATIO)).astype(np.int64)
    order = order[np.argsort(bucket, kind="stable")]  # random order within a bucket
    batches = [order[batch] for batch in frame_budget_batches(lengths[order], config.max_frames)]
    return [batches[i] for i in rng.permutation(len(batches))]


def padding_share(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Return the share of padding among all frames of the batches, 0..1."""
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return 1.0 - sum(int(lengths[batch].sum()) for batch in batches) / padded if padded else 0.0
