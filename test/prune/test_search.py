"""From a strategy's name to its plan file, with no look at anything but the dev set."""

import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from experiments import with_numbers
from records import measures

from asrprune.analysis.matrices import similarity_path
from asrprune.analysis.measure import measure_layers
from asrprune.config.schema import BeamConfig
from asrprune.data.dataset import Corpus
from asrprune.decode.prefix_beam import PrefixBeam
from asrprune.experiment.plan import Keep, plan_path, read_plan
from asrprune.experiment.store import Experiment
from asrprune.prune.dev_score import CLEAR, DevScore
from asrprune.prune.dev_scorer import DevScorer
from asrprune.prune.score_cache import CachedScorer
from asrprune.prune.search import check_measured, make_plan
from asrprune.prune.strategies.iterative import iterative
from asrprune.prune.strategies.table import STRATEGIES
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, processes
from asrprune.runtime.files import read_json, write_json

MEASURED = ("svcca", "influence")  # strategies that need what stage 6 measures


def measured(exp: Experiment, **arrays: np.ndarray) -> None:
    """Write these measures of the layers as those of the dev set."""
    path = similarity_path(exp.path, "dev")
    path.parent.mkdir()
    np.savez(path, **measures(exp.record.model_sha256, 5, **arrays))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_plan_is_written_and_reads_back_for_this_model(own: Experiment, tiny_data: Path, strategy: str) -> None:
    dev = tiny_data / ("train" if strategy in MEASURED else "dev")  # the tiny dev set has too few frames for svcca
    if strategy in MEASURED:
        measure_layers(own, dev)
    plan = make_plan(own, strategy, dev)
    again = read_plan(plan_path(own.path, strategy), own.num_layers, own.record.model_sha256)
    assert again.steps == plan.steps
    assert [step.depth for step in plan.steps] == [4, 3, 2, 1]
    assert plan.dev_set == (dev.name if strategy in ("iterative", *MEASURED) else None)
    assert plan.metric == ("wer" if strategy == "iterative" else None)
    assert all((step.score is None) is (strategy != "iterative") for step in plan.steps)
    written = json.loads(plan_path(own.path, strategy).read_text())
    assert written["strategy"] == strategy
    assert written["asrprune"].startswith("0.")
    assert ("seconds" in written) is (strategy == "iterative")


def dev_scorer(exp: Experiment, dev: Path, metric: str) -> DevScorer:
    return DevScorer(exp, Corpus(dev, exp.tokenizer), metric, HERE)


@pytest.mark.parametrize("metric", ["wer", "ctc"])
@pytest.mark.parametrize("beam", [1, 2])
def test_iterative_is_the_search_with_the_dev_scores(own: Experiment, tiny_data: Path, metric: str, beam: int) -> None:
    plan = make_plan(with_numbers(own, "prune", metric=metric, depths=(3, 2), beam=beam), "iterative", tiny_data / "dev")
    scorer = dev_scorer(own, tiny_data / "dev", metric)
    assert plan.steps == iterative(4, scorer, 2, beam)
    assert plan.metric == metric
    assert [step.depth for step in plan.steps] == [4, 3, 2]
    for step in plan.steps:
        assert step.score == pytest.approx(scorer([step.keep])[step.keep].primary)
    assert plan.beam == beam
    assert plan.clear == (None if beam == 1 else CLEAR)
    assert 0 < plan.layer_forwards < plan.naive_layer_forwards
    assert plan.naive_layer_forwards >= 4 + 12 + 6


