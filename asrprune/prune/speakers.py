"""The speakers of a set, which tell how certain a difference between two dev scores is."""

import numpy as np

from asrprune.data.dataset import Corpus
from asrprune.data.perturb import original_name
from asrprune.data.tables import stream_table


def speakers_of(corpus: Corpus) -> np.ndarray:
    """Return the speaker of each utterance, (N,) numbers from 0; a copy at another speed has the same speaker.

    If utt2spk lacks an utterance, or tells less than two speakers apart, each utterance counts as a speaker of its own.
    """
    path, alone = corpus.directory / "utt2spk", np.arange(len(corpus))
    known = dict(stream_table(path)) if path.is_file() else {}
    if any(utterance not in known for utterance in corpus.ids):
        return alone
    names = [original_name(known[utterance]) for utterance in corpus.ids]
    numbers = np.unique(names, return_inverse=True)[1]
    return numbers if numbers.max(initial=0) > 0 else alone
