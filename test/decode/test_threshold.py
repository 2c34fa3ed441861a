"""The threshold of early exit."""

from pathlib import Path

import numpy as np
import pytest
from commands import asrprune
from experiments import with_numbers

from asrprune.data.dataset import Corpus
from asrprune.decode.greedy import GREEDY
from asrprune.decode.threshold import NEVER, EarlyExit, Measured, choose_threshold, early_exit, measure
from asrprune.experiment.store import Experiment, load
from asrprune.prune.dev_scorer import DevScorer
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE

# Two exits, after 2 and 6 layers; three utterances of 10 words in total.
MEASURED = Measured(
    exits=(2, 6),
    errors=np.array([[0, 0], [3, 1], [1, 1]]),
    confidence=np.array([[0.9, 0.99], [0.5, 0.8], [0.7, 0.9]]),
    frames=np.array([100, 100, 200]),
    words=10,
)


@pytest.mark.parametrize(
    ("threshold", "layers", "wer"), [(0.0, 2.0, 40.0), (0.7, 3.0, 20.0), (0.8, 5.0, 20.0), (NEVER, 6.0, 20.0)]
)
def test_an_utterance_ends_at_the_first_exit_that_is_sure(threshold: float, layers: float, wer: float) -> None:
    assert (MEASURED.at(threshold).layers, MEASURED.at(threshold).wer) == (layers, wer)


@pytest.mark.parametrize(("margin", "layers"), [(0.0, 3.0), (19.9, 3.0), (20.0, 2.0)])
def test_the_fewest_layers_within_the_margin_are_chosen(margin: float, layers: float) -> None:
    threshold, tried = choose_threshold(MEASURED, margin)
    assert MEASURED.at(threshold).layers == layers
    assert {threshold, NEVER} <= set(tried)


@pytest.fixture
def experiment(tiny_experiment: Path) -> Experiment:
    return load(tiny_experiment)


def test_errors_are_those_of_the_search(experiment: Experiment, tiny_data: Path) -> None:
    corpus = Corpus(tiny_data / "dev", experiment.tokenizer)
    measured = measure(experiment, corpus, (1, 2, 4), GREEDY, HERE)
    keeps = [(1,), (1, 2), (1, 2, 3, 4)]
    scores = DevScorer(experiment, corpus, "wer", HERE)(keeps)
    assert [measured.ending_at(number).wer for number in range(3)] == [scores[keep].primary for keep in keeps]
    assert measured.at(0.0) == measured.ending_at(0)
    assert measured.at(NEVER) == measured.ending_at(2)


def test_the_command_writes_a_record_and_a_figure(own: Experiment, tiny_data: Path) -> None:
    done = asrprune("early-exit", tiny_data / "train", "--exp", own.path, "--dev", tiny_data / "dev")
    assert done.code == 0, done.err
    made = EarlyExit.read(own.path / "early_exit.json")
    assert (made.set, made.exits, list(made.curves)) == ("dev", (1, 2, 4), ["dev", "train"])
    assert [line.split(":")[0] for line in done.out.splitlines()][1:] == ["dev", "train"]
    assert (own.path / "early_exit.png").stat().st_size > 10_000


def test_a_model_with_one_exit_is_refused(experiment: Experiment, tiny_data: Path) -> None:
    one, dev = with_numbers(experiment, "model", taps=()), Corpus(tiny_data / "dev", experiment.tokenizer)
    with pytest.raises(UserError, match=r"a model without taps has one exit; train it with model\.taps"):
        early_exit(one, dev, [], 0.5, GREEDY)