def test_a_killed_search_goes_on(own: Experiment, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was scored before the kill is not scored again; plan and costs are those of a search that was not killed."""
    whole = make_plan(own, "iterative", tiny_data / "dev")
    shutil.rmtree(own.path / "plans")
    asked: list[int] = []
    score = DevScorer.__call__

    def killed_at_the_third(self: DevScorer, sets: list[Keep], best: int | None = None) -> dict[Keep, DevScore]:
        asked.append(len(sets))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return score(self, sets, best)

    monkeypatch.setattr(DevScorer, "__call__", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        make_plan(own, "iterative", tiny_data / "dev")
    assert not plan_path(own.path, "iterative").exists()
    again = make_plan(own, "iterative", tiny_data / "dev")
    calls = len(asked)
    assert again.steps == whole.steps
    assert again.naive_layer_forwards == whole.naive_layer_forwards
    assert make_plan(own, "iterative", tiny_data / "dev").steps == whole.steps
    assert len(asked) == calls, "all of it was known"
    assert asked[3] == asked[2], "the one that was cut off comes again, and none of those before it"
    make_plan(own, "iterative", tiny_data / "dev", own.config.prune.model_copy(update={"metric": "ctc"}))
    assert len(asked) > calls, "another question"
    calls = len(asked)
    make_plan(own, "iterative", tiny_data / "dev", decoder=PrefixBeam(own.tokenizer.pieces, BeamConfig()))
    assert len(asked) > calls, "another decoder"


@pytest.mark.parametrize("metric", ["wer", "ctc"])
def test_processes_find_the_same_plan(own: Experiment, tiny_data: Path, metric: str) -> None:
    options = own.config.prune.model_copy(update={"metric": metric, "beam": 2})
    here = make_plan(own, "iterative", tiny_data / "dev", options)
    shutil.rmtree(own.path / "plans")
    with processes(2) as two:
        there = make_plan(own, "iterative", tiny_data / "dev", options, two)
    assert there.steps == here.steps
    assert there.naive_layer_forwards == here.naive_layer_forwards
    assert here.layer_forwards <= there.layer_forwards < there.naive_layer_forwards


def test_the_dev_set_chooses_among_proposals_of_svcca(own: Experiment, tiny_data: Path) -> None:
    measure_layers(own, tiny_data / "train")
    plain = make_plan(own, "svcca", tiny_data / "train")
    chosen = make_plan(with_numbers(own, "prune", rerank=6, metric="ctc"), "svcca", tiny_data / "train")
    scorer = dev_scorer(own, tiny_data / "train", "ctc")
    assert (plain.metric, chosen.metric, chosen.rerank) == (None, "ctc", 6)
    for before, after in zip(plain.steps, chosen.steps, strict=True):  # six are all sets of 2 of 4 layers
        sets = list(itertools.combinations(range(1, 5), before.depth))
        assert after.score == pytest.approx(min(score.primary for score in scorer(sets).values()))
        assert after.score <= scorer([before.keep])[before.keep].primary + 1e-6


def test_svcca_is_the_search_on_the_measured_matrix(own: Experiment, tiny_data: Path) -> None:
    matrix = np.full((5, 5), 0.2)
    matrix[1, 2] = matrix[2, 3] = 0.9
    matrix[1, 3] = 0.95
    measured(own, similarity=matrix)
    plan = make_plan(with_numbers(own, "prune", depths=(4, 2)), "svcca", tiny_data / "dev")
    assert [step.keep for step in plan.steps] == [(1, 2, 3, 4), (1, 4)]


def test_influence_keeps_the_layers_that_were_measured_to_change_most(own: Experiment, tiny_data: Path) -> None:
    measured(own, influence=np.array([0.9, 0.1, 0.2, 0.3]))
    plan = make_plan(with_numbers(own, "prune", depths=(4, 3, 1)), "influence", tiny_data / "dev")
    assert [step.keep for step in plan.steps] == [(1, 2, 3, 4), (1, 3, 4), (1,)]


def test_a_file_of_an_older_asrprune_has_no_influence_and_stage_6_is_named(own: Experiment, tiny_data: Path) -> None:
    measured(own, similarity=np.eye(5))
    check_measured(own, ["svcca", "iterative", "lowest"], tiny_data / "dev")
    dev = tiny_data / "dev"
    for asked in (lambda: make_plan(own, "influence", dev), lambda: check_measured(own, ["influence"], dev)):
        with pytest.raises(UserError, match=r"svcca/dev\.npz: has no influence, .*; run stage 6"):
            asked()
    assert not plan_path(own.path, "influence").exists()


def test_svcca_without_its_matrix_names_stage_6(own: Experiment, tiny_data: Path) -> None:
    with pytest.raises(UserError, match=r"svcca/dev\.npz: no such file; stage 6"):
        make_plan(own, "svcca", tiny_data / "dev")
    assert not plan_path(own.path, "svcca").exists()


def test_an_unknown_strategy_lists_the_known_ones(own: Experiment, tiny_data: Path) -> None:
    with pytest.raises(UserError, match="no such strategy; choose from iterative, svcca, influence, every, lowest"):
        make_plan(own, "best", tiny_data / "dev")


# ---- never look at a test set


_watchers: list[Callable[[str], None]] = []


def _audit(event: str, args: tuple[object, ...]) -> None:
    if _watchers and event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], str | bytes):
        path = args[0] if isinstance(args[0], str) else args[0].decode()
        for watcher in _watchers:
            watcher(path)


sys.addaudithook(_audit)  # it cannot be taken away again, so it is added once


@contextmanager
def opened() -> Iterator[set[Path]]:
    """The paths that are opened or listed in the block."""
    paths: set[Path] = set()
    _watchers.append(lambda path: paths.add(Path(path).resolve()))
    try:
        yield paths
    finally:
        _watchers.clear()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_but_the_dev_set_is_opened(own: Experiment, tiny_data: Path, tmp_path: Path, strategy: str) -> None:
    data = Path(shutil.copytree(tiny_data, tmp_path / "data")).resolve()
    shutil.copytree(data / "dev", data / "test")
    dev = data / ("train" if strategy in MEASURED else "dev")
    if strategy in MEASURED:
        measure_layers(own, dev)
    with opened() as paths:
        make_plan(own, strategy, dev)
    below = {path.relative_to(data).parts[0] for path in paths if path.is_relative_to(data)}
    features = {path for path in paths if path.name == "feats.ark"}
    if strategy in ("iterative", *MEASURED):  # the features of a measured set are compared with those that were measured
        assert below == {dev.name}
        assert features == {(tiny_data / dev.name / "fbank/feats.ark").resolve()}, "the copy's feats.scp points there"
    else:
        assert (below, features) == (set(), set())
    assert any(path.is_relative_to(own.path.resolve()) for path in paths), "the watch works"


class Counting:
    """A scorer that notes the sub-models that it is asked for."""

    layer_forwards, naive_layer_forwards, num_speakers = 0.0, 0, 2

    def __init__(self) -> None:
        self.asked: list[Keep] = []

    def __call__(self, keeps: Sequence[Keep], best: int | None) -> dict[Keep, DevScore]:
        self.asked += keeps
        return {keep: DevScore(1.0 * len(keep), 0.0, (1.0, 1.0)) for keep in keeps}


@pytest.mark.parametrize("spoil", [lambda rows: rows[:1], lambda _: [[[3], 1.0, 1.0]] * 2, lambda _: []])
def test_scores_of_other_sub_models_are_computed_again(spoil: Callable[[list[object]], list[object]], tmp_path: Path) -> None:
    """The file may be a stranger's."""
    path, keeps = tmp_path / "iterative.json", [(1, 2), (1,)]
    for again in ([*keeps], []):
        scorer = Counting()
        assert CachedScorer(cast(DevScorer, scorer), path, [])(keeps).keys() == set(keeps)
        assert scorer.asked == again
    ((key, result),) = read_json(path).items()
    write_json(path, {key: {**result, "scores": spoil(result["scores"])}})
    assert CachedScorer(cast(DevScorer, scorer), path, [])(keeps).keys() == set(keeps)
    assert scorer.asked == keeps


@pytest.mark.parametrize("known", [{}, {"by_speaker": [[1.0, 2.0, 3.0]]}])
def test_scores_of_other_speakers_or_of_none_are_computed_again(known: dict[str, object], tmp_path: Path) -> None:
    """Earlier versions wrote none."""
    path, scorer = tmp_path / "iterative.json", Counting()
    CachedScorer(cast(DevScorer, scorer), path, [])([(1, 2)])
    ((key, result),) = read_json(path).items()
    write_json(path, {key: {name: value for name, value in result.items() if name != "by_speaker"} | known})
    assert CachedScorer(cast(DevScorer, scorer), path, [])([(1, 2)])[(1, 2)].by_speaker == (1.0, 1.0)
    assert scorer.asked == [(1, 2), (1, 2)]
    assert CachedScorer(cast(DevScorer, scorer), path, [])([(1, 2)])[(1, 2)].by_speaker == (1.0, 1.0)
    assert len(scorer.asked) == 2
