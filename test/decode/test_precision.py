"""Whatever runs a trained model computes as decode.precision says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import with_numbers

from asrprune.data.dataset import Corpus
from asrprune.decode.benchmark import bench
from asrprune.decode.greedy import GREEDY
from asrprune.decode.shards import hypotheses
from asrprune.experiment import store as experiment
from asrprune.experiment.store import Experiment
from asrprune.prune.dev_scorer import DevScorer
from asrprune.recognizer import Recognizer
from asrprune.runtime.executor import HERE
from asrprune.transcribe.trained import TrainedModel

KEEP = (1, 2)


def transcribe(exp: Experiment, dev: Path) -> None:
    Recognizer(TrainedModel(exp), GREEDY).transcribe(np.random.default_rng(0).normal(0, 0.1, 16000), layers=KEEP)


def decode(exp: Experiment, dev: Path) -> None:
    hypotheses(exp, Corpus(dev, None), [KEEP], [np.arange(2)])


def score(exp: Experiment, dev: Path) -> None:
    DevScorer(exp, Corpus(dev, exp.tokenizer), "wer", HERE)([KEEP], None)


def measure(exp: Experiment, dev: Path) -> None:
    bench(with_numbers(exp, "bench", utterances=1, repeats=1), dev, [KEEP])


@pytest.mark.parametrize("work", [transcribe, decode, score, measure])
def test_all_that_runs_a_trained_model_is_as_precise_as_it_should_be(
    work: Callable[[Experiment, Path], None], tiny_experiment: Path, tiny_data: Path, tmp_path: Path
) -> None:
    loaded = replace(experiment.load(tiny_experiment), path=tmp_path)
    seen = set()
    loaded.model.head.project.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    for precision, expected in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        work(with_numbers(loaded, "decode", precision=precision), tiny_data / "dev")
        assert seen == {expected}
        seen.clear()
