"""The thresholds of early exit."""

from pathlib import Path

import numpy as np
import pytest
from commands import asrprune
from experiments import with_numbers

from asrprune.data.dataset import Corpus
from asrprune.decode.choose import decoder_of
from asrprune.decode.greedy import GREEDY
from asrprune.decode.threshold import NEVER, EarlyExit, Measured, choose_thresholds, early_exit, measure, thresholds_for
from asrprune.experiment.store import Experiment, load
from asrprune.infer.runner import Runner
from asrprune.prune.dev_scorer import DevScorer
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE
from asrprune.runtime.hardware import decided

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
    assert (MEASURED.at([threshold]).layers, MEASURED.at([threshold]).wer) == (layers, wer)


@pytest.mark.parametrize(("price", "threshold"), [(0.0, NEVER), (1.0, 0.6), (100.0, 0.0)])
def test_a_dearer_layer_lowers_the_threshold(price: float, threshold: float) -> None:
    """The second utterance gains by going on; the third one is as bad at both exits, and the surer one of these two."""
    assert thresholds_for(MEASURED, price) == (threshold,)


def test_no_thresholds_are_better_than_those_chosen_for_a_price() -> None:
    """With two exits all thresholds can be tried."""
    rng = np.random.default_rng(0)
    sure = rng.random((200, 2))
    errors = np.stack([rng.poisson(3 - 2 * sure[:, 0]), rng.poisson(1.0, 200)], axis=1)
    measured = Measured((3, 12), errors, sure, rng.integers(50, 300, 200), 2000)
    for price in (0.0, 0.05, 0.5, 5.0):
        tried = (0.0, NEVER, *measured.confidence[:, 0].tolist())
        costs = [point.wer + price * point.layers for point in (measured.at([threshold]) for threshold in tried)]
        found = measured.at(thresholds_for(measured, price))
        assert found.wer + price * found.layers == pytest.approx(min(costs))


def test_the_bound_of_the_difference_decides() -> None:
    many = Measured((2, 6), *(np.repeat(a, 500, axis=0) for a in (MEASURED.errors, MEASURED.confidence, MEASURED.frames)), 5000)
    more = many.errors[:, 0] - many.errors[:, 1]
    assert many.worst([0.0]) == pytest.approx(100 * (more.sum() + 1.645 * np.sqrt(1500) * more.std()) / 5000)
    assert many.at(choose_thresholds(many, 0.0)[0]).layers == 3.0
    assert many.at(choose_thresholds(many, many.worst([0.0]))[0]).layers == 2.0
    few = choose_thresholds(MEASURED, 20.0)[0]
    assert MEASURED.at(few).layers == 3.0, "three utterances show 20 points more, but the bound is higher"


@pytest.fixture
def experiment(tiny_experiment: Path) -> Experiment:
    return load(tiny_experiment)


def test_errors_are_those_of_the_search(experiment: Experiment, tiny_data: Path) -> None:
    corpus = Corpus(tiny_data / "dev", experiment.tokenizer)
    measured = measure(experiment, corpus, (1, 2, 4), GREEDY, HERE)
    keeps = [(1,), (1, 2), (1, 2, 3, 4)]
    scores = DevScorer(experiment, corpus, "wer", HERE)(keeps)
    assert [measured.ending_at(number).wer for number in range(3)] == [scores[keep].primary for keep in keeps]
    assert measured.at([0.0] * 2) == measured.ending_at(0)
    assert measured.at([NEVER] * 2) == measured.ending_at(2)


def test_all_jobs_have_the_arithmetic_of_this_machine(
    experiment: Experiment, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, make = [], Runner.of
    monkeypatch.setattr(Runner, "of", lambda one, gpus: (found.append(one.config.decode.precision), make(one, gpus))[1])
    automatic = with_numbers(experiment, "decode", precision="auto")
    measure(automatic, Corpus(tiny_data / "dev", experiment.tokenizer), (2, 4), GREEDY, HERE)
    assert set(found) == {decided("auto", 0)}


def test_the_command_writes_a_record_and_a_figure(own: Experiment, tiny_data: Path) -> None:
    done = asrprune("early-exit", tiny_data / "train", "--exp", own.path, "--dev", tiny_data / "dev")
    assert done.code == 0, done.err
    made = EarlyExit.read(own.path / "early_exit.json")
    assert (made.set, made.exits, list(made.curves)) == ("dev", (1, 2, 4), ["dev", "train"])
    assert [line.split(":")[0] for line in done.out.splitlines()][1:] == ["dev", "train"]
    assert (own.path / "early_exit.png").stat().st_size > 10_000


def test_the_command_chooses_for_another_decoder(own: Experiment, tiny_data: Path) -> None:
    """As the warning about thresholds of another decoder advises."""
    done = asrprune("early-exit", "--exp", own.path, "--dev", tiny_data / "dev", "--context", "five")
    assert done.code == 0, done.err
    wanted = decoder_of(own, {"type": "beam", "context": ["five"]}).identity
    assert EarlyExit.read(own.path / "early_exit.json").decoder == wanted


def test_a_margin_without_a_bound_is_refused(own: Experiment, tiny_data: Path) -> None:
    done = asrprune("early-exit", "--exp", own.path, "--dev", tiny_data / "dev", "--margin", "inf")
    assert (done.code, "--margin" in done.err) == (2, True), done.err


def test_a_model_with_one_exit_is_refused(experiment: Experiment, tiny_data: Path) -> None:
    one, dev = with_numbers(experiment, "model", taps=()), Corpus(tiny_data / "dev", experiment.tokenizer)
    with pytest.raises(UserError, match=r"has one exit; train it with model\.taps, or keep a layer with a tap when you prune"):
        early_exit(one, dev, [], 0.5, GREEDY)
