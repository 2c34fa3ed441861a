"""The numbers with which weights were trained; they are recorded with the weights, and compared where these are used."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from asrprune.config.load import resolved
from asrprune.config.names import only
from asrprune.config.schema import Config
from asrprune.runtime.errors import UserError


def check_trained_with(weights: Path, config: Config, trained: Config | None) -> None:
    """Check that the config of an experiment has the numbers with which its weights were trained.

    Another number of heads, for example, would fit the weights, but give other texts.

    Args:
        weights: the file or directory in the experiment that records how its weights were trained.
        config: the config of the experiment.
        trained: the recorded config; None: an earlier version did not record it.

    Raises:
        UserError: a number that affects learning differs.
    """
    if trained is not None and (found := changes(trained, config)):
        name, was, now = found[0]
        raise UserError(
            f"{weights}: was trained with {name} = {was}, but config.yaml beside it has {now}; set it back, or copy the"
            " experiment again"
        )


def changes(old: Config, new: Config) -> Sequence[tuple[str, str, str]]:
    """Return name, old and new value of the numbers that affect learning and differ; ``train.epochs`` may grow."""
    if old.train.epochs < new.train.epochs:
        old = old.model_copy(update={"train": old.train.model_copy(update={"epochs": new.train.epochs})})
    return _differences(only(resolved(old), "learning"), only(resolved(new), "learning"))


def _differences(old: Any, new: Any, name: str = "") -> Sequence[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = {**old, **new}
        return [item for key in keys for item in _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [(name, _short(old), _short(new))]


def _short(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
