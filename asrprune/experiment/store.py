"""The experiment directory: everything about one model, so that no later command needs an architecture flag."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from asrprune.config.load import parse_config, read_yaml
from asrprune.config.old import YOUNGER
from asrprune.config.schema import Config
from asrprune.data.tokenizer import Tokenizer
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Keep
from asrprune.experiment.weights import load_weights, save_weights
from asrprune.features.cmvn import read_cmvn
from asrprune.model.ctc_model import CtcModel, num_params
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.runtime.records import Record
from asrprune.runtime.version import version


class Epoch(Record):
    """An epoch on the dev set: word errors in percent and loss of the last layer, and their means over all exits."""

    epoch: int
    wer: float
    loss: float | None = None
    mean_wer: float | None = None
    mean_loss: float | None = None


class PrunedFrom(Record):
    """The model that another one was cut out of."""

    model_sha256: str
    num_layers: int
    keep: Keep


class ModelRecord(Record):
    """model.json."""

    made_by: ClassVar[str] = "stage 5 (`asrprune average`)"
    format: Literal[1]
    model_sha256: str
    num_layers: int
    params_m: float
    asrprune: str
    seed: int
    pruned_from: PrunedFrom | None = None
    members: tuple[Epoch, ...]  # whose weights were averaged


@dataclass(frozen=True)
class Experiment:
    """A trained model and what belongs to it. It is pickled as path and config, and loaded, to the CPU, where it arrives."""

    path: Path
    config: Config
    tokenizer: Tokenizer
    model: CtcModel
    record: ModelRecord

    @property
    def num_layers(self) -> int:
        """Depth of the full model."""
        return self.config.model.num_layers

    def __reduce__(self) -> tuple[Callable[[Path, Config], "Experiment"], tuple[Path, Config]]:
        return _arrive, (self.path, self.config)


def _arrive(path: Path, config: Config) -> Experiment:
    """Load an experiment that was pickled; its config may have been changed in memory."""
    return replace(load(path), config=config)


def build_model(config: Config, exp: Path) -> CtcModel:
    """A freshly initialised model of an experiment, drawn from the config's seed, with its CMVN."""
    torch.manual_seed(config.seed)
    paths = ExperimentPaths(exp)
    model = CtcModel(config.model, config.frontend.num_mels, len(Tokenizer(paths.tokenizer)))
    mean, scale = read_cmvn(paths.cmvn)
    model.set_cmvn(torch.from_numpy(mean), torch.from_numpy(scale))
    return model


def save_model(
    exp: Path,
    config: Config,
    weights: dict[str, torch.Tensor],
    members: Sequence[Epoch],
    pruned_from: PrunedFrom | None = None,
) -> None:
    """Write ``model.safetensors`` and, after it, ``model.json``, which is never there beside weights of another model."""
    paths = ExperimentPaths(exp)
    paths.model.unlink(missing_ok=True)
    save_weights(paths.weights, weights)
    model = CtcModel(config.model, config.frontend.num_mels, len(Tokenizer(paths.tokenizer)))
    ModelRecord(
        format=1, model_sha256=sha256_of(paths.weights), num_layers=config.model.num_layers, params_m=num_params(model) / 1e6,
        asrprune=version(), seed=config.seed, pruned_from=pruned_from, members=tuple(members),
    ).write(paths.model)  # fmt: skip


def load(exp: Path, device: str | torch.device = "cpu") -> Experiment:
    """Load a trained experiment, its model in eval mode.

    Raises:
        UserError: a part is missing (the stage that makes it is named) or the weights do not fit the config.
    """
    paths = ExperimentPaths(exp)
    config = read_experiment_config(exp)
    record = ModelRecord.read(paths.model)
    tokenizer = Tokenizer(paths.tokenizer)
    model = CtcModel(config.model, config.frontend.num_mels, len(tokenizer))
    weights = load_weights(paths.weights)
    if sha256_of(paths.weights) != record.model_sha256:
        raise UserError(
            f"{exp / 'model.safetensors'}: is not the file that model.json was written for (other SHA-256); copy the experiment"
            " anew, or run stage 5 (`asrprune average`) again"
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{exp / 'model.safetensors'}: does not fit {exp / 'config.yaml'}: {str(error).splitlines()[1].strip()}"
        ) from None
    return Experiment(exp, config, tokenizer, model.to(device).eval(), record)


def read_experiment_config(exp: Path) -> Config:
    """The config of an experiment; a missing one names the stage that makes it."""
    path = ExperimentPaths(exp).config
    if not path.is_file():
        raise UserError(f"{exp}: not an experiment (it has no config.yaml); stage 4 (`asrprune train`) makes it")
    values = read_yaml(path)
    if missing := [
        name for name in Config.model_fields if name not in {*values, *YOUNGER}
    ]:  # a file cut short may still be valid YAML
        raise UserError(f"{path}: lacks {', '.join(missing)}; it was cut short, so copy the experiment anew or train it again")
    return parse_config(values, str(path))
