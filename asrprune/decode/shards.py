"""Decoding a set in shards. Each shard is a file, so a killed run does not decode finished shards again."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asrprune.config.load import resolved
from asrprune.config.names import only
from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.data.packed import Packed
from asrprune.decode.decoder import Decoder, on_cpu
from asrprune.decode.greedy import GREEDY
from asrprune.decode.windows import Found, Timing, decode_in_windows, is_long
from asrprune.experiment.plan import Keep
from asrprune.experiment.provenance import features_of
from asrprune.experiment.store import Experiment
from asrprune.infer.runner import Runner
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import Executor
from asrprune.runtime.files import atomic_file, parse_json
from asrprune.runtime.planted import lines_of, open_plain
from asrprune.runtime.progress import track

_LONGEST_ROW = 1 << 28  # bytes; the texts of 50,000 utterances, words with times, take a tenth
MOST_SHARDS = 200  # files per set; also the largest useful number of jobs
Texts = dict[Keep, dict[str, str]]  # kept layers -> id -> text
Shard = tuple[Path, list[np.ndarray]]  # its file and its batches


def decode_in_shards(
    experiment: Experiment, corpus: Corpus, keeps: Sequence[Keep], folder: Path, executor: Executor, decoder: Decoder
) -> Callable[[Keep], Iterator[tuple[str, str]]]:
    """Decode every utterance with every sub-model; return a function that yields the ids and texts of a sub-model, ascending.

    Args:
        experiment: the full model.
        corpus: the set to decode.
        keeps: the layers of each sub-model.
        folder: the directory of the shard files; no other process may use it.
        executor: runs the shards.
        decoder: the decoder.
    """
    shards = _shards(experiment, corpus, folder, decoder)
    missing = [(path, batches) for path, batches in shards if not _has(path, keeps)]
    write = partial(_write, experiment, corpus, keeps, executor.num_gpus, decoder)
    for _ in track(executor.map(write, missing), f"{corpus.directory.name}, {len(keeps)} sub-models", len(missing)):
        pass
    return partial(_merged, corpus, shards)


def _merged(corpus: Corpus, shards: Sequence[Shard], keep: Keep) -> Iterator[tuple[str, str]]:
    """Yield the ids and texts of a sub-model in the order of the corpus; memory holds the texts of this sub-model, packed."""
    texts, place = Packed(), np.empty(len(corpus), dtype=np.int64)
    for path, batches in shards:
        index = np.concatenate(batches)
        place[index] = len(texts) + np.arange(len(index))
        try:
            (found,) = (made for layers, made in _rows(path) if layers == keep)
            made = parse_json(found.decode())
            for i in index:
                texts.append(made[corpus.ids[i]])
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{path}: is damaged; remove it, and stage 8 (`asrprune decode`) makes it again") from None
    return ((key, texts[place[i]]) for i, key in enumerate(corpus.ids))


def _shards(experiment: Experiment, corpus: Corpus, folder: Path, decoder: Decoder) -> list[Shard]:
    """Divide the batches into shards; each shard gets long and short batches.

    The batches are those of a single process, so texts do not depend on the shards. The name of a file is a hash of everything
    on which its texts depend.
    """
    batches = sorted_batches(corpus.lengths, experiment.config.decode.max_frames)
    shards = [batches[start::MOST_SHARDS] for start in range(min(MOST_SHARDS, len(batches)))]
    made_by = [
        experiment.record.model_sha256,
        only(resolved(experiment.config), "decoding"),
        decoder.identity,
        features_of(corpus),
        Timing.of(experiment).windows.plain(),
    ]
    names = []
    for shard in shards:
        content = [[corpus.ids[i], int(corpus.lengths[i])] for batch in shard for i in batch]
        names.append(hashlib.sha256(json.dumps([made_by, content]).encode()).hexdigest()[:16])
    return [(folder / f"{name}.jsonl", shard) for name, shard in zip(names, shards, strict=True)]


def _write(
    experiment: Experiment, corpus: Corpus, keeps: Sequence[Keep], num_gpus: int, decoder: Decoder, shard: Shard
) -> None:
    path, batches = shard
    texts = hypotheses(experiment, corpus, keeps, batches, num_gpus, decoder)
    with atomic_file(path) as handle:
        for keep, made in texts.items():
            handle.write(f"{','.join(map(str, keep))}\t{json.dumps(made, ensure_ascii=False)}\n")


def _rows(path: Path) -> Iterator[tuple[Keep, bytes]]:
    """Yield the kept layers of each sub-model of a shard, and its texts as JSON; raise a ``ValueError`` if it is damaged."""
    with open_plain(path) as handle:
        for line in lines_of(handle, path, _LONGEST_ROW):
            layers, _, made = line.partition(b"\t")
            yield tuple(map(int, layers.split(b","))), made


def _has(path: Path, keeps: Sequence[Keep]) -> bool:
    """Return whether a shard has the texts of these sub-models; a damaged file is decoded again."""
    try:
        made = {keep: parse_json(made.decode()) for keep, made in _rows(path)} if path.exists() else {}
    except ValueError:
        return False
    return all(isinstance(made.get(keep), dict) for keep in keeps)


def hypotheses(
    experiment: Experiment,
    corpus: Corpus,
    keeps: Sequence[Keep],
    batches: Sequence[np.ndarray],
    num_gpus: int = 0,
    decoder: Decoder = GREEDY,
) -> Texts:
    """Decode the utterances of ``batches`` with every sub-model, on the CPU or the GPU."""
    runner, tokenizer, timing = Runner.of(experiment, num_gpus), experiment.tokenizer, Timing.of(experiment)
    texts: Texts = {keep: {} for keep in keeps}
    for batch in runner.batches(corpus, batches):
        ids = [corpus.ids[i] for i in batch.index]
        if is_long(batch.features.shape[1], timing):
            for key, features, frames in zip(ids, batch.features, batch.lens.tolist(), strict=True):
                found = _in_windows(runner, timing, features[:frames], keeps, decoder)
                for keep in keeps:
                    texts[keep][key] = tokenizer.decode(found[keep].labels)
            continue
        for keep, emissions in runner.emissions(batch.features, batch.lens, keeps):
            paths = decoder.decode(emissions.log_probs, emissions.lens)
            texts[keep] |= {key: tokenizer.decode(path.labels) for key, path in zip(ids, paths, strict=True)}
    return texts


def _in_windows(runner: Runner, timing: Timing, features: Tensor, keeps: Sequence[Keep], decoder: Decoder) -> dict[Keep, Found]:
    """Decode one utterance, (T, F) features, in windows; ``Recognizer.transcribe`` looks for pauses in samples instead."""

    def emit(start: int, stop: int) -> Iterator[tuple[Keep, np.ndarray]]:
        for keep, emissions in runner.emissions(features[None, start:stop], torch.tensor([stop - start]), keeps):
            yield keep, on_cpu(emissions.log_probs[0, : int(emissions.lens[0])])

    def energy(start: int, stop: int) -> np.ndarray:
        return on_cpu(features[start:stop].exp().sum(dim=1))  # of log energies of filters

    return decode_in_windows(len(features), timing, decoder, emit, energy)
