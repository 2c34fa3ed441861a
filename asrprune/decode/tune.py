"""Choosing the weights of a language model on a dev set, at full depth."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from asrprune.config.schema import BeamConfig
from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.decode.choose import Tuned, Weights, make_beam
from asrprune.decode.decoder import Decoder
from asrprune.decode.one_piece import check_corpora
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.store import Experiment
from asrprune.infer.runner import Runner
from asrprune.lm.arpa import ArpaModel
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, Executor
from asrprune.runtime.progress import track
from asrprune.scoring.wer import word_errors

LM_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
WORD_BONUSES = (-1.0, 0.0, 1.0, 2.0)


def tune(experiment: Experiment, dev: Path, options: BeamConfig, executor: Executor = HERE) -> Weights:
    """Try all weights on a dev set, write them with their errors to decoder.json, and return the best ones.

    The model runs once. Of equal results the smallest weights are chosen. A weight that is set in the options is kept.

    Raises:
        UserError: the options have no language model, or it cannot be read; or utterances are too long.
    """
    if options.lm is None:
        raise UserError("no language model is given; add --lm FILE, or set decode.decoder.lm in the config")
    lm, corpus = ArpaModel(Path(options.lm)), Corpus(dev, experiment.tokenizer)
    check_corpora(experiment, corpus)
    lm_weights = LM_WEIGHTS if options.lm_weight is None else (options.lm_weight,)
    word_bonuses = WORD_BONUSES if options.word_bonus is None else (options.word_bonus,)
    grid = sorted(product(lm_weights, word_bonuses), key=lambda weights: (weights[0], abs(weights[1])))
    decoders = [
        make_beam(options.model_copy(update={"lm_weight": lm_weight, "word_bonus": word_bonus}), experiment.tokenizer, lm)
        for lm_weight, word_bonus in grid
    ]
    errors = _errors(experiment, corpus, decoders, executor)
    words = sum(len(text.split()) for text in corpus.texts)
    tried = tuple(
        Weights(lm_weight=lm_weight, word_bonus=word_bonus, wer=100.0 * count / words)
        for (lm_weight, word_bonus), count in zip(grid, errors.tolist(), strict=True)
    )
    best = min(tried, key=lambda weights: weights.wer)  # the first of equal ones
    Tuned(
        format=1, lm_weight=best.lm_weight, word_bonus=best.word_bonus, wer=best.wer, lm_sha256=lm.sha256, set=dev.name,
        model_sha256=experiment.record.model_sha256, width=options.width, tried=tried,
    ).write(ExperimentPaths(experiment.path).decoder)  # fmt: skip
    return best


def _errors(experiment: Experiment, corpus: Corpus, decoders: Sequence[Decoder], executor: Executor) -> np.ndarray:
    """Return the number of word errors of each decoder on the whole set."""
    batches = sorted_batches(corpus.lengths, experiment.config.decode.max_frames)
    work = partial(_count, experiment.decided(executor.num_gpus), corpus, decoders, executor.num_gpus)
    parts = executor.split(batches)
    counted = track(executor.map(work, parts), f"{corpus.directory.name}, {len(decoders)} pairs of weights", len(parts))
    return np.sum(list(counted), axis=0)


def _count(
    experiment: Experiment, corpus: Corpus, decoders: Sequence[Decoder], num_gpus: int, batches: Sequence[np.ndarray]
) -> np.ndarray:
    runner, everything = Runner.of(experiment, num_gpus), tuple(range(1, experiment.num_layers + 1))
    errors = np.zeros(len(decoders), dtype=np.int64)
    for batch in runner.batches(corpus, batches):
        ((_, emissions),) = runner.emissions(batch.features, batch.lens, [everything])
        log_probs, references = emissions.log_probs.cpu(), [corpus.texts[i].split() for i in batch.index]
        for number, decoder in enumerate(decoders):
            paths = decoder.decode(log_probs, emissions.lens)
            errors[number] += sum(word_errors([path.labels for path in paths], references, experiment.tokenizer))
    return errors
