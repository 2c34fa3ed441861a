"""How good the model is on a dev set: CTC loss and greedy WER of every tap and of the last layer, from one pass."""

from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric

from asrprune.data.dataset import Corpus
from asrprune.decode.greedy import greedy
from asrprune.model.ctc_model import CtcModel, ctc_losses
from asrprune.runtime.errors import UserError
from asrprune.scoring.wer import word_errors
from asrprune.train.ranks import add_up, share


@dataclass(frozen=True)
class DevMetrics:
    """Keys are layer numbers as text, the last layer last."""

    loss: dict[str, float]  # mean over utterances
    wer: dict[str, float]  # percent


@torch.inference_mode()
def evaluate(model: CtcModel, corpus: Corpus, batches: list[np.ndarray], fabric: Fabric) -> DevMetrics:
    """Dev metrics of the depths that carry a tap (their layers 1..k) and of the full model; processes share each batch.

    Raises:
        UserError: the transcripts have no words.
    """
    assert corpus.tokenizer is not None
    model.eval()
    taps = [tap for tap in model.config.tap_layers if tap < model.config.num_layers]
    names = [*map(str, taps), str(model.config.num_layers)]
    losses, errors, words = np.zeros(len(names)), np.zeros(len(names), dtype=int), 0
    rank, world = fabric.global_rank, fabric.world_size
    for batch, whole in zip(corpus.loader([share(batch, rank, world) for batch in batches]), batches, strict=True):
        batch = batch.to(fabric.device)
        with fabric.autocast():
            emissions, lens = model.emit_taps(batch.features, batch.lens, taps)
        if rank >= len(whole):  # its utterance stands in
            continue
        references = [corpus.texts[i].split() for i in batch.index]
        words += sum(map(len, references))
        for row, log_probs in enumerate(emissions):
            losses[row] += float(ctc_losses(log_probs, lens, batch.labels, batch.label_lens).sum())
            errors[row] += sum(word_errors(greedy(log_probs, lens), references, corpus.tokenizer))
    sums = torch.tensor([[*losses, 0], [*errors, words]], dtype=torch.float64, device=fabric.device)
    (*losses, _), (*errors, words) = add_up(sums, fabric).tolist()
    if words == 0:
        raise UserError(f"{corpus.directory / 'text'}: no words, so no word error rate; check stage 1 (data)")
    return DevMetrics(
        {name: loss / len(corpus) for name, loss in zip(names, losses, strict=True)},
        {name: 100.0 * count / words for name, count in zip(names, errors, strict=True)},
    )
