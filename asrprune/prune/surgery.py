"""Cutting a model down to its kept layers: a pruned model is an ordinary experiment with fewer layers."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from asrprune.config.load import write_config
from asrprune.config.schema import Config
from asrprune.data.tokenizer import write_tokens
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import check_layers
from asrprune.experiment.store import Experiment, save_model
from asrprune.features.cmvn import read_cmvn
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.*)")


def prune(experiment: Experiment, keep: Sequence[int], target: Path) -> None:
    """Write a standalone experiment of the kept layers, renumbered from 1.

    Raises:
        UserError: ``target`` is there already, or the model lacks a layer of ``keep``.
    """
    check_layers(keep, experiment.num_layers, "layers")
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: is there already; choose another directory, or remove it")
    target.mkdir(parents=True, exist_ok=True)
    write_tokens(target / "tokens.txt", experiment.tokenizer)
    read_cmvn(experiment.path / "cmvn")  # what is copied is what its name says, not what a link points to
    for name in ("bpe.model", "cmvn"):
        with atomic_path(target / name) as temporary:
            shutil.copyfile(experiment.path / name, temporary)
    config = pruned_config(experiment.config, keep)
    write_config(config, ExperimentPaths(target).config)
    weights = pruned_weights(experiment.model.state_dict(), keep)
    if not config.model.self_conditioning:
        weights = {name: weight for name, weight in weights.items() if not name.startswith("condition.")}
    source = {"model_sha256": experiment.info["model_sha256"], "num_layers": experiment.num_layers, "keep": list(keep)}
    save_model(target, config, weights, {"pruned_from": source, "members": experiment.info["members"]})


def pruned_config(config: Config, keep: Sequence[int]) -> Config:
    """Fewer layers; the taps on kept layers move with them, the others leave, and no update would be truncated.

    With no tap below the last layer there is no self-conditioning either.
    """
    taps = tuple(keep.index(tap) + 1 for tap in config.model.tap_layers if tap in keep)
    model = config.model.model_copy(update={"num_layers": len(keep), "taps": taps, "truncated": {}})
    depths = tuple(depth for depth in config.depths() if depth <= len(keep))
    prune = config.prune.model_copy(update={"depths": depths})
    return config.model_copy(update={"model": model.settled(), "prune": prune.settled()})


def pruned_weights(weights: dict[str, Tensor], keep: Sequence[int]) -> dict[str, Tensor]:
    """The weights without the removed layers, the kept ones renumbered."""
    cut = {}
    for name, tensor in weights.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            cut[name] = tensor
        elif int(match[1]) + 1 in keep:
            cut[f"encoder.layers.{keep.index(int(match[1]) + 1)}.{match[2]}"] = tensor
    return cut
