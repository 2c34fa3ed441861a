"""The data on which a strategy may base its choice: measurements of the layers on disk, and scores on the dev set."""

from functools import cached_property
from pathlib import Path

import numpy as np

from asrprune.analysis.matrices import read_matrices, settings_of, similarity_path
from asrprune.config.schema import PruneConfig
from asrprune.config.strategies import Measure
from asrprune.data.dataset import Corpus
from asrprune.decode.decoder import Decoder
from asrprune.decode.one_piece import check_corpora
from asrprune.experiment.plan import file_of
from asrprune.experiment.provenance import fingerprint, utterances_of
from asrprune.experiment.store import Experiment
from asrprune.prune.dev_scorer import DevScorer
from asrprune.prune.score_cache import CachedScorer
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import Executor
from asrprune.runtime.planted import inside
from asrprune.runtime.version import __version__


class Evidence:
    """The input of a strategy: measurements and dev scores of a model. They are read or computed on first use."""

    def __init__(
        self, experiment: Experiment, strategy: str, dev: Path, options: PruneConfig, executor: Executor, decoder: Decoder
    ) -> None:
        """Set the sources; ``strategy`` names the file of scores, ``executor`` and ``decoder`` decode the dev set."""
        self.num_layers, self.depths, self.options = experiment.num_layers, experiment.config.depths(), options
        self._experiment, self._strategy, self._dev = experiment, strategy, dev
        self._executor, self._decoder = executor, decoder

    @cached_property
    def similarity(self) -> np.ndarray:
        """The SVCCA similarities of x_0..x_L: (L + 1, L + 1)."""
        return read_measure(self._experiment, self._dev, "similarity")

    @cached_property
    def influence(self) -> np.ndarray:
        """The influence of layers 1..L: (L,)."""
        return read_measure(self._experiment, self._dev, "influence")

    @cached_property
    def score(self) -> CachedScorer:
        """The function that computes dev scores. Scores of a killed search with the same model and data are reused."""
        experiment, metric = self._experiment.decided(self._executor.num_gpus), self.options.metric
        corpus = Corpus(self._dev, experiment.tokenizer)
        check_corpora(experiment, corpus)
        exact = [metric, experiment.config.decode.precision, self._decoder.identity, __version__]
        made_by = [experiment.record.model_sha256, fingerprint(corpus).plain(), *exact]
        path = file_of(inside(experiment.path, "plans", "scores"), self._strategy, ".json")
        return CachedScorer(DevScorer(experiment, corpus, metric, self._executor, self._decoder), path, made_by)


def read_measure(experiment: Experiment, dev: Path, measure: Measure) -> np.ndarray:
    """Read the similarity or influence of the layers of this model on a set.

    Raises:
        UserError: the file is missing, or belongs to another model or other data, or lacks the measure.
    """
    path = similarity_path(experiment.path, dev.name)
    stored = read_matrices(path)
    if str(stored["model_sha256"]) != experiment.record.model_sha256:
        raise UserError(f"{path}: measured on another model; run stage 6 (`asrprune svcca`) again")
    if "utterances" in stored and str(stored["utterances"]) != utterances_of(Corpus(dev, None)):
        raise UserError(
            f"{path}: measured on other features than those of {dev}; run stage 6 (`asrprune svcca`) again, with this set"
        )
    if "settings" in stored and str(stored["settings"]) != (wanted := settings_of(experiment.config.prune)):
        raise UserError(f"{path}: measured with {stored['settings']}, not {wanted}; run stage 6 (`asrprune svcca`) again")
    if measure not in stored:
        raise UserError(f"{path}: has no {measure}, as an older asrprune wrote it; run stage 6 (`asrprune svcca`) again")
    width = experiment.num_layers
    if stored[measure].shape != ((width + 1, width + 1) if measure == "similarity" else (width,)):
        raise UserError(f"{path}: its {measure} is not that of {width} layers; run stage 6 (`asrprune svcca`) again")
    return stored[measure]
