"""The hypotheses of a set, made in shards: what a killed run has finished is not decoded again."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from asrprune.config.load import resolved
from asrprune.config.names import only
from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.infer.runner import Runner
from asrprune.runtime.executor import Executor
from asrprune.runtime.files import read_json, write_json
from asrprune.runtime.progress import track

MOST_SHARDS = 200  # enough for as many jobs, and a file each
Texts = dict[Keep, dict[str, str]]  # kept layers -> id -> text
Shard = tuple[Path, list[np.ndarray]]  # where it is written, and its batches


def decode_in_shards(
    experiment: Experiment, corpus: Corpus, keeps: Sequence[Keep], folder: Path, executor: Executor, decoder: Decoder
) -> Texts:
    """Decode every utterance by every sub-model.

    Args:
        experiment: the full model.
        corpus: the set.
        keeps: the sub-models.
        folder: where shards are, or are put, a file each; nobody else may be decoding there.
        executor: where it is done.
        decoder: makes labels of emissions.
    """
    shards = _shards(experiment, corpus, folder, decoder)
    missing = [(path, batches) for path, batches in shards if not path.exists() or not _read(path).keys() >= set(keeps)]
    write = partial(_write, experiment, corpus, keeps, executor.num_gpus, decoder)
    for _ in track(executor.map(write, missing), f"{corpus.directory.name}, {len(keeps)} sub-models", len(missing)):
        pass
    texts: Texts = {keep: {} for keep in keeps}
    for made in (_read(path) for path, _ in shards):
        for keep in keeps:
            texts[keep] |= made[keep]
    return texts


def _shards(experiment: Experiment, corpus: Corpus, folder: Path, decoder: Decoder) -> list[Shard]:
    """Deal out the batches that one process would run, and none otherwise: a shard has long ones and short ones.

    A file's name depends on all that its texts depend on.
    """
    batches = sorted_batches(corpus.lengths, experiment.config.decode.max_frames)
    shards = [batches[start::MOST_SHARDS] for start in range(min(MOST_SHARDS, len(batches)))]
    made_by = [experiment.record.model_sha256, only(resolved(experiment.config), "decoding"), decoder.identity]
    names = []
    for shard in shards:
        content = [[corpus.ids[i], int(corpus.lengths[i])] for batch in shard for i in batch]
        names.append(hashlib.sha256(json.dumps([made_by, content]).encode()).hexdigest()[:16])
    return [(folder / f"{name}.json", shard) for name, shard in zip(names, shards, strict=True)]


def _write(
    experiment: Experiment, corpus: Corpus, keeps: Sequence[Keep], num_gpus: int, decoder: Decoder, shard: Shard
) -> None:
    path, batches = shard
    texts = hypotheses(experiment, corpus, keeps, batches, num_gpus, decoder)
    write_json(path, {",".join(map(str, keep)): made for keep, made in texts.items()})


def _read(path: Path) -> Texts:
    return {tuple(map(int, layers.split(","))): made for layers, made in read_json(path).items()}


def hypotheses(
    experiment: Experiment,
    corpus: Corpus,
    keeps: Sequence[Keep],
    batches: Sequence[np.ndarray],
    num_gpus: int = 0,
    decoder: Decoder = GREEDY,
) -> Texts:
    """Decode the utterances of ``batches`` by every sub-model, on the CPU or the GPU."""
    runner, tokenizer = Runner.of(experiment, num_gpus), experiment.tokenizer
    texts: Texts = {keep: {} for keep in keeps}
    for batch in runner.batches(corpus, batches):
        for keep, emissions in runner.emissions(batch.features, batch.lens, keeps):
            paths = decoder.decode(emissions.log_probs, emissions.lens)
            texts[keep] |= {corpus.ids[i]: tokenizer.decode(path.labels) for i, path in zip(batch.index, paths, strict=True)}
    return texts
