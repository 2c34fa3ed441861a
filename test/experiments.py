"""Experiments for tests: untrained ones, and ones with other numbers."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from asrprune.config.schema import Config
from asrprune.experiment import provenance
from asrprune.experiment.store import Experiment, build_model, load, save_model
from asrprune.model.head import BLANK
from asrprune.train.journal import read_journal
from asrprune.train.loop import Trainer


def untrained(exp: Path, config: Config, data: Path, bpe: Path | None = None) -> Experiment:
    """An untrained experiment with the CMVN and text units (or others) of ``data``; it says something else at every depth."""
    provenance.start(exp, config, bpe or data / "lang/bpe.model", data / "cmvn")
    save_model(exp, config, build_model(config, exp).state_dict(), ())
    return load(exp)


def config_with(config: Config, section: str, **values: Any) -> Config:
    """A config with other numbers in one section, which are not checked."""
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def with_numbers(exp: Experiment, section: str, **values: Any) -> Experiment:
    """The experiment with other numbers in one section."""
    return replace(exp, config=config_with(exp.config, section, **values))


def talking(exp: Path) -> Experiment:
    """The experiment with less probable blanks, so that it says something after its two epochs."""
    experiment = load(exp)
    with torch.no_grad():
        experiment.model.head.project.bias[BLANK] -= 2.0
    return experiment


def losses(exp: Path) -> list[float]:
    """The losses of all updates, and of dev after each epoch."""
    records = read_journal(exp / "train.jsonl")
    return [value for r in records for value in ([r["loss"]] if r["kind"] == "step" else r["dev_loss"].values())]


@contextlib.contextmanager
def killed_after_an_epoch() -> Iterator[None]:
    """Kill the training in this block as soon as its first epoch is saved."""

    class Killed(Exception):
        pass

    finish = Trainer._finish_epoch

    def finish_and_die(trainer: Trainer) -> None:
        finish(trainer)
        raise Killed

    with patch.object(Trainer, "_finish_epoch", finish_and_die), pytest.raises(Killed):
        yield
