"""Dev metrics: loss and WER of every tap from one pass are those of single utterances and single depths."""

from pathlib import Path

import numpy as np
import pytest
import torch
from emissions import emit

from asrprune.data.dataset import Corpus
from asrprune.data.packed import Packed
from asrprune.data.tables import read_table, write_table
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.store import Experiment, load
from asrprune.infer.runner import Runner
from asrprune.model.head import ctc_losses
from asrprune.runtime.errors import UserError
from asrprune.scoring.wer import word_errors
from asrprune.train.dev import DevMetrics, evaluate
from asrprune.train.ranks import make_fabric

FABRIC = make_fabric("float32", 0)


@pytest.fixture(scope="module")
def experiment(tiny_experiment: Path) -> Experiment:
    return load(tiny_experiment)


def measure(experiment: Experiment, corpus: Corpus, size: int) -> DevMetrics:
    batches = np.array_split(np.arange(len(corpus)), len(corpus) // size)
    return evaluate(Runner.of(experiment), corpus, batches, [1, 2, 4], FABRIC)


def one_by_one(experiment: Experiment, corpus: Corpus, depth: int) -> tuple[float, float]:
    """Mean loss and WER of the sub-model of the lowest ``depth`` layers, utterance by utterance."""
    loss, errors = 0.0, 0
    with torch.inference_mode():
        for batch in corpus.loader([np.array([i]) for i in range(len(corpus))]):
            emissions = emit(experiment.model, batch.features, batch.lens, range(1, depth + 1))
            loss += float(ctc_losses(emissions.log_probs, emissions.lens, batch.labels, batch.label_lens))
            reference = corpus.texts[batch.index[0]].split()
            (path,) = GREEDY.decode(emissions.log_probs, emissions.lens)
            errors += word_errors([path.labels], [reference], experiment.tokenizer)[0]
    return loss / len(corpus), 100 * errors / sum(len(text.split()) for text in corpus.texts)


@pytest.mark.parametrize("size", [1, 3, 6])
def test_metrics_are_those_of_each_depth_and_utterance_alone(experiment: Experiment, corpus: Corpus, size: int) -> None:
    metrics = measure(experiment, corpus, size)
    assert list(metrics.loss) == list(metrics.wer) == ["1", "2", "4"]
    for depth in (1, 2, 4):
        loss, wer = one_by_one(experiment, corpus, depth)
        assert metrics.loss[str(depth)] == pytest.approx(loss, rel=1e-4)
        assert metrics.wer[str(depth)] == pytest.approx(wer)


def test_evaluation_switches_dropout_off(experiment: Experiment, corpus: Corpus) -> None:
    calm = measure(experiment, corpus, 6)
    experiment.model.train()
    assert measure(experiment, corpus, 6) == calm
    assert not experiment.model.training


def test_words_are_counted_not_labels(experiment: Experiment) -> None:
    """Two words against three: one substitution and one deletion; nothing against two: two deletions."""
    tokenizer = experiment.tokenizer
    hypotheses = [tokenizer.encode("one two"), []]
    assert word_errors(hypotheses, [["one", "three", "four"], ["five", "five"]], tokenizer) == [2, 2]


def test_utterances_that_are_too_short_are_counted(experiment: Experiment, tiny_data: Path, tmp_path: Path) -> None:
    """An evaluation set is never filtered: their words are deletions, their loss is 0."""
    from asrprune.features.ark import write_ark

    text = read_table(tiny_data / "dev" / "text")
    entries = read_table(tiny_data / "dev" / "feats.scp")
    frames = read_table(tiny_data / "dev" / "utt2num_frames")
    ark = tmp_path / "short.ark"
    short = {"z1": np.zeros((3, 80), dtype=np.float32), "z2": np.zeros((0, 80), dtype=np.float32)}
    write_table(tmp_path / "feats.scp", {**entries, **write_ark(ark, ark, iter(short.items()))})
    write_table(tmp_path / "utt2num_frames", {**frames, "z1": "3", "z2": "0"})
    write_table(tmp_path / "text", {**text, "z1": "one two", "z2": "three"})
    corpus = Corpus(tmp_path, experiment.tokenizer)
    before, after = (measure(experiment, c, 2) for c in (Corpus(tiny_data / "dev", experiment.tokenizer), corpus))
    words = sum(len(line.split()) for line in text.values())
    for tap in ("1", "2", "4"):
        assert after.loss[tap] == pytest.approx(before.loss[tap] * 6 / 8, rel=1e-4)
        assert after.wer[tap] == pytest.approx((before.wer[tap] * words + 100 * 3) / (words + 3))


def test_dev_set_without_words_is_an_error(experiment: Experiment, corpus: Corpus) -> None:
    corpus.texts = Packed([""] * len(corpus))
    with pytest.raises(UserError, match="dev/text: has no words, so there is no word error rate"):
        measure(experiment, corpus, 3)
