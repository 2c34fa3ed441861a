"""A pruned experiment is an ordinary one that computes exactly what the full model computes with the kept layers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from emissions import emit
from experiments import config_with

from asrprune.config.load import parse_config, read_yaml, resolved
from asrprune.config.schema import Config
from asrprune.data.dataset import Corpus
from asrprune.decode.shards import hypotheses
from asrprune.experiment import provenance
from asrprune.experiment import store as experiment
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.prune.surgery import prune, pruned_config
from asrprune.runtime.errors import UserError

KEEPS = [(1, 2, 3, 4, 5, 6), (1, 2, 4, 6), (2, 4), (1, 3, 5), (6,), (2,)]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "conditioned"])
def full(
    request: pytest.FixtureRequest, tiny_config: Config, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Experiment:
    """Six untrained layers with taps 2, 4 and 6: (2, 4) ends on a tap, (1, 3, 5) has none."""
    config = config_with(tiny_config, "model", num_layers=6, taps=(2, 4, 6), self_conditioning=request.param)
    config = config.model_copy(update={"seed": 5})
    exp = tmp_path_factory.mktemp("full")
    provenance.start(exp, config, tiny_data / "lang/bpe.model", tiny_data / "cmvn")
    weights = experiment.build_model(config, exp).state_dict()
    experiment.save_model(exp, config, weights, [experiment.Epoch(epoch=2, wer=50.0, loss=1.0)])
    return experiment.load(exp)


@pytest.fixture(scope="module")
def corpus(tiny_data: Path) -> Corpus:
    return Corpus(tiny_data / "dev", None)


def texts_of(exp: Experiment, corpus: Corpus, keep: Keep | None = None) -> dict[str, str]:
    sets = [keep or tuple(range(1, exp.num_layers + 1))]
    return hypotheses(exp, corpus, sets, [np.arange(len(corpus))])[sets[0]]


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_emissions_and_hypotheses_are_those_of_the_full_model(
    full: Experiment, corpus: Corpus, tmp_path: Path, keep: tuple[int, ...]
) -> None:
    prune(full, keep, tmp_path / "pruned")
    pruned = experiment.load(tmp_path / "pruned")
    assert pruned.num_layers == len(keep)
    batch = next(corpus.loader([torch.arange(6).numpy()]))
    with torch.inference_mode():
        expected = emit(full.model, batch.features, batch.lens, keep)
        found = emit(pruned.model, batch.features, batch.lens)
        everything = emit(full.model, batch.features, batch.lens)
    assert torch.equal(found.lens, expected.lens)
    assert torch.equal(found.log_probs, expected.log_probs)
    assert torch.equal(found.log_probs, everything.log_probs) is (len(keep) == 6)
    texts = texts_of(pruned, corpus)
    assert texts == texts_of(full, corpus, keep)
    assert any(texts.values()), "an untrained model says something, else equality says little"


@pytest.mark.parametrize(
    ("keep", "taps"),
    [((1, 2, 3, 4, 5, 6), (2, 4, 6)), ((1, 2, 4, 6), (2, 3, 4)), ((2, 4), (1, 2)), ((1, 3, 5), ()), ((6,), (1,))],
)
def test_taps_move_with_their_layers_and_leave_with_them(
    full: Experiment, tmp_path: Path, keep: tuple[int, ...], taps: tuple[int, ...]
) -> None:
    assert pruned_config(full.config, keep).model.tap_layers == taps
    prune(full, keep, tmp_path / "pruned")
    assert experiment.load(tmp_path / "pruned").config.model.tap_layers == taps


def test_without_a_tap_below_the_last_layer_nothing_is_conditioned(full: Experiment, tmp_path: Path) -> None:
    for keep, conditioned in (((2, 4), full.config.model.self_conditioning), ((1, 3, 5), False), ((6,), False)):
        prune(full, keep, tmp_path / str(keep))
        cut = experiment.load(tmp_path / str(keep))
        assert cut.config.model.self_conditioning is conditioned
        assert (cut.model.condition is not None) is conditioned


def test_no_update_of_a_pruned_model_is_truncated(full: Experiment) -> None:
    cut = pruned_config(config_with(full.config, "model", truncated={2: 0.3, 6: 0.1}, grow={2: 9}), (1, 2, 4, 5))
    model = parse_config(resolved(cut), "pruned").model
    assert (model.truncated, model.grow) == ({}, {})


def test_the_config_resolves_and_its_depths_fit(full: Experiment) -> None:
    for depths, min_depth in (((6, 3), 1), ((5, 2), 2), (None, 1), (None, 4)):
        config = config_with(full.config, "prune", depths=depths, min_depth=min_depth)
        for keep in KEEPS:
            cut = pruned_config(config, keep)
            again = parse_config(resolved(cut), "pruned")
            assert again.depths()[0] == len(keep)
            assert set(again.depths()) >= {depth for depth in config.depths() if depth <= len(keep)}
            assert resolved(again) == resolved(cut)


def test_a_pruned_experiment_has_all_that_is_needed_and_says_where_it_comes_from(full: Experiment, tmp_path: Path) -> None:
    target = tmp_path / "new/pruned"
    prune(full, (2, 4), target)
    names = {path.name for path in target.iterdir()}
    assert names == {"bpe.model", "tokens.txt", "cmvn", "config.yaml", "model.safetensors", "model.json"}
    for name in ("bpe.model", "tokens.txt", "cmvn"):
        assert (target / name).read_bytes() == (full.path / name).read_bytes()
    info = json.loads((target / "model.json").read_text())
    assert info["pruned_from"] == {"model_sha256": full.record.model_sha256, "num_layers": 6, "keep": [2, 4]}
    assert info["members"] == full.record.plain()["members"]
    assert info["num_layers"] == 2
    assert info["params_m"] < full.record.params_m
    assert read_yaml(target / "config.yaml")["model"]["num_layers"] == 2


def test_a_pruned_experiment_can_be_pruned_again(full: Experiment, corpus: Corpus, tmp_path: Path) -> None:
    prune(full, (1, 2, 4, 6), tmp_path / "four")
    prune(experiment.load(tmp_path / "four"), (2, 3), tmp_path / "two")
    two = experiment.load(tmp_path / "two")
    assert texts_of(two, corpus) == texts_of(full, corpus, (2, 4))
    assert two.record.pruned_from is not None
    assert two.record.pruned_from.num_layers == 4


def test_an_existing_target_is_refused_and_untouched(full: Experiment, tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / "note.txt").write_text("mine")
    with pytest.raises(UserError, match=r"taken: exists already; choose another directory, or remove it"):
        prune(full, (1, 2), target)
    assert [path.name for path in target.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("keep", [(), (2, 1), (0, 1), (6, 7)])
def test_layers_that_the_model_lacks_are_refused_before_anything_is_written(
    full: Experiment, tmp_path: Path, keep: tuple[int, ...]
) -> None:
    with pytest.raises(UserError, match=r"layers must ascend and lie in 1\.\.6"):
        prune(full, keep, tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()


@pytest.mark.parametrize("killed_in", ["write_config", "pruned_weights", "save_model", "ModelRecord.write"])
def test_killed_half_way_it_leaves_nothing_and_can_be_run_again(
    full: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "pruned"
    with monkeypatch.context() as patch:
        patch.setattr(f"asrprune.prune.surgery.{killed_in}", die)
        with pytest.raises(KeyboardInterrupt):
            prune(full, (1, 2), target)
    assert list(tmp_path.iterdir()) == []
    prune(full, (1, 2), target)
    assert experiment.load(target).num_layers == 2


def test_what_a_killed_run_left_is_removed_by_the_next(full: Experiment, tmp_path: Path) -> None:
    left = tmp_path / ".pruned.abcd1234.tmp"
    left.mkdir()
    (left / "cmvn").touch()
    prune(full, (1, 2), tmp_path / "pruned")
    assert [path.name for path in tmp_path.iterdir()] == ["pruned"]
