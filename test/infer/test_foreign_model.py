"""A model of another toolkit: what ``LayeredModel`` asks of it is enough to measure, search and decode it at any depth."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from experiments import config_with
from torch import Tensor, nn

from asrprune.analysis.measure import measure_layers
from asrprune.data.dataset import Corpus
from asrprune.data.tables import read_table
from asrprune.decode.sweep import decode_set, sub_models
from asrprune.experiment.store import Experiment
from asrprune.model.encoder import Context
from asrprune.model.masks import padding_mask
from asrprune.prune.search import make_plan

DIM, FACTOR, LAYERS = 16, 4, 3


class Foreign(nn.Module):
    """PyTorch's own layers, wrapped as an importer would wrap them."""

    factor, holds_pairs = FACTOR, True

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.front = nn.Linear(FACTOR * 80, DIM)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(DIM, 2, 32, batch_first=True) for _ in range(LAYERS))
        self.output = nn.Linear(DIM, vocab_size)

    @property
    def device(self) -> torch.device:
        return self.output.weight.device

    def embed(self, features: Tensor, lens: Tensor) -> tuple[Tensor, Context]:
        frames, lens = features.shape[1] // FACTOR, lens // FACTOR
        x = self.front(features[:, : FACTOR * frames].reshape(len(features), frames, FACTOR * 80))
        return x, Context(lens, padding_mask(lens, frames))

    def step(self, x: Tensor, layer: int, context: Context, after: int) -> Tensor:
        padding = None if context.mask is None else ~context.mask[:, 0, 0]  # (B, T')
        return self.layers[layer - 1](x, src_key_padding_mask=padding)

    def head(self, x: Tensor) -> Tensor:
        return self.output(x).log_softmax(dim=-1)


@torch.inference_mode()
def texts_alone(model: Foreign, corpus: Corpus, keep: tuple[int, ...]) -> dict[str, str]:
    """The greedy text of each utterance, without other utterances or sub-models."""
    texts = {}
    for index, key in enumerate(corpus.ids):
        (batch,) = corpus.loader([np.array([index])])
        x, _ = model.embed(batch.features, batch.lens)
        for layer in keep:
            x = model.layers[layer - 1](x)
        best = model.head(x)[0].argmax(dim=-1).tolist()
        texts[key] = corpus.tokenizer.decode([label for label, _ in itertools.groupby(best) if label])
    return texts


def test_a_model_of_another_toolkit_is_measured_searched_and_decoded(own: Experiment, tiny_data: Path) -> None:
    data = tiny_data / "train"  # dev is too small to be measured
    torch.manual_seed(0)
    model = Foreign(len(own.tokenizer)).eval()
    config = config_with(config_with(own.config, "model", num_layers=LAYERS), "prune", depths=None)
    experiment = replace(own, model=model, config=config)
    measure_layers(experiment, data)
    plans = [make_plan(experiment, strategy, data) for strategy in ("iterative", "svcca", "influence", "every")]
    wanted = sub_models(plans, (3, 2, 1))
    corpus, said = Corpus(data, own.tokenizer), set()
    for one, folder in zip(wanted, decode_set(experiment, data, wanted), strict=True):
        found = read_table(folder / "text")
        assert found == texts_alone(model, corpus, one.keep)
        said.add(tuple(found.values()))
    assert len(said) > 2, "sub-models that say the same show nothing"
