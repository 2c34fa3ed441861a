"""Prefix beam search against all paths of tiny utterances, added up; its labels lie where the best path has them."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asrprune.config.schema import BeamConfig
from asrprune.decode.alignment import align
from asrprune.decode.decoder import BestPath
from asrprune.decode.greedy import GREEDY
from asrprune.decode.phrases import Phrases
from asrprune.decode.prefix_beam import PrefixBeam
from asrprune.lm.arpa import ArpaModel
from asrprune.lm.language_model import LanguageModel

PIECES = ["<blk>", "▁a", "▁b", "c"]
MORE_PIECES = [*PIECES, "d"]
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures/ctc_beam_decoder"


def options_of(**numbers: Any) -> BeamConfig:
    """Options; where they weigh a language model, they name one."""
    return BeamConfig(**({"lm": "tiny.arpa"} if numbers.keys() & {"lm_weight", "unknown_penalty"} else {}) | numbers)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """A bigram model of "a", "b" and "ac"."""
    return ArpaModel(FIXTURES / "tiny.arpa")


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def random_emissions(frames: int, vocab: int, seed: int) -> np.ndarray:
    """(T', V) log-probabilities, neither flat nor sure."""
    scores = np.random.default_rng(seed).normal(scale=1.5, size=(frames, vocab))
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def all_labels(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Every label sequence and the sum of the probabilities of its paths."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        found[collapsed(path)] += math.exp(sum(log_probs[frame, label] for frame, label in enumerate(path)))
    return found


def spelled(labels: Sequence[int]) -> list[str]:
    return "".join(PIECES[label] for label in labels).replace("▁", " ").split()


def score(labels: tuple[int, ...], probability: float, options: BeamConfig, lm: LanguageModel | None) -> float:
    """What is documented of a label sequence's score."""
    words = spelled(labels)
    total = math.log(probability) + (options.word_bonus or 0.0) * len(words)
    if lm is not None:
        total += (options.lm_weight or 0.0) * math.log(10) * lm.sentence(words)
        expected = {word for phrase in options.context for word in phrase.split()}
        total -= options.unknown_penalty * sum(word not in {"a", "b", "ac"} | expected for word in words)
    for phrase in options.context:
        length = len(phrase.split())
        times = sum(words[start : start + length] == phrase.split() for start in range(len(words)))
        total += options.context_bonus * len(phrase.replace(" ", "")) * times
    return total


@pytest.mark.parametrize(
    ("numbers", "with_lm"),
    [
        ({}, False),
        ({"word_bonus": 1.5}, False),
        ({"lm_weight": 0.8, "word_bonus": 0.5}, True),
        ({"lm_weight": 2.0, "unknown_penalty": 3.0}, True),
        ({"context": ("b ac", "ac"), "context_bonus": 1.0}, False),
        ({"context": ("bc a", "a b", "a b ac"), "context_bonus": 0.7}, False),
        ({"lm_weight": 1.0, "unknown_penalty": 2.0, "context": ("bc",), "context_bonus": 0.9}, True),
    ],
)
def test_the_best_of_all_paths_added_up(numbers: dict[str, object], with_lm: bool, lm: LanguageModel) -> None:
    options = options_of(**{"width": 10_000, "min_prob": 0.0, **numbers})
    model = lm if with_lm else None
    decoder, greedy = PrefixBeam(PIECES, options, model), 0
    for seed in range(15):
        log_probs = random_emissions(5, len(PIECES), seed)
        sums = all_labels(log_probs)
        best = max(sums, key=lambda labels: score(labels, sums[labels], options, model))
        assert decoder.decode(torch.tensor(log_probs)[None], torch.tensor([5]))[0].labels == list(best)
        greedy += collapsed(tuple(log_probs.argmax(axis=1).tolist())) == best
    assert greedy < 15, "nothing is shown where greedy decoding finds it all"


def test_scores_of_all_prefixes_are_the_sums(lm: LanguageModel) -> None:
    """Not only the best one: every label sequence is there once, with all of its paths."""
    options = options_of(width=10_000, min_prob=0.0, lm_weight=0.8, word_bonus=0.5, context=("a b",), unknown_penalty=1.0)
    decoder = PrefixBeam(PIECES, options, lm)
    log_probs = random_emissions(5, len(PIECES), 0)
    beam = decoder.advance(decoder.start(), log_probs)
    found = {}
    for prefix in beam.prefixes:
        labels, node = [], prefix
        while node.parent is not None:
            labels.append(node.label)
            node = node.parent
        assert tuple(labels[::-1]) not in found
        if prefix.in_blank + prefix.in_label:
            found[tuple(labels[::-1])] = decoder._final_score(prefix)
    expected = {labels: score(labels, total, options, lm) for labels, total in all_labels(log_probs).items()}
    best = max(expected.values())
    shift = max(found.values()) - best  # the beam's probabilities share a factor
    assert found == pytest.approx({labels: value + shift for labels, value in expected.items()}, abs=1e-5)


def test_texts_and_scores_are_those_of_ctc_beam_decoder(lm: LanguageModel) -> None:
    """tools/record_ctc_beam_decoder.py has recorded them; KenLM scored the words there."""
    recorded = json.loads((FIXTURES / "random.json").read_text())
    assert recorded["pieces"] == MORE_PIECES
    for case in recorded["cases"]:
        model, weights = (lm, {"lm_weight": case["lm_weight"]}) if case["lm_weight"] is not None else (None, {})
        options = options_of(width=100_000, min_prob=0.0, word_bonus=case["word_bonus"], **weights)
        log_probs = torch.tensor(case["log_probs"], dtype=torch.float64).log_softmax(-1)
        (path,) = PrefixBeam(MORE_PIECES, options, model).decode(log_probs[None], torch.tensor([len(log_probs)]))
        words = "".join(MORE_PIECES[label] for label in path.labels).replace("▁", " ").split()
        assert " ".join(words) == case["text"]
        loss = torch.nn.functional.ctc_loss(
            log_probs, torch.tensor(path.labels), torch.tensor(len(log_probs)), torch.tensor(len(path.labels)), reduction="sum"
        )
        total = -loss.item() + case["word_bonus"] * len(words)
        if model is not None:
            total += case["lm_weight"] * math.log(10) * model.sentence(words)
        assert total == pytest.approx(case["score"], abs=1e-4)


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 0, 7], [11, 1]])
def test_chunks_change_nothing(sizes: list[int], lm: LanguageModel) -> None:
    options = options_of(width=4, lm_weight=0.8, context=("b ac",))
    decoder, together = PrefixBeam(PIECES, options, lm), set()
    for seed in range(10):
        log_probs = random_emissions(12, len(PIECES), seed)
        whole = decoder.finish(decoder.advance(decoder.start(), log_probs))
        beam = decoder.start()
        for chunk in np.split(log_probs, np.cumsum(sizes)[:-1]):
            beam = decoder.advance(beam, chunk)
            decoder.finish(beam)  # a look on the way
        assert decoder.finish(beam) == whole
        together.add(tuple(whole.labels))
    assert len(together) > 5


