"""Averaging the weights of the best epochs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Size, Tensor

from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.provenance import TrainedOn
from asrprune.experiment.store import Epoch, read_experiment_config, save_model
from asrprune.experiment.trained_with import check_trained_with
from asrprune.experiment.weights import load_weights
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.train.checkpoint import best_epochs, epoch_file, load_state, trained_with


def average_best(exp: Path, count: int | None = None, licence: str | None = None) -> list[Epoch]:
    """Write the averaged weights of the best epochs to ``model.safetensors``; list these epochs in ``model.json``.

    ``licence``, of the training data, goes into ``model.json``, too.
    """
    config = read_experiment_config(exp)
    state = load_state(ExperimentPaths(exp).checkpoints)
    if state is None or not state["progress"]["records"]:
        raise UserError(f"{exp / 'checkpoints'}: no finished epoch; run stage 4 (`asrprune train`)")
    check_trained_with(ExperimentPaths(exp).checkpoints, config, trained_with(state))
    records = state["progress"]["records"]
    if records[-1]["epoch"] < config.train.epochs:
        raise UserError(
            f"{exp}: only {records[-1]['epoch']} of {config.train.epochs} epochs are trained; run stage 4 (train) to its end"
        )
    if (count or 0) > config.train.keep_best:
        raise UserError(f"{exp}: --count {count}: only the best {config.train.keep_best} epochs are kept (train.keep_best)")
    epochs = best_epochs(records, count or config.train.average)
    members = [Epoch(**record) for record in records if record["epoch"] in epochs]
    weights = mean_weights([_checked(epoch_file(ExperimentPaths(exp).checkpoints, member.epoch), member) for member in members])
    data = ExperimentPaths(exp).data
    windows = TrainedOn.read(data).windows if data.exists() else None
    save_model(exp, config, weights, members, data_licence=licence, windows=windows)
    return members


def _checked(path: Path, member: Epoch) -> Path:
    """Return ``path`` if the file is the one that training wrote; raise a ``UserError`` if it is not, or is not there."""
    if not path.exists():
        fault = "is missing"
    elif member.sha256 and sha256_of(path) != member.sha256:
        fault = "is damaged"
    else:
        return path
    raise UserError(f"{path}: {fault}; copy it again, or remove {path.parents[1]} and train again")


def mean_weights(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Return the mean of several weight files, computed in float64, in the types of the first file.

    Raises:
        UserError: a file is missing or broken, or has other weights than the first.
    """
    assert paths
    first = load_weights(paths[0])
    sums = {name: tensor.double() for name, tensor in first.items()}
    for path in paths[1:]:
        weights = load_weights(path)
        if _shapes(weights) != _shapes(first):
            raise UserError(
                f"{path}: has weights of other names or shapes than {paths[0].name}, but both must be of one training; copy the"
                f" experiment again, or remove {path.parents[1]} and train again"
            )
        for name, tensor in weights.items():
            sums[name] += tensor.double()
    return {name: (total / len(paths)).to(first[name].dtype) for name, total in sums.items()}


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, Size]:
    return {name: tensor.shape for name, tensor in weights.items()}
