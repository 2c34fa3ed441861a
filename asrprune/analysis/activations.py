"""The stream after every layer, on the same real frames of a data set."""

import numpy as np
import torch

from asrprune.config.lengths import output_length
from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.model.ctc_model import CtcModel
from asrprune.runtime.progress import track


@torch.inference_mode()
def activations(model: CtcModel, corpus: Corpus, max_frames: int, batch_frames: int, seed: int) -> list[np.ndarray]:
    """x_0 .. x_L on unpadded frames of ``corpus``, the model in eval mode.

    Args:
        model: the full model.
        corpus: the set; utterances are taken in a random order (drawn from ``seed``) until there are ``max_frames``.
        batch_frames: padded feature frames in one batch.

    Returns:
        L + 1 arrays (N, D) float32; row i is the same frame in each.
    """
    model.eval()
    layers = range(model.config.num_layers + 1)
    chosen = _enough_utterances(corpus, model.encoder.factor, max_frames, seed)
    parts: list[list[np.ndarray]] = [[] for _ in layers]
    batches = [chosen[batch] for batch in sorted_batches(corpus.lengths[chosen], batch_frames)]
    for batch in track(corpus.loader(batches), f"activations {corpus.directory.name}", len(batches)):
        device = model.cmvn_mean.device
        encoded = model.encode(model.normalise(batch.features.to(device)), batch.lens.to(device), taps=layers)
        real = torch.arange(encoded.x.shape[1], device=device) < encoded.lens.unsqueeze(1)  # (B, T')
        for layer in layers:
            parts[layer].append(encoded.taps[layer][real].cpu().numpy())
    return [np.concatenate(part)[:max_frames] for part in parts]


def _enough_utterances(corpus: Corpus, factor: int, max_frames: int, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(corpus))
    frames = np.cumsum(output_length(corpus.lengths[order], factor))
    return order[: int(np.searchsorted(frames, max_frames)) + 1]
