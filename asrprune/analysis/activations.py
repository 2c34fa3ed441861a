"""The output of every layer on the same frames of a data set."""

import numpy as np

from asrprune.config.lengths import output_length
from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.infer.runner import Runner
from asrprune.model.masks import real_frames
from asrprune.runtime.progress import track


def activations(runner: Runner, corpus: Corpus, max_frames: int, batch_frames: int, seed: int) -> list[np.ndarray]:
    """Compute the stream x_0 .. x_L on unpadded frames of ``corpus``.

    Args:
        runner: the runner of the full model.
        corpus: the set; its utterances are used in random order (of ``seed``) until they have ``max_frames`` encoder frames.
        batch_frames: padded feature frames in one batch.

    Returns:
        L + 1 arrays (N, D) float32; row i is the same frame in each.
    """
    lowest = [tuple(range(1, depth + 1)) for depth in range(len(runner.model.layers) + 1)]
    chosen = _enough_utterances(corpus, runner.model.factor, max_frames, seed)
    parts: list[list[np.ndarray]] = [[] for _ in lowest]
    batches = [chosen[batch] for batch in sorted_batches(corpus.lengths[chosen], batch_frames)]
    for batch in track(runner.batches(corpus, batches), f"activations {corpus.directory.name}", len(batches)):
        streams, lens = runner.streams(batch.features, batch.lens, lowest)
        real = real_frames(lens, streams[()].shape[1])
        for part, keep in zip(parts, lowest, strict=True):
            part.append(streams[keep][real].cpu().numpy())
    return [np.concatenate(part)[:max_frames] for part in parts]


def _enough_utterances(corpus: Corpus, factor: int, max_frames: int, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(corpus))
    frames = np.cumsum(output_length(corpus.lengths[order], factor))
    return order[: int(np.searchsorted(frames, max_frames)) + 1]
