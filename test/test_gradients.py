"""tools/gradients.py: gradients of the lowest exit against those of all others, measured on a tiny model."""

import sys
from pathlib import Path

import pytest
import torch

from asrprune.data.batching import epoch_batches
from asrprune.data.dataset import Corpus
from asrprune.data.tokenizer import Tokenizer
from asrprune.experiment import store as experiment
from asrprune.experiment.weights import load_weights
from asrprune.runtime.errors import UserError
from asrprune.train.checkpoint import epoch_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import gradients


def test_cosine_and_ratio_are_those_of_two_backward_passes(tiny_experiment: Path, tiny_data: Path) -> None:
    rows = gradients.measure(tiny_experiment, tiny_data / "train", count=1)
    assert [(row["trained"], row["layer"]) for row in rows] == [(0.5, 1), (1.0, 1)], "the lowest exit is on layer 1"

    exp = experiment.load(tiny_experiment)
    corpus = Corpus(tiny_data / "train", Tokenizer(tiny_experiment / "bpe.model"))
    batch = next(corpus.loader(epoch_batches(corpus.lengths, exp.config.batch, exp.config.seed, 1)))
    exp.model.load_state_dict(load_weights(epoch_file(tiny_experiment / "checkpoints", 2)))
    vectors = []
    for chosen in ([1.0, 0.0, 0.0], [0.0, 1.0, 1.0]):
        exp.model.zero_grad()
        losses = exp.model(exp.model.normalise(batch.features), batch.lens, batch.labels, batch.label_lens)
        (losses * torch.tensor(chosen) * torch.tensor(exp.config.model.exit_weights)).sum().backward()
        grads = [parameter.grad for parameter in exp.model.encoder.layers[0].parameters()]
        vectors.append(torch.cat([grad.flatten() for grad in grads if grad is not None]))
    cosine = torch.nn.functional.cosine_similarity(*vectors, dim=0)
    assert rows[-1]["cosine"] == pytest.approx(float(cosine), rel=1e-4)
    assert rows[-1]["ratio"] == pytest.approx(float(vectors[1].norm() / vectors[0].norm()), rel=1e-4)


def test_a_model_of_one_exit_has_nothing_to_compare(tiny_experiment: Path, tiny_data: Path, tmp_path: Path) -> None:
    text = (tiny_experiment / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("taps:\n  - 1\n  - 2", "taps: []"))
    with pytest.raises(UserError, match="a model without taps has one exit"):
        gradients.measure(tmp_path, tiny_data / "train", count=1)


def test_the_figure_has_a_line_for_each_experiment_and_layer() -> None:
    rows: list[gradients.Row] = [
        {"exp": exp, "trained": share, "layer": layer, "cosine": 0.5, "ratio": 2.0}
        for exp in ("joint", "truncated") for layer in (1, 2) for share in (0.5, 1.0)
    ]  # fmt: skip
    left, right = gradients.draw(rows).axes
    assert [len(axes.lines) - 1 for axes in (left, right)] == [4, 4], "and one to guide the eye"
