"""Decoding a set at several depths and strategies of one model."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.data.tables import write_table
from asrprune.decode.ctc import greedy
from asrprune.experiment import Experiment
from asrprune.files import read_json, write_json
from asrprune.hardware import autocast_type
from asrprune.nn.model import num_params
from asrprune.progress import track
from asrprune.prune.plan import Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubModel:
    """A depth of a plan."""

    strategy: str
    keep: tuple[int, ...]

    @property
    def name(self) -> str:
        """``greedy_d6``: the directory of its results."""
        return f"{self.strategy}_d{len(self.keep)}"


def sub_models(plans: Sequence[Plan], depths: Sequence[int]) -> list[SubModel]:
    """Every wanted depth of every plan; a ``UserError`` names the depth that a plan lacks."""
    return [SubModel(plan.strategy, plan.keep(depth)) for plan in plans for depth in depths]


def decode_set(experiment: Experiment, directory: Path, wanted: Sequence[SubModel]) -> list[Path]:
    """Decode a data directory with each sub-model that is not decoded yet; the same layers are decoded once.

    Writes ``decode/<set>/<strategy>_d<depth>/text`` (Kaldi) and ``decode.json`` in the experiment; returns the directories.
    """
    corpus = Corpus(directory, None)
    facts = _facts(experiment, corpus)
    texts: dict[tuple[int, ...], dict[str, str]] = {}
    outputs = [experiment.path / "decode" / directory.name / model.name for model in wanted]
    for model, output in zip(wanted, outputs, strict=True):
        record = {**facts, "strategy": model.strategy, "depth": len(model.keep), "keep": list(model.keep)}
        record["params_m"] = num_params(experiment.model, model.keep) / 1e6
        if _is_decoded(output, record):
            continue
        if model.keep not in texts:
            texts[model.keep] = hypotheses(experiment, corpus, model.keep, f"{directory.name} {model.name}")
        for stale in ("decode.json", "score.json"):
            (output / stale).unlink(missing_ok=True)
        write_table(output / "text", texts[model.keep])
        write_json(output / "decode.json", record)
    return outputs


def _is_decoded(output: Path, record: dict[str, Any]) -> bool:
    written = output / "decode.json"
    return (output / "text").exists() and written.exists() and read_json(written) == record


@torch.inference_mode()
def hypotheses(experiment: Experiment, corpus: Corpus, keep: Sequence[int] | None, label: str) -> dict[str, str]:
    """Greedy hypotheses of every utterance: id -> text."""
    model, options = experiment.model, experiment.config.decode
    device = model.cmvn_mean.device
    dtype = autocast_type(options.precision, device)
    batches = sorted_batches(corpus.lengths, options.max_frames)
    texts: dict[str, str] = {}
    for batch in track(corpus.loader(batches), label, len(batches)):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            emissions = model.emit(batch.features.to(device), batch.lens.to(device), keep)
        for index, labels in zip(batch.index, greedy(emissions.log_probs, emissions.lens), strict=True):
            texts[corpus.ids[index]] = experiment.tokenizer.decode(labels)
    return texts


def _facts(experiment: Experiment, corpus: Corpus) -> dict[str, Any]:
    config = experiment.config
    text = "".join(f"{key} {text}\n" for key, text in zip(corpus.ids, corpus.texts, strict=True))
    return {
        "format": 1,
        "set": corpus.directory.name,
        "decoder": f"greedy, {config.decode.precision}",
        "model_sha256": experiment.info["model_sha256"],
        "utterances": len(corpus),
        "hours": round(float(corpus.lengths.sum()) * config.frontend.frame_shift_ms / 3.6e6, 4),
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
