"""A trained experiment as the model of a recogniser; it runs in torch."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
    """The model of an experiment; see ``Model``."""

    def __init__(self, experiment: Experiment, plan: str | Path | None = None) -> None:
        """Take a loaded experiment; ``plan``: see ``find_plan``."""
        self.experiment = experiment
        self.runner = Runner.of(experiment)
        self.word_tail_s = WORD_TAIL_S
        self.default: Keep = tuple(range(1, experiment.num_layers + 1))
        self._plan = plan

    @classmethod
    def load(cls, exp: Path, plan: str | Path | None, device: str) -> "TrainedModel":
        """Load an experiment; raise a ``UserError`` if a file is missing or broken, such as the plan that is named."""
        experiment = load(exp.absolute(), device)  # the plan is read later, perhaps in another working directory
        if plan is not None and str(plan).endswith(".json"):
            plan = Path(plan).absolute()
        if plan is not None:
            find_plan(experiment, plan)
        return cls(experiment, plan)

    @property
    def num_layers(self) -> int:
        """See ``Model``."""
        return self.experiment.num_layers

    @cached_property
    def plan(self) -> Plan:
        """See ``Model``; read on first use."""
        return find_plan(self.experiment, self._plan)

    @property
    def frontend(self) -> FrontendConfig:
        """See ``Model``."""
        return self.experiment.config.frontend

    @property
    def timing(self) -> Timing:
        """See ``Model``."""
        return Timing.of(self.experiment.config)

    @property
    def units(self) -> Units:
        """See ``Model``."""
        return self.experiment.tokenizer

    def check_layers(self, layers: Sequence[int]) -> None:
        """See ``Model``."""
        check_layers(layers, self.num_layers, "layers")

    def decoder(self, given: Mapping[str, Any]) -> Decoder:
        """See ``Model``."""
        return decoder_of(self.experiment, given)

    def features(self, read: Read, num_samples: int, start: int, stop: int) -> np.ndarray:
        """See ``Model``."""
        return fbank_of_part(read, num_samples, start, stop, self.frontend)

    def emissions(self, features: np.ndarray, keep: Keep) -> np.ndarray:
        """See ``Model``."""
        batch = torch.from_numpy(features).unsqueeze(0), torch.tensor([len(features)])
        ((_, emissions),) = self.runner.emissions(*batch, [keep])
        return on_cpu(emissions.log_probs[0, : int(emissions.lens[0])])

    def emissions_until_sure(self, features: np.ndarray, threshold: float | None) -> tuple[np.ndarray, int]:
        """See ``Model``; the thresholds of early_exit.json are read on first use."""
        exits = exits_of(self.experiment)
        thresholds = self._thresholds if threshold is None else [threshold] * (len(exits) - 1)
        layer, emissions = run_until_sure(self.runner, torch.from_numpy(features), exits, thresholds)
        return on_cpu(emissions.log_probs[0, : int(emissions.lens[0])]), layer

    @cached_property
    def _thresholds(self) -> tuple[float, ...]:
        return chosen_thresholds(self.experiment)

    def params_m(self, keep: Keep) -> float:
        """See ``Model``."""
        return num_params(self.experiment.model, keep) / 1e6

    def memory_mb(self, keep: Keep) -> float:
        """See ``Model``."""
        return self.params_m(keep) * next(self.experiment.model.parameters()).element_size()
