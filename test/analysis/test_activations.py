"""Activations: real frames only, the same ones for every layer, whatever the batch; and what is stored of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import config_with, untrained, with_numbers
from records import changed

from asrprune.analysis.activations import activations
from asrprune.analysis.influence import influence
from asrprune.analysis.measure import measure_layers
from asrprune.analysis.svcca import linear_cka, pwcca, similarity_matrix, subspace
from asrprune.config.lengths import output_length
from asrprune.config.schema import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tables import read_table, write_table
from asrprune.experiment.store import Experiment
from asrprune.features.ark import checksum, read_matrix
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import CtcModel
from asrprune.prune.evidence import read_measure
from asrprune.runtime.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "conditioned"])
def model(request: pytest.FixtureRequest, tiny_config: Config, tiny_data: Path) -> CtcModel:
    """An untrained model with dropout, so that a forgotten eval() shows."""
    changed = {"self_conditioning": request.param, "dropout": 0.5}
    config = tiny_config.model.model_copy(update=changed)
    torch.manual_seed(1)
    return CtcModel(config, 80, 7).train()


@pytest.fixture(scope="module")
def corpus(tiny_data: Path) -> Corpus:
    return Corpus(tiny_data / "dev", None)


def streams_one_by_one(model: CtcModel, corpus: Corpus) -> dict[int, list[np.ndarray]]:
    """Utterance -> x_0..x_L, each utterance alone and unpadded, computed from the model's parts without the loop."""
    model.eval()
    streams = {}
    for index in range(len(corpus)):
        features = torch.from_numpy(corpus[index][1].copy()).unsqueeze(0)
        with torch.inference_mode():
            x, _ = model.encoder.embed(model.normalise(features), torch.tensor([features.shape[1]]))
            xs = [x]
            for number, layer in enumerate(model.encoder.layers, start=1):
                x = layer(x, None, 1.0)
                xs.append(x)
                if model.condition is not None and number in model.config.tap_layers:
                    x = x + model.condition(model.head(x).exp())
        streams[index] = [x[0].numpy() for x in xs]
    return streams


@pytest.mark.parametrize("batch_frames", [1, 300, 10_000])
def test_all_real_frames_of_every_layer_whatever_the_batch(model: CtcModel, corpus: Corpus, batch_frames: int) -> None:
    model.train()
    found = activations(Runner(model, CPU, "float32"), corpus, 10**6, batch_frames, seed=0)
    alone = streams_one_by_one(model, corpus)
    assert len(found) == 5
    shuffled = np.random.default_rng(0).permutation(len(corpus))
    longest_first = shuffled[np.argsort(-corpus.lengths[shuffled], kind="stable")]
    total = int(output_length(corpus.lengths, 4).sum())
    for layer in range(5):
        assert found[layer].shape == (total, 16)
        assert found[layer].dtype == np.float32
        np.testing.assert_allclose(found[layer], np.concatenate([alone[i][layer] for i in longest_first]), atol=1e-4)


def test_as_many_frames_as_asked_for_and_no_more_utterances_than_needed(model: CtcModel, corpus: Corpus) -> None:
    for wanted in (1, 20, 40, 100):
        assert {len(x) for x in activations(Runner(model, CPU, "float32"), corpus, wanted, 300, seed=0)} == {wanted}


def test_a_set_that_has_exactly_enough_frames_gives_them_all(model: CtcModel, tiny_data: Path) -> None:
    corpus = Corpus(tiny_data / "train", None)
    total = int(output_length(corpus.lengths, 4).sum())
    for seed in range(10):
        assert len(activations(Runner(model, CPU, "float32"), corpus, total, 300, seed)[0]) == total


def test_the_seed_chooses_the_utterances(model: CtcModel, corpus: Corpus) -> None:
    first, again, other = (activations(Runner(model, CPU, "float32"), corpus, 20, 300, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# ---- measuring an experiment


@pytest.fixture
def own_experiment(tiny_config: Config, tiny_data: Path, tmp_path: Path) -> Experiment:
    """An untrained experiment that may be written to."""
    return untrained(tmp_path / "exp", config_with(tiny_config, "prune", svcca_frames=165), tiny_data)


def test_what_is_stored_are_the_measures_of_the_activations(own_experiment: Experiment, tiny_data: Path) -> None:
    path = measure_layers(own_experiment, tiny_data / "train")
    assert path == own_experiment.path / "svcca/train.npz"
    runner = Runner(own_experiment.model, CPU, "float32")
    streams = activations(runner, Corpus(tiny_data / "train", None), 165, 20000, own_experiment.config.seed)
    spaces = [subspace(x, 0.99) for x in streams]
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["similarity"], similarity_matrix(spaces))
        np.testing.assert_array_equal(stored["pwcca"], similarity_matrix(spaces, pwcca))
        np.testing.assert_array_equal(stored["cka"], similarity_matrix(spaces, linear_cka))
        np.testing.assert_array_equal(stored["influence"], influence(streams))
        assert stored["layers"].tolist() == [0, 1, 2, 3, 4]
        assert int(stored["frames"]) == 165
        assert str(stored["model_sha256"]) == own_experiment.record.model_sha256
        similarity = stored["similarity"]
    np.testing.assert_array_equal(read_measure(own_experiment, tiny_data / "train", "similarity"), similarity)
    np.testing.assert_array_equal(read_measure(own_experiment, tiny_data / "train", "influence"), influence(streams))
    assert [entry.name for entry in path.parent.iterdir()] == ["train.npz"]


def test_a_matrix_that_is_missing_or_of_another_model_names_stage_6(own_experiment: Experiment, tiny_data: Path) -> None:
    with pytest.raises(UserError, match=r"svcca/train\.npz: no such file; stage 6"):
        read_measure(own_experiment, tiny_data / "train", "similarity")
    measure_layers(own_experiment, tiny_data / "train")
    own_experiment = replace(own_experiment, record=changed(own_experiment.record, model_sha256="another"))
    with pytest.raises(UserError, match=r"train\.npz: measured on another model; run stage 6"):
        read_measure(own_experiment, tiny_data / "train", "similarity")


def test_measures_of_other_features_are_refused(own_experiment: Experiment, tiny_data: Path, tmp_path: Path) -> None:
    train = Path(shutil.copytree(tiny_data / "train", tmp_path / "train"))
    checksums = {key: f"{checksum(read_matrix(entry)):08x}" for key, entry in read_table(train / "feats.scp").items()}
    write_table(train / "utt2crc", checksums)
    measure_layers(own_experiment, train)
    read_measure(own_experiment, train, "similarity")
    write_table(train / "utt2crc", {**checksums, next(iter(checksums)): "00000008"})
    with pytest.raises(UserError, match=rf"train\.npz: measured on other features than those of {train}; run stage 6"):
        read_measure(own_experiment, train, "similarity")


def test_measures_with_other_numbers_are_refused(own_experiment: Experiment, tiny_data: Path) -> None:
    measure_layers(own_experiment, tiny_data / "train")
    other = with_numbers(own_experiment, "prune", svcca_frames=150)
    with pytest.raises(UserError, match=r"measured with .*svcca_frames 165, not .*svcca_frames 150; run stage 6"):
        read_measure(other, tiny_data / "train", "similarity")


def test_too_small_a_set_is_refused_and_leaves_nothing(own_experiment: Experiment, tiny_data: Path) -> None:
    with pytest.raises(UserError, match="159 frames are too few to compare layers of 16 dimensions"):
        measure_layers(with_numbers(own_experiment, "prune", svcca_frames=159), tiny_data / "train")
    assert list((own_experiment.path / "svcca").iterdir()) == []
