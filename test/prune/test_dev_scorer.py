"""Dev scores that share layers are those of every sub-model run on its own."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from emissions import emit
from experiments import with_numbers
from rapidfuzz.distance import Levenshtein

from asrprune.config.schema import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tokenizer import Tokenizer
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.model.ctc_model import CtcModel
from asrprune.model.head import ctc_losses
from asrprune.prune.dev_scorer import DevScorer, Share, count_errors
from asrprune.runtime.executor import HERE, Executor

LAYERS = 6
ALL = tuple(range(1, LAYERS + 1))


@pytest.fixture(scope="module")
def corpus(tiny_data: Path) -> Corpus:
    return Corpus(tiny_data / "dev", Tokenizer(tiny_data / "lang/bpe.model"))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "conditioned"])
def exp(request: pytest.FixtureRequest, tiny_config: Config, corpus: Corpus) -> Experiment:
    """An untrained model, in training mode, with a tap on its last layer and dropout that must not show."""
    changed = {"num_layers": LAYERS, "taps": (2, 4, LAYERS), "self_conditioning": request.param, "dropout": 0.5}
    torch.manual_seed(3)
    assert corpus.tokenizer is not None
    model = CtcModel(tiny_config.model.model_copy(update=changed), 80, len(corpus.tokenizer)).train()
    return Experiment(Path("nowhere"), tiny_config, corpus.tokenizer, model, {})


def scorer_of(exp: Experiment, corpus: Corpus, metric: str, max_frames: int, executor: Executor = HERE) -> DevScorer:
    return DevScorer(with_numbers(exp, "decode", max_frames=max_frames), corpus, metric, executor)


def naive(model: CtcModel, corpus: Corpus, batches: list, keep: tuple[int, ...]) -> tuple[float, float]:
    """WER in percent and mean loss of a sub-model that runs from the bottom, with a decoder of its own."""
    assert corpus.tokenizer is not None
    errors, loss = 0, 0.0
    model.eval()
    with torch.inference_mode():
        for batch in corpus.loader(batches):
            emissions = emit(model, batch.features, batch.lens, keep)
            loss += float(ctc_losses(emissions.log_probs, emissions.lens, batch.labels, batch.label_lens).sum())
            for row, index in enumerate(batch.index):
                best = emissions.log_probs[row, : int(emissions.lens[row])].argmax(-1).tolist()
                labels = [now for before, now in zip([0, *best], best, strict=False) if now not in (0, before)]
                errors += Levenshtein.distance(corpus.tokenizer.decode(labels).split(), corpus.texts[index].split())
    words = sum(len(text.split()) for text in corpus.texts)
    return 100.0 * errors / words, loss / len(corpus)


@pytest.mark.parametrize("metric", ["wer", "ctc"])
def test_the_scores_of_the_speakers_sum_to_the_score(exp: Experiment, corpus: Corpus, metric: str) -> None:
    scorer = scorer_of(exp, corpus, metric, 150)
    units = 100 / scorer.words if metric == "wer" else 1 / len(corpus)
    scorer.speakers = np.arange(len(corpus)) % 3
    for score in scorer([ALL, (1, 2)]).values():
        assert len(score.by_speaker) == 3
        assert min(score.by_speaker) > 0
        assert units * sum(score.by_speaker) == pytest.approx(score.primary)


def removals(keep: Keep) -> list[Keep]:
    return [tuple(layer for layer in keep if layer != gone) for gone in keep]


@pytest.mark.parametrize("metric", ["wer", "ctc"])
@pytest.mark.parametrize("batch_frames", [150, 100_000])
def test_shared_prefixes_score_as_sub_models_on_their_own(
    exp: Experiment, corpus: Corpus, metric: str, batch_frames: int
) -> None:
    """A small budget runs one sub-model at a time, a large one several in one call."""
    exp.model.train()
    scorer = scorer_of(exp, corpus, metric, batch_frames)
    sets = [ALL, *removals(ALL), (1, 2, 4), (3, 5), (2,)]
    found = scorer(sets)
    assert list(found) == sets
    for keep, score in found.items():
        wer, loss = naive(exp.model, corpus, scorer.batches, keep)
        primary, tie_break = (wer, loss) if metric == "wer" else (loss, wer)
        assert score.primary == pytest.approx(primary, rel=1e-5)
        assert score.tie_break == pytest.approx(tie_break, rel=1e-5)


def test_sub_models_differ_so_that_equality_says_something(exp: Experiment, corpus: Corpus) -> None:
    scores = scorer_of(exp, corpus, "ctc", 10_000)(removals(ALL))
    assert len({score.primary for score in scores.values()}) == LAYERS


@pytest.mark.parametrize("metric", ["wer", "ctc"])
def test_what_cannot_be_among_the_best_is_given_up_and_nothing_else(exp: Experiment, corpus: Corpus, metric: str) -> None:
    sets = list(itertools.combinations(ALL, 3))
    complete = scorer_of(exp, corpus, metric, 150)(sets)
    promising = sorted(sets, key=complete.__getitem__)
    for best in (1, 3):
        scorer = scorer_of(exp, corpus, metric, 150)
        found = scorer(promising[1:], best)  # the best of them is the limit
        assert all(found[keep] == pytest.approx(complete[keep]) for keep in found)
        limit = complete[promising[best]].primary
        assert set(found) == {keep for keep in promising[1:] if complete[keep].primary <= limit}
        late = scorer_of(exp, corpus, metric, 150)
        assert min(late(promising[::-1], best).values()) == pytest.approx(complete[promising[0]])
        if metric == "ctc":  # an untrained model makes about as many errors whatever is removed
            assert len(found) < len(sets) - 1
            assert scorer.layer_forwards < late.layer_forwards


@pytest.mark.parametrize("batch_frames", [150, 1500])
def test_the_cost_is_counted_as_it_is(exp: Experiment, corpus: Corpus, batch_frames: int) -> None:
    """The count equals the layers that every utterance really went through."""
    rows = 0

    def count(_: object, inputs: tuple[torch.Tensor, ...], __: object) -> None:
        nonlocal rows
        rows += len(inputs[0])

    scorer = scorer_of(exp, corpus, "wer", batch_frames)
    handles = [layer.register_forward_hook(count) for layer in exp.model.encoder.layers]
    scorer([ALL, *removals(ALL)])
    for handle in handles:
        handle.remove()
    assert scorer.layer_forwards == pytest.approx(rows / len(corpus))
    assert scorer.layer_forwards == pytest.approx(LAYERS + LAYERS * (LAYERS - 1) / 2)
    assert scorer.naive_layer_forwards == LAYERS + LAYERS * (LAYERS - 1)


def test_batches_on_another_budget_change_nothing_of_note(exp: Experiment, corpus: Corpus) -> None:
    small, large = (scorer_of(exp, corpus, "ctc", frames)([ALL])[ALL].primary for frames in (1, 100_000))
    assert small == pytest.approx(large, rel=1e-5)


def test_where_each_pass_starts_anew_there_is_one(exp: Experiment, corpus: Corpus) -> None:
    class Cluster(Executor):
        restarts, passes = True, 0

        def map(self, work: Callable, shards: Iterable) -> Iterator:
            self.passes += 1
            return map(work, shards)

    cluster, sets = Cluster(), list(itertools.combinations(ALL, 3))
    found = scorer_of(exp, corpus, "ctc", 150, cluster)(sets, 1)
    assert cluster.passes == 1
    assert found == scorer_of(exp, corpus, "ctc", 150)(sets)


class Shares(Executor):
    """Two large shares, as the jobs of a cluster get them: in this process, in the wrong order."""

    def split(self, items: Sequence) -> list[Sequence]:
        return [items[::2], items[1::2]]

    def map(self, work: Callable, shards: Iterable) -> Iterator:
        return map(work, reversed(list(shards)))


@pytest.mark.parametrize("metric", ["wer", "ctc"])
def test_shares_add_up_and_give_up_what_is_hopeless_in_themselves(exp: Experiment, corpus: Corpus, metric: str) -> None:
    complete = scorer_of(exp, corpus, metric, 150)(list(itertools.combinations(ALL, 3)))
    sets = sorted(complete, key=complete.__getitem__)
    for best in (None, 1, 3):
        whole, shared = scorer_of(exp, corpus, metric, 150), scorer_of(exp, corpus, metric, 150, Shares())
        assert shared(sets, best) == whole(sets, best)
        assert shared.naive_layer_forwards == whole.naive_layer_forwards
        if best is None:
            assert shared.layer_forwards == pytest.approx(whole.layer_forwards)
        else:
            assert shared.layer_forwards >= whole.layer_forwards
    limit = count_errors(exp, corpus, 1, 0, GREEDY, Share(whole.batches, sets[:1], math.inf)).made[sets[0]][:, 1].sum()
    assert set(count_errors(exp, corpus, 1, 0, GREEDY, Share(whole.batches, sets, limit / 9)).made) == set()
