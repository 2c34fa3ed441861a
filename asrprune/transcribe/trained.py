"""The model of a trained experiment, as the recogniser uses it; it runs in torch."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from asrprune.config.schema import FrontendConfig
from asrprune.data.units import Units
from asrprune.decode.choose import decoder_of
from asrprune.decode.decoder import Decoder, on_cpu
from asrprune.decode.threshold import chosen_thresholds, exits_of
from asrprune.decode.windows import Timing
from asrprune.decode.words import WORD_TAIL_S
from asrprune.experiment.plan import Keep, Plan, check_layers
from asrprune.experiment.store import Experiment, load
from asrprune.features.fbank import Read, fbank_of_part
from asrprune.infer.early_exit import run_until_sure
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import num_params
from asrprune.prune.find import find_plan


class TrainedModel:
    """The model of an experiment; see ``Model``. A pickle has no weights; unpickling loads them."""

    batches = True

    def __init__(self, experiment: Experiment, plan: str | Path | None = None) -> None:
        """Take a loaded experiment; ``plan``: see ``find_plan``."""
        self.experiment = experiment
        self.runner = Runner.of(experiment)
        self.word_tail_s = WORD_TAIL_S
        self.default: Keep = tuple(range(1, experiment.num_layers + 1))
        self._plan = plan
        self._thresholds: tuple[float, ...] | None = None  # those of early_exit.json; None: not read yet

    @classmethod
    def load(cls, exp: Path, plan: str | Path | None, device: str) -> "TrainedModel":
        """Load an experiment; raise a ``UserError`` if one of its files, or the given plan, is missing or broken."""
        experiment = load(exp.absolute(), device)  # absolute: the plan is read later, perhaps in another directory
        if plan is not None and str(plan).endswith(".json"):
            plan = Path(plan).absolute()
        if plan is not None:
            find_plan(experiment, plan)
        return cls(experiment, plan)

    def __reduce__(self) -> tuple[Callable[..., "TrainedModel"], tuple[Experiment, str | Path | None, str]]:
        return _on_device, (self.experiment, self._plan, self.runner.device.type)

    @property
    def num_layers(self) -> int:
        return self.experiment.num_layers

    @cached_property
    def plan(self) -> Plan:
        """See ``Model``; read on first use."""
        return find_plan(self.experiment, self._plan)

    @property
    def frontend(self) -> FrontendConfig:
        return self.experiment.config.frontend

    @property
    def timing(self) -> Timing:
        return Timing.of(self.experiment)

    @property
    def units(self) -> Units:
        return self.experiment.tokenizer

    def check_layers(self, layers: Sequence[int]) -> None:
        check_layers(layers, self.num_layers, "layers")

    def decoder(self, given: Mapping[str, Any]) -> Decoder:
        return decoder_of(self.experiment, given)

    def features(self, read: Read, num_samples: int, start: int, stop: int) -> np.ndarray:
        return fbank_of_part(read, num_samples, start, stop, self.frontend)

    def emissions(self, batch: Sequence[np.ndarray], keep: Keep) -> list[np.ndarray]:
        features = pad_sequence([torch.from_numpy(each) for each in batch], batch_first=True)  # (B, T, F)
        ((_, emissions),) = self.runner.emissions(features, torch.tensor([len(each) for each in batch]), [keep])
        return [row[:frames] for row, frames in zip(on_cpu(emissions.log_probs), emissions.lens.tolist(), strict=True)]

    def thresholds(self, given: float | None, decoder: str) -> Sequence[float]:
        """See ``Model``; early_exit.json is read on first use."""
        if given is not None:
            return [given] * (len(exits_of(self.experiment)) - 1)
        if self._thresholds is None:
            self._thresholds = chosen_thresholds(self.experiment, decoder).thresholds
        return self._thresholds

    def emissions_until_sure(self, features: np.ndarray, thresholds: Sequence[float]) -> tuple[np.ndarray, int]:
        exits = exits_of(self.experiment)
        layer, emissions = run_until_sure(self.runner, torch.from_numpy(features), exits, thresholds)
        return on_cpu(emissions.log_probs[0, : int(emissions.lens[0])]), layer

    def params_m(self, keep: Keep) -> float:
        return num_params(self.experiment.model, keep) / 1e6

    def memory_mb(self, keep: Keep) -> float:
        return self.params_m(keep) * next(self.experiment.model.parameters()).element_size()


def _on_device(experiment: Experiment, plan: str | Path | None, device: str) -> TrainedModel:
    """Unpickle a model; ``experiment`` is unpickled already, on the CPU."""
    experiment.model.to(device)
    return TrainedModel(experiment, plan)
