"""CTC loss and greedy WER of every exit on the dev set, from one pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric

from asrprune.data.dataset import Corpus
from asrprune.decode.greedy import GREEDY
from asrprune.infer.runner import Runner
from asrprune.model.head import ctc_losses
from asrprune.runtime.errors import UserError
from asrprune.scoring.wer import word_errors
from asrprune.train.ranks import add_up, share


@dataclass(frozen=True)
class DevMetrics:
    """The loss and WER of each exit. Keys are layer numbers as text, in ascending order."""

    loss: dict[str, float]  # mean over utterances
    wer: dict[str, float]  # percent


@torch.inference_mode()
def evaluate(
    runner: Runner,
    corpus: Corpus,
    batches: list[np.ndarray],
    depths: Sequence[int],
    fabric: Fabric,
    check: Callable[[], None] = lambda: None,
) -> DevMetrics:
    """Measure the sub-model of the lowest layers at each depth; processes share each batch.

    ``check`` is called after each batch and may raise an error.

    Raises:
        UserError: the transcripts have no words.
    """
    assert corpus.tokenizer is not None
    keeps, names = [tuple(range(1, depth + 1)) for depth in depths], [*map(str, depths)]
    losses, errors, words = np.zeros(len(names)), np.zeros(len(names), dtype=int), 0
    rank, world = fabric.global_rank, fabric.world_size
    own = [share(batch, rank, world) for batch in batches]
    for batch, whole in zip(runner.batches(corpus, own), batches, strict=True):
        counts = rank < len(whole)  # False: this process only has a placeholder, see ``share``
        references = [corpus.texts[i].split() for i in batch.index]
        words += counts * sum(map(len, references))
        for row, (_, emissions) in enumerate(runner.emissions(batch.features, batch.lens, keeps)):
            log_probs, lens = emissions.log_probs, emissions.lens
            paths = GREEDY.decode(log_probs, lens)
            losses[row] += counts * float(ctc_losses(log_probs, lens, batch.labels, batch.label_lens).sum())
            errors[row] += counts * sum(word_errors([path.labels for path in paths], references, corpus.tokenizer))
        check()
    sums = torch.tensor([[*losses, 0], [*errors, words]], dtype=torch.float64, device=fabric.device)
    (*losses, _), (*errors, words) = add_up(sums, fabric).tolist()
    if words == 0:
        raise UserError(f"{corpus.directory / 'text'}: has no words, so there is no word error rate; check stage 1 (data)")
    return DevMetrics(
        {name: loss / len(corpus) for name, loss in zip(names, losses, strict=True)},
        {name: 100.0 * count / words for name, count in zip(names, errors, strict=True)},
    )
