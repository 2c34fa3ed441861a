#!/usr/bin/env python3
"""Do the exits of a model pull its lowest layers in one direction? Gradients of the lowest exit's loss against all others'.

python tools/gradients.py --data data/train_sp --exp exp/joint --exp exp/nested --to gradients

Trains nothing: it reads the checkpoints that a training kept (`train.keep_best`), and writes gradients.json and gradients.png.
"""

import argparse
import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from asrprune.config.schema import Config
from asrprune.data.batching import epoch_batches
from asrprune.data.dataset import Batch, Corpus
from asrprune.data.tokenizer import Tokenizer
from asrprune.experiment.store import read_experiment_config
from asrprune.experiment.weights import load_weights
from asrprune.model.ctc_model import CtcModel
from asrprune.report.plots import DPI, GREY, LOOKS, STYLE, panel_grid
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status
from asrprune.runtime.files import atomic_path, write_json

LAYERS = (1, 2)  # measured, as far as they lie at or below the lowest exit
Row = dict[str, float | int | str]


def measure(exp: Path, data: Path, count: int) -> list[Row]:
    """A row for each kept epoch and each of ``LAYERS``: cosine and ratio of norms (others / lowest), means over batches.

    Raises:
        UserError: the experiment has no checkpoints, or the model no taps.
    """
    config = read_experiment_config(exp)
    if not config.model.tap_layers:
        raise UserError(f"{exp}: a model without taps has one exit; there is nothing to compare")
    corpus = Corpus(data, Tokenizer(exp / "bpe.model"))
    batches = list(corpus.loader(epoch_batches(corpus.lengths, config.batch, config.seed, 1)[:count]))
    found = sorted((exp / "checkpoints").glob("epoch*.safetensors"))
    if not found:
        raise UserError(f"{exp / 'checkpoints'}: no epochs; stage 4 (`asrprune train`) makes them")
    return [row for path in found for row in _of_epoch(exp, config, corpus, batches, path)]


def _of_epoch(exp: Path, config: Config, corpus: Corpus, batches: list[Batch], path: Path) -> list[Row]:
    assert corpus.tokenizer is not None
    model = CtcModel(config.model, config.frontend.num_mels, len(corpus.tokenizer))
    model.load_state_dict(load_weights(path))
    model.eval()  # no dropout: two gradients of the same function
    layers = [layer for layer in LAYERS if layer <= config.model.exits[0]]
    found: dict[int, list[tuple[float, float]]] = {layer: [] for layer in layers}
    for batch in batches:
        lowest, others = _gradients(model, batch, layers)
        for layer, ours, theirs in zip(layers, lowest, others, strict=True):
            norms = float(ours.norm()), float(theirs.norm())
            found[layer].append((float(ours @ theirs) / (norms[0] * norms[1]), norms[1] / norms[0]))
    number = re.findall(r"\d+", path.name)[0]
    share = int(number) / config.train.epochs
    means = {layer: np.mean(values, axis=0) for layer, values in found.items()}
    return [
        {"exp": exp.name, "trained": share, "layer": layer, "cosine": float(mean[0]), "ratio": float(mean[1])}
        for layer, mean in means.items()
    ]


def _gradients(model: CtcModel, batch: Batch, layers: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """The gradient of the lowest exit's share of the loss, and of all others': a vector for each of the layers."""
    losses = model(model.normalise(batch.features), batch.lens, batch.labels, batch.label_lens)
    weighted = torch.tensor(model.config.exit_weights) * losses
    parameters = [list(model.encoder.layers[layer - 1].parameters()) for layer in layers]
    flat = [p for layer in parameters for p in layer]
    vectors = []
    for part in (weighted[0], weighted[1:].sum()):
        pieces = iter(torch.autograd.grad(part, flat, retain_graph=True))
        vectors.append([torch.cat([next(pieces).flatten() for _ in layer]) for layer in parameters])
    return vectors[0], vectors[1]


def draw(rows: list[Row]) -> Figure:
    """Cosine and ratio of norms over training, a line for each experiment and layer."""
    figure, (left, right) = panel_grid(2, 3.2, 2.4)
    names = list(dict.fromkeys(row["exp"] for row in rows))
    for name, (colour, marker) in zip(names, LOOKS, strict=False):
        for layer, style in zip(LAYERS, ("-", "--"), strict=True):
            own = [row for row in rows if row["exp"] == name and row["layer"] == layer]
            if not own:
                continue
            for axes, key in ((left, "cosine"), (right, "ratio")):
                axes.plot(
                    [100 * float(row["trained"]) for row in own], [float(row[key]) for row in own],
                    style, color=colour, marker=marker, label=f"{name}, layer {layer}",
                )  # fmt: skip
    left.axhline(0.0, color=GREY, linewidth=0.6)
    right.axhline(1.0, color=GREY, linewidth=0.6)
    left.set(xlabel="share of training (%)", ylabel="cosine, lowest exit and others", title="direction")
    right.set(xlabel="share of training (%)", ylabel="norm, others / lowest exit", title="size")
    right.legend()
    return figure


def main() -> None:
    """Read the options, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", type=Path, action="append", required=True, help="an experiment; repeat it to compare")
    parser.add_argument("--data", type=Path, required=True, help="data directory with features, of training")
    parser.add_argument("--to", type=Path, required=True, help="path of the results, without .json and .png")
    parser.add_argument("--batches", type=int, default=24, help="batches of an epoch that are used")
    options = parser.parse_args()
    rows = [row for exp in options.exp for row in measure(exp, options.data, options.batches)]
    for row in rows:
        print(" ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))
    write_json(options.to.with_suffix(".json"), rows)
    with mpl.rc_context(STYLE), atomic_path(options.to.with_suffix(".png")) as temporary:
        draw(rows).savefig(temporary, dpi=DPI)


if __name__ == "__main__":
    sys.exit(exit_status(main))
