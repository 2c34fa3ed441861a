"""Removing layers from the weights: the pruned model is an ordinary experiment with fewer layers."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from asrprune.config.load import write_config
from asrprune.config.schema import Config
from asrprune.data.units import write_tokens
from asrprune.decode.choose import Tuned
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import check_layers
from asrprune.experiment.store import Experiment, ModelRecord, PrunedFrom, save_model
from asrprune.features.cmvn import read_cmvn
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_directory, atomic_path

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.*)")


def prune(experiment: Experiment, keep: Sequence[int], target: Path) -> None:
    """Write an experiment that contains only the kept layers, renumbered from 1.

    Raises:
        UserError: ``target`` exists already, or the model lacks a layer of ``keep``.
    """
    check_layers(keep, experiment.num_layers, "layers")
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: exists already; choose another directory, or remove it")
    with atomic_directory(target.resolve()) as unfinished:
        _write(experiment, keep, unfinished)


def _write(experiment: Experiment, keep: Sequence[int], target: Path) -> None:
    write_tokens(target / "tokens.txt", experiment.tokenizer)
    read_cmvn(experiment.path / "cmvn")  # an error if it is a link to some other file, which must not be copied
    for name in ("bpe.model", "cmvn", *_own_language_model(experiment)):
        with atomic_path(target / name) as temporary:
            shutil.copyfile(experiment.path / name, temporary)
    config = pruned_config(experiment.config, keep)
    write_config(config, ExperimentPaths(target).config)
    weights = pruned_weights(experiment.model.state_dict(), keep)
    if not config.model.self_conditioning:
        weights = {name: weight for name, weight in weights.items() if not name.startswith("condition.")}
    whole = experiment.record
    source = PrunedFrom(model_sha256=whole.model_sha256, num_layers=whole.num_layers, keep=tuple(keep))
    save_model(target, config, weights, whole.members, source, whole.data_licence, whole.windows)
    _copy_tuned(experiment, target)


def _own_language_model(experiment: Experiment) -> list[str]:
    """Return the language model of the config, if it is a file in the experiment's ``lang``."""
    name = getattr(experiment.config.decode.decoder, "lm", None) or ""
    path = ExperimentPaths(experiment.path).lang / name
    return [f"lang/{name}"] if Path(name).name == name and path.is_file() and not path.is_symlink() else []


def _copy_tuned(experiment: Experiment, target: Path) -> None:
    """Copy the language-model weights that were tuned for the full model."""
    own, new = ExperimentPaths(experiment.path), ExperimentPaths(target)
    tuned = Tuned.read(own.decoder) if own.decoder.exists() else None
    if tuned and tuned.model_sha256 == experiment.record.model_sha256:
        tuned.model_copy(update={"model_sha256": ModelRecord.read(new.model).model_sha256}).write(new.decoder)


def pruned_config(config: Config, keep: Sequence[int]) -> Config:
    """Return the config of the pruned model: fewer layers, the taps on kept layers, renumbered; all updates run all layers.

    Without a tap below the last layer, self-conditioning is switched off.
    """
    taps = tuple(keep.index(tap) + 1 for tap in config.model.tap_layers if tap in keep)
    model = config.model.model_copy(update={"num_layers": len(keep), "taps": taps, "truncated": {}, "grow": {}})
    depths = tuple(depth for depth in config.depths() if depth <= len(keep))
    prune = config.prune.model_copy(update={"depths": depths})
    return config.model_copy(update={"model": model.settled(), "prune": prune.settled()})


def pruned_weights(weights: dict[str, Tensor], keep: Sequence[int]) -> dict[str, Tensor]:
    """Return the weights without the removed layers; kept layers are renumbered."""
    cut = {}
    for name, tensor in weights.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            cut[name] = tensor
        elif int(match[1]) + 1 in keep:
            cut[f"encoder.layers.{keep.index(int(match[1]) + 1)}.{match[2]}"] = tensor
    return cut
