"""Loading and saving the model of an experiment directory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from asrprune.config.load import RecordedConfig, parse_config, read_yaml
from asrprune.config.old import NEWER
from asrprune.config.schema import Config
from asrprune.data.tokenizer import Tokenizer
from asrprune.data.windows import Windows
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Keep
from asrprune.experiment.trained_with import check_trained_with
from asrprune.experiment.weights import load_weights, save_weights
from asrprune.features.cmvn import read_cmvn
from asrprune.model.ctc_model import CtcModel, num_params
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import check_unchanged, sha256_of
from asrprune.runtime.hardware import decided
from asrprune.runtime.records import Record
from asrprune.runtime.version import version


class Epoch(Record):
    """The dev results of an epoch: WER in percent and loss of the last layer, and their means over all exits."""

    epoch: int
    wer: float
    loss: float | None = None
    mean_wer: float | None = None
    mean_loss: float | None = None
    sha256: str | None = None  # of the file of its weights, if it was kept


class PrunedFrom(Record):
    """The full model from which a pruned model was made."""

    model_sha256: str
    num_layers: int
    keep: Keep


class ModelRecord(Record):
    """model.json: the hash, size and averaged epochs of a model."""

    made_by: ClassVar[str] = "stage 5 (`asrprune average`)"
    format: Literal[1]
    model_sha256: str
    tokenizer_sha256: str | None = None  # earlier versions did not record it
    num_layers: int
    params_m: float
    asrprune: str
    seed: int
    pruned_from: PrunedFrom | None = None
    data_licence: str | None = None  # of the training data, in words
    config: RecordedConfig | None = None  # of the training; earlier versions did not record it
    windows: Windows | None = None  # for long recordings; earlier versions did not record them
    members: tuple[Epoch, ...]  # the averaged epochs


@dataclass(frozen=True)
class Experiment:
    """A trained model, its config and its tokenizer. Of the model only path and hash are pickled; unpickling loads it."""

    path: Path
    config: Config
    tokenizer: Tokenizer
    model: CtcModel
    record: ModelRecord

    @property
    def num_layers(self) -> int:
        """The number of layers of the full model."""
        return self.config.model.num_layers

    def decided(self, num_gpus: int) -> "Experiment":
        """Return it with the arithmetic that this machine chooses for "auto", so that records and workers name the same."""
        chosen = decided(self.config.decode.precision, num_gpus)
        decode = self.config.decode.model_copy(update={"precision": chosen})
        return replace(self, config=self.config.model_copy(update={"decode": decode}))

    def __reduce__(self) -> tuple[Callable[[Path, Config, str], "Experiment"], tuple[Path, Config, str]]:
        return _load_with, (self.path, self.config, self.record.model_sha256)


def _load_with(path: Path, config: Config, model_sha256: str) -> Experiment:
    """Load a pickled experiment; ``config`` may differ from the file, but the model may not."""
    loaded = load(path)
    check_unchanged(ExperimentPaths(path).weights, model_sha256, loaded.record.model_sha256)
    return replace(loaded, config=config)


def build_model(config: Config, exp: Path) -> CtcModel:
    """Make a model with random weights, drawn from the seed of the config, and with the CMVN of the experiment."""
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
    data_licence: str | None = None,
    windows: Windows | None = None,
) -> None:
    """Write ``model.safetensors``, then ``model.json``. An old ``model.json`` is deleted first."""
    paths = ExperimentPaths(exp)
    paths.model.unlink(missing_ok=True)
    save_weights(paths.weights, weights)
    with torch.device("meta"):  # only its parameters are counted
        model = CtcModel(config.model, config.frontend.num_mels, len(Tokenizer(paths.tokenizer)))
    ModelRecord(
        format=1, model_sha256=sha256_of(paths.weights),
        tokenizer_sha256=sha256_of(paths.tokenizer), num_layers=config.model.num_layers, params_m=num_params(model) / 1e6,
        asrprune=version(), seed=config.seed, pruned_from=pruned_from, data_licence=data_licence, config=config,
        windows=windows, members=tuple(members),
    ).write(paths.model)  # fmt: skip


def load(exp: Path, device: str | torch.device = "cpu") -> Experiment:
    """Load a trained experiment, with the model in eval mode.

    Raises:
        UserError: a file is missing or broken, or the weights do not fit the config.
    """
    paths = ExperimentPaths(exp)
    config = read_experiment_config(exp)
    record = read_model_record(exp, config)
    tokenizer = Tokenizer(paths.tokenizer)
    if record.tokenizer_sha256 not in (None, sha256_of(paths.tokenizer)):
        raise UserError(
            f"{paths.tokenizer}: does not have the SHA-256 of model.json; copy the experiment again, or replace the file by"
            " lang/bpe.model of stage 3"
        )
    weights = load_weights(paths.weights)
    if sha256_of(paths.weights) != record.model_sha256:
        raise UserError(
            f"{exp / 'model.safetensors'}: does not have the SHA-256 of model.json; copy the experiment again,"
            " or run stage 5 (`asrprune average`) again"
        )
    with torch.device("meta"):  # without memory: the config of a stranger may ask for more than there is
        model = CtcModel(config.model, config.frontend.num_mels, len(tokenizer))
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    try:  # with copies, as loaded tensors may be views of the file
        copies = {name: tensor.to(types.get(name, tensor.dtype), copy=True) for name, tensor in weights.items()}
        model.load_state_dict(copies, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{exp / 'model.safetensors'}: does not fit {exp / 'config.yaml'}: {str(error).splitlines()[1].strip()}"
        ) from None
    return Experiment(exp, config, tokenizer, model.to(device).eval(), record)


def read_model_record(exp: Path, config: Config) -> ModelRecord:
    """Read model.json; raise a ``UserError`` if it is missing or broken, or if the model was trained with other numbers."""
    path = ExperimentPaths(exp).model
    record = ModelRecord.read(path)
    if record.num_layers != config.model.num_layers:
        raise UserError(
            f"{path}: num_layers is {record.num_layers}, but model.num_layers in config.yaml is {config.model.num_layers}; copy"
            f" the experiment again, or run {ModelRecord.made_by} again"
        )
    check_trained_with(path, config, record.config)
    return record


def read_experiment_config(exp: Path) -> Config:
    """Read the config of an experiment; raise a ``UserError`` if it is missing or incomplete."""
    path = ExperimentPaths(exp).config
    if not path.is_file():
        raise UserError(f"{exp}: not an experiment (it has no config.yaml); stage 4 (`asrprune train`) makes it")
    values = read_yaml(path)
    missing = [name for name in Config.model_fields if name not in {*values, *NEWER}]
    if missing:  # a truncated file may still be valid YAML
        raise UserError(
            f"{path}: lacks {', '.join(missing)}; the file is truncated; copy the experiment again, or train it again"
        )
    return parse_config(values, str(path))
