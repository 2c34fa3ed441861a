"""Dev scores that share the layers below a candidate are those of every sub-model run on its own, bit for bit."""

from pathlib import Path

import pytest
import torch
from rapidfuzz.distance import Levenshtein

from asrprune.config import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tokenizer import Tokenizer
from asrprune.nn.model import CtcModel, ctc_losses
from asrprune.prune.dev_score import DevScorer
from asrprune.prune.search import Score, greedy

LAYERS = 6
ALL = tuple(range(1, LAYERS + 1))


@pytest.fixture(scope="module")
def corpus(tiny_data: Path) -> Corpus:
    return Corpus(tiny_data / "dev", Tokenizer(tiny_data / "lang/bpe.model"))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "conditioned"])
def model(request: pytest.FixtureRequest, tiny_config: Config, corpus: Corpus) -> CtcModel:
    """An untrained model, in training mode, with a tap on its last layer and dropout that must not show."""
    changed = {"num_layers": LAYERS, "taps": (2, 4, LAYERS), "self_conditioning": request.param, "dropout": 0.5}
    torch.manual_seed(3)
    assert corpus.tokenizer is not None
    return CtcModel(tiny_config.model.model_copy(update=changed), 80, len(corpus.tokenizer)).train()


def naive(model: CtcModel, corpus: Corpus, batches: list, keep: tuple[int, ...]) -> tuple[float, float]:
    """WER in percent and mean loss of a sub-model that runs from the bottom, with a decoder of its own."""
    assert corpus.tokenizer is not None
    errors, loss = 0, 0.0
    model.eval()
    with torch.inference_mode():
        for batch in corpus.loader(batches):
            emissions = model.emit(batch.features, batch.lens, keep)
            loss += float(ctc_losses(emissions.log_probs, emissions.lens, batch.labels, batch.label_lens).sum())
            for row, index in enumerate(batch.index):
                best = emissions.log_probs[row, : int(emissions.lens[row])].argmax(-1).tolist()
                labels = [now for before, now in zip([0, *best], best, strict=False) if now not in (0, before)]
                errors += Levenshtein.distance(corpus.tokenizer.decode(labels).split(), corpus.texts[index].split())
    words = sum(len(text.split()) for text in corpus.texts)
    return 100.0 * errors / words, loss / len(corpus)


@pytest.mark.parametrize("metric", ["wer", "ctc"])
@pytest.mark.parametrize("batch_frames", [150, 100_000])
def test_shared_prefixes_score_as_sub_models_on_their_own(
    model: CtcModel, corpus: Corpus, metric: str, batch_frames: int
) -> None:
    scorer = DevScorer(model.train(), corpus, metric, batch_frames)
    for keep in (ALL, (1, 2, 4, 6), (3, 5), (2,)):
        shared = scorer.score_removals(keep)
        assert list(shared) == list(keep)
        for gone, score in shared.items():
            left = tuple(layer for layer in keep if layer != gone)
            wer, loss = naive(model, corpus, scorer.batches, left)
            assert score == (Score(wer, loss) if metric == "wer" else Score(loss, wer))
    wer, loss = naive(model, corpus, scorer.batches, ALL)
    assert scorer.score(ALL) == (Score(wer, loss) if metric == "wer" else Score(loss, wer))


def test_sub_models_differ_so_that_equality_says_something(model: CtcModel, corpus: Corpus) -> None:
    scores = DevScorer(model, corpus, "ctc", 10_000).score_removals(ALL)
    assert len({score.primary for score in scores.values()}) == LAYERS


def test_the_cost_is_counted_as_it_is(model: CtcModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count equals the layers that were really called, times one pass over the dev set."""
    called = 0

    def count(*_: object) -> None:
        nonlocal called
        called += 1

    scorer = DevScorer(model, corpus, "wer", 150)
    handles = [layer.register_forward_hook(count) for layer in model.encoder.layers]
    greedy(LAYERS, scorer.score(ALL), scorer.score_removals)
    for handle in handles:
        handle.remove()
    assert len(scorer.batches) > 1
    assert called == scorer.layer_forwards * len(scorer.batches)
    sizes = range(2, LAYERS + 1)
    assert scorer.layer_forwards == LAYERS + sum(n * (n - 1) // 2 + n - 1 for n in sizes)
    assert scorer.naive_layer_forwards == LAYERS + sum(n * (n - 1) for n in sizes)


def test_batches_on_another_budget_change_nothing_of_note(model: CtcModel, corpus: Corpus) -> None:
    small, large = (DevScorer(model, corpus, "ctc", frames).score(ALL).primary for frames in (1, 100_000))
    assert small == pytest.approx(large, rel=1e-5)
