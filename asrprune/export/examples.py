"""Examples to check an exported file with: noise and utterances, each as input of the file and as input of torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asrprune.config.lengths import min_frames
from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.data.extract import utterance_samples
from asrprune.data.kaldi import read_data_dir, spread_evenly
from asrprune.decode.one_piece import check_corpora, too_long
from asrprune.experiment.store import Experiment
from asrprune.features.fbank import UNIT_SCALE, compute_fbank, num_frames
from asrprune.runtime.errors import UserError

LENGTHS = (1, 57, 93, 200, 333)  # feature frames
BATCHES = (1, 4)


@dataclass(frozen=True)
class Example:
    """A batch, for torch and for the file."""

    features: Tensor  # (B, T, F) at 16-bit scale
    frames: Tensor  # (B,)
    x: np.ndarray  # float32, the input of the file
    lens: np.ndarray  # (B,) int64
    ids: Sequence[str] = ()
    texts: Sequence[str] = ()

    def one_by_one(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the input of the file and its length for each utterance alone: (1, T, F) or (1, S), and (1,)."""
        return ((x[None, :length], np.array([length])) for x, length in zip(self.x, self.lens, strict=True))


def noise(experiment: Experiment, waveform: bool) -> Iterator[Example]:
    """Yield batches of noise of several lengths. Noise as features has the mean and the spread of the training set."""
    model, options, generator = experiment.model, experiment.config.frontend, torch.Generator().manual_seed(0)
    for frames in LENGTHS:
        for utterances in BATCHES:
            shortest = max(1, frames // 2, min(frames, min_frames(model.config.subsampling.factor)))
            lens = torch.linspace(frames, shortest, utterances).long()
            if waveform:
                sizes = [count * options.shift for count in lens.tolist()]
                yield _of_samples([0.1 * torch.randn(size, generator=generator).numpy() for size in sizes], experiment)
            else:
                values = torch.randn(utterances, frames, len(model.cmvn_mean), generator=generator)
                yield _of_features(values / model.cmvn_scale + model.cmvn_mean, lens)


def utterances(directory: Path, count: int | None, experiment: Experiment, waveform: bool) -> Iterator[Example]:
    """Yield the utterances of a data directory, or ``count`` of them, spread evenly. With ``waveform`` their audio is read.

    Raises:
        UserError: features (stage 2) or recordings cannot be read, or utterances are too long for one piece.
    """
    return (_from_audio if waveform else _from_archive)(directory, count, experiment)


def _from_archive(directory: Path, count: int | None, experiment: Experiment) -> Iterator[Example]:
    corpus = Corpus(directory, None)
    check_corpora(experiment, corpus)
    chosen = np.array(spread_evenly(range(len(corpus)), count or len(corpus)))
    batches = sorted_batches(corpus.lengths[chosen], experiment.config.decode.max_frames)
    for batch in corpus.loader([chosen[part] for part in batches]):
        ids, texts = ([table[i] for i in batch.index] for table in (corpus.ids, corpus.texts))
        yield _of_features(batch.features, batch.lens, ids, texts)


def _from_audio(directory: Path, count: int | None, experiment: Experiment) -> Iterator[Example]:
    """Yield the utterances one by one, because their lengths are known only when they have been read."""
    found, options = read_data_dir(directory, need_text=False), experiment.config.frontend
    for utterance in spread_evenly(found, count or len(found)):
        samples = utterance_samples(utterance, options)
        if fault := too_long(directory, [(utterance.id, len(samples) / options.sample_rate)], experiment.model):
            raise UserError(fault)
        yield _of_samples([samples], experiment, [utterance.id], [utterance.text])


def _of_features(features: Tensor, lens: Tensor, ids: Sequence[str] = (), texts: Sequence[str] = ()) -> Example:
    return Example(features, lens, (features - UNIT_SCALE).numpy(), lens.numpy(), ids, texts)


def _of_samples(
    signals: Sequence[np.ndarray], experiment: Experiment, ids: Sequence[str] = (), texts: Sequence[str] = ()
) -> Example:
    options = experiment.config.frontend
    features = [torch.from_numpy(compute_fbank(signal, options)) for signal in signals]
    padded = pad_sequence([torch.from_numpy(signal) for signal in signals], batch_first=True)
    lens = np.array([len(signal) for signal in signals])
    frames = torch.tensor([num_frames(size, options) for size in lens.tolist()])
    return Example(pad_sequence(features, batch_first=True), frames, padded.numpy(), lens, ids, texts)