def test_a_long_stream_holds_what_may_still_win(lm: LanguageModel) -> None:
    decoder = PrefixBeam(PIECES, options_of(width=4, lm_weight=0.8), lm)
    beam = decoder.start()
    for seed in range(40):
        beam = decoder.advance(beam, random_emissions(10, len(PIECES), seed))
    nodes, count = [beam.root], 0
    while nodes:
        nodes = [child for node in nodes for child in node.children.values()]
        count += len(nodes)
    assert len(decoder.finish(beam).labels) > 100
    assert count < 40


def test_a_wider_beam_finds_what_is_at_least_as_good(lm: LanguageModel) -> None:
    options = {width: options_of(width=width, min_prob=0.0, lm_weight=1.0) for width in (1, 3, 1000)}
    totals: dict[int, float] = defaultdict(float)
    for seed in range(20):
        log_probs = random_emissions(5, len(PIECES), seed)
        sums = all_labels(log_probs)
        for width, numbers in options.items():
            labels = tuple(PrefixBeam(PIECES, numbers, lm).decode(torch.tensor(log_probs)[None], torch.tensor([5]))[0].labels)
            totals[width] += score(labels, sums[labels], numbers, lm)
    assert totals[1] < totals[3] <= totals[1000]


def test_sure_emissions_give_greedys_paths() -> None:
    """Labels, first and last frames, in a batch with padding and an empty utterance."""
    generator = torch.Generator().manual_seed(0)
    best = torch.randint(0, 4, (6, 12), generator=generator).repeat_interleave(3, dim=1)
    log_probs = (8.0 * torch.nn.functional.one_hot(best, 4).float() + torch.rand(6, 36, 4, generator=generator)).log_softmax(-1)
    lens = torch.tensor([36, 30, 17, 1, 0, 36])
    decoder = PrefixBeam(PIECES, options_of())
    assert decoder.decode(log_probs, lens) == GREEDY.decode(log_probs, lens)
    assert decoder.decode(log_probs, lens)[4] == BestPath([], [], [])


@pytest.mark.parametrize("labels", [[], [1], [1, 1], [1, 2, 1], [3, 3, 3], [1, 2, 3, 1, 2]])
def test_labels_lie_where_the_best_of_all_their_paths_has_them(labels: list[int]) -> None:
    for seed in range(5):
        log_probs = random_emissions(6, 4, seed)
        paths = [path for path in itertools.product(range(4), repeat=6) if list(collapsed(path)) == labels]
        best = max(paths, key=lambda path: sum(log_probs[frame, label] for frame, label in enumerate(path)))
        runs = [list(run) for _, run in itertools.groupby(range(6), key=lambda frame: best[frame])]
        runs = [run for run in itertools.chain(runs) if best[run[0]] != 0]
        assert align(log_probs, labels) == BestPath(labels, [run[0] for run in runs], [run[-1] for run in runs])


@pytest.mark.parametrize(
    ("pieces", "value"),
    [
        ("▁new ▁york", 7),
        ("new ▁y ork", 7),  # a text begins with a word, marked or not
        ("▁ new ▁ ▁york", 7),
        ("▁newyork", 0),
        ("▁new ▁yorker", 0),
        ("▁new ▁new ▁york ▁new", 7),
        ("▁new ▁york ▁new ▁york", 14),
        ("▁new ▁york ▁times", 12 + 7 + 5),  # each phrase on its own
        ("▁times", 5),
        ("▁sometimes", 0),
        ("▁york ▁city", 0),
    ],
)
def test_phrases_are_counted_as_whole_words(pieces: str, value: float) -> None:
    phrases = Phrases(("new york", "new york times", "times"), 1.0)
    total, node = 0.0, phrases.start
    for piece in pieces.split():
        gain, node = phrases.step(node, piece)
        total += gain
    assert total + phrases.end(node) == pytest.approx(value)


def test_the_start_of_a_phrase_is_rewarded_until_it_breaks_off() -> None:
    phrases, gains = Phrases(("new york",), 2.0), []
    node = phrases.start
    for piece in ("▁n", "ew", "▁yo", "del"):
        gain, node = phrases.step(node, piece)
        gains.append(gain)
    assert gains == [2.0, 4.0, 4.0, -10.0]
