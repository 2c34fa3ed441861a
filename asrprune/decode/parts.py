"""The hypotheses of a set, made in parts: what a killed run has finished is not decoded again."""

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
from asrprune.decode.greedy import greedy
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.infer.prefix_tree import run_together
from asrprune.runtime.executor import Executor
from asrprune.runtime.files import read_json, write_json
from asrprune.runtime.hardware import inference, pick_device
from asrprune.runtime.progress import track

MOST_PARTS = 200  # enough for as many jobs, and a file each
Texts = dict[Keep, dict[str, str]]  # kept layers -> id -> text
Part = tuple[Path, list[np.ndarray]]  # where it is written, and its batches


def decode_in_parts(experiment: Experiment, corpus: Corpus, keeps: Sequence[Keep], folder: Path, executor: Executor) -> Texts:
    """Greedy hypotheses of every utterance by every sub-model.

    Args:
        experiment: the full model.
        corpus: the set.
        keeps: the sub-models.
        folder: where parts are, or are put, a file each; nobody else may be decoding there.
        executor: where it is done.
    """
    parts = _parts(experiment, corpus, folder)
    missing = [(path, batches) for path, batches in parts if not path.exists() or not _read(path).keys() >= set(keeps)]
    write = partial(_write, experiment, corpus, keeps, executor.num_gpus)
    for _ in track(executor.map(write, missing), f"{corpus.directory.name}, {len(keeps)} sub-models", len(missing)):
        pass
    texts: Texts = {keep: {} for keep in keeps}
    for made in (_read(path) for path, _ in parts):
        for keep in keeps:
            texts[keep] |= made[keep]
    return texts


def _parts(experiment: Experiment, corpus: Corpus, folder: Path) -> list[Part]:
    """The batches that one process would run, which none runs otherwise: a part has long ones and short ones.

    A file's name depends on all that its texts depend on.
    """
    batches = sorted_batches(corpus.lengths, experiment.config.decode.max_frames)
    shards = [batches[start::MOST_PARTS] for start in range(min(MOST_PARTS, len(batches)))]
    made_by = [experiment.info["model_sha256"], only(resolved(experiment.config), "decoding")]
    names = []
    for shard in shards:
        content = [[corpus.ids[i], int(corpus.lengths[i])] for batch in shard for i in batch]
        names.append(hashlib.sha256(json.dumps([made_by, content]).encode()).hexdigest()[:16])
    return [(folder / f"{name}.json", shard) for name, shard in zip(names, shards, strict=True)]


def _write(experiment: Experiment, corpus: Corpus, keeps: Sequence[Keep], num_gpus: int, part: Part) -> None:
    path, batches = part
    texts = hypotheses(experiment, corpus, keeps, batches, num_gpus)
    write_json(path, {",".join(map(str, keep)): made for keep, made in texts.items()})


def _read(path: Path) -> Texts:
    return {tuple(map(int, layers.split(","))): made for layers, made in read_json(path).items()}


def hypotheses(
    experiment: Experiment, corpus: Corpus, keeps: Sequence[Keep], batches: Sequence[np.ndarray], num_gpus: int = 0
) -> Texts:
    """Greedy hypotheses of the utterances of ``batches`` by every sub-model, on the CPU or the GPU."""
    model, device = experiment.model, pick_device(num_gpus)
    model.to(device)
    texts: Texts = {keep: {} for keep in keeps}
    for batch in corpus.loader(batches):
        with inference(experiment.config.decode.precision, device):
            streams, lens = run_together(model, batch.features.to(device), batch.lens.to(device), keeps)
            for keep in keeps:
                for index, labels in zip(batch.index, greedy(model.log_probs(streams[keep]), lens), strict=True):
                    texts[keep][corpus.ids[index]] = experiment.tokenizer.decode(labels)
    return texts
