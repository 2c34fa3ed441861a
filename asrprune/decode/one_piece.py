"""The check for long utterances where they run in one piece: only `decode` and `transcribe` divide them into windows."""

from collections.abc import Iterable
from pathlib import Path

from asrprune.config.schema import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tables import some
from asrprune.data.windows import WINDOWS
from asrprune.experiment.provenance import check_frontend
from asrprune.experiment.store import Experiment
from asrprune.model.layered import LayeredModel
from asrprune.runtime.errors import UserError


def check_corpora(experiment: Experiment, *corpora: Corpus) -> None:
    """Raise a ``UserError`` if features have other numbers, or utterances are too long for the memory, see ``too_long``."""
    check_frontend(experiment.path, experiment.config, *corpora)
    for corpus in corpora:
        if fault := too_long_in(corpus, experiment.config, experiment.model):
            raise UserError(fault)


def too_long_in(corpus: Corpus, config: Config, model: LayeredModel) -> str:
    """Return a sentence about the utterances of a corpus, see ``too_long``."""
    seconds = corpus.lengths * config.frontend.shift_ms / 1000
    return too_long(corpus.directory, zip(corpus.ids, seconds.tolist(), strict=True), model)


def too_long(directory: Path, durations: Iterable[tuple[str, float]], model: LayeredModel) -> str:
    """Return a sentence about utterances that need too much memory in one piece; empty if there are none.

    ``durations``: ids and seconds. Attention that stores a value for each pair of frames needs 6 GB for seven minutes.
    """
    if not model.holds_pairs:
        return ""
    long = [key for key, seconds in durations if seconds > WINDOWS.one_piece_s]
    if not long:
        return ""
    return (
        f"{directory}: utterances longer than {WINDOWS.one_piece_s:g} s: {some(long)}; the attention of this model needs memory"
        " for each pair of their frames; cut them into shorter ones, with a file segments"
    )
