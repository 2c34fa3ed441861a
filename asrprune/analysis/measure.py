"""Measuring the layers of an experiment on a set: SVCCA, PWCCA and CKA matrices, and the influence of each layer."""

from pathlib import Path

import numpy as np

from asrprune.analysis import svcca as measures
from asrprune.analysis.activations import activations
from asrprune.analysis.influence import influence
from asrprune.analysis.matrices import settings_of, similarity_path
from asrprune.data.dataset import Corpus
from asrprune.decode.one_piece import check_corpora
from asrprune.experiment.provenance import utterances_of
from asrprune.experiment.store import Experiment
from asrprune.infer.runner import Runner
from asrprune.runtime.files import atomic_path


def measure_layers(experiment: Experiment, directory: Path) -> Path:
    """Write ``svcca/<set>.npz`` and return its path.

    The file contains similarity, pwcca and cka (L + 1, L + 1), influence (L,), layers (L + 1,), frames, model_sha256 and
    a hash of the utterances.
    """
    config = experiment.config
    corpus = Corpus(directory, None)
    check_corpora(experiment, corpus)
    runner = Runner(experiment.model, experiment.model.device, "float32")  # float32, because differences are small
    streams = activations(runner, corpus, config.prune.svcca_frames, config.decode.max_frames, config.seed)
    spaces = [measures.subspace(stream, config.prune.svcca_variance) for stream in streams]
    path = similarity_path(experiment.path, directory.name)
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            similarity=measures.similarity_matrix(spaces),
            pwcca=measures.similarity_matrix(spaces, measures.pwcca),
            cka=measures.similarity_matrix(spaces, measures.linear_cka),
            influence=influence(streams),
            layers=np.arange(len(streams)),
            frames=np.array(len(streams[0])),
            model_sha256=np.array(experiment.record.model_sha256),
            utterances=np.array(utterances_of(corpus)),
            settings=np.array(settings_of(config.prune)),
        )
    return path
