"""Decoding a set at several depths and strategies of one model."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrprune.config.strategies import spellings
from asrprune.data.dataset import Corpus
from asrprune.data.tables import write_table
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.decode.parts import decode_in_parts
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Keep, Plan, file_of
from asrprune.experiment.store import Experiment
from asrprune.model.ctc_model import num_params
from asrprune.runtime.executor import HERE, Executor
from asrprune.runtime.files import held, read_json, write_json
from asrprune.runtime.planted import inside


@dataclass(frozen=True)
class SubModel:
    """A depth of a plan."""

    strategy: str
    keep: Keep

    def output(self, folder: Path) -> Path:
        """The directory of its results, such as ``folder/iterative_d6``."""
        return file_of(folder, self.strategy, f"_d{len(self.keep)}")


def sub_models(plans: Sequence[Plan], depths: Sequence[int]) -> list[SubModel]:
    """Every wanted depth of every plan; a ``UserError`` names the depth that a plan lacks."""
    return [SubModel(plan.strategy, plan.keep(depth)) for plan in plans for depth in depths]


def decode_set(
    experiment: Experiment,
    directory: Path,
    wanted: Sequence[SubModel],
    executor: Executor = HERE,
    decoder: Decoder = GREEDY,
) -> list[Path]:
    """Decode a data directory with each sub-model that is not decoded yet, all of them in one pass.

    Writes ``decode/<set>/<strategy>_d<depth>/text`` (Kaldi) and ``decode.json`` in the experiment; returns the directories.

    Raises:
        UserError: another process is decoding the set.
    """
    corpus = Corpus(directory, None)
    facts = _facts(experiment, corpus, decoder)
    outputs = {model.output(ExperimentPaths(experiment.path).decoded(directory.name)): model for model in wanted}
    records = {output: {**facts, **_facts_of(experiment, model)} for output, model in outputs.items()}
    missing = [output for output, record in records.items() if not _is_decoded(output, record)]
    keeps = list(dict.fromkeys(outputs[output].keep for output in missing))
    if not keeps:
        return list(outputs)
    parts = inside(ExperimentPaths(experiment.path).decoded(directory.name), "parts")
    with held(parts.parent):  # not parts, which is removed: on NFS the open lock file would remain in it
        texts = decode_in_parts(experiment, corpus, keeps, parts, executor, decoder)
        for output in missing:
            for stale in ("decode.json", "score.json"):
                (output / stale).unlink(missing_ok=True)
            write_table(output / "text", texts[outputs[output].keep])
            write_json(output / "decode.json", records[output])
        shutil.rmtree(parts)
    return list(outputs)


def _is_decoded(output: Path, record: dict[str, Any]) -> bool:
    written = output / "decode.json"
    if not ((output / "text").exists() and written.exists()):
        return False
    known = read_json(written)
    return any(known == {**record, "strategy": name} for name in spellings(record["strategy"]))


def _facts_of(experiment: Experiment, model: SubModel) -> dict[str, Any]:
    params_m = num_params(experiment.model, model.keep) / 1e6
    return {"strategy": model.strategy, "depth": len(model.keep), "keep": list(model.keep), "params_m": params_m}


def _facts(experiment: Experiment, corpus: Corpus, decoder: Decoder) -> dict[str, Any]:
    config = experiment.config
    text = "".join(f"{key} {text}\n" for key, text in zip(corpus.ids, corpus.texts, strict=True))
    return {
        "format": 1,
        "set": corpus.directory.name,
        "decoder": f"{decoder.identity}, {config.decode.precision}",
        "model_sha256": experiment.info["model_sha256"],
        "utterances": len(corpus),
        "hours": round(float(corpus.lengths.sum()) * config.frontend.frame_shift_ms / 3.6e6, 4),
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
