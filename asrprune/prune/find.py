"""Finding the plan that gives the layers of a depth."""

from pathlib import Path

from asrprune.config.strategies import ALL_NAMES, PREFERRED, strategy_name
from asrprune.experiment.plan import Plan, plan_path, read_plan
from asrprune.experiment.store import Experiment
from asrprune.prune.strategies.lowest import lowest
from asrprune.runtime.errors import UserError, did_you_mean


def find_plan(experiment: Experiment, plan: str | Path | None) -> Plan:
    """Read the plan of a strategy, or a plan file; None: the plan of ``PREFERRED`` if it exists, else the lowest layers."""
    sha = experiment.record.model_sha256
    if plan is None:
        path = plan_path(experiment.path, PREFERRED)
        if not path.exists():
            layers = experiment.num_layers
            steps = lowest(range(1, layers + 1))
            return Plan(
                format=1, num_layers=layers, strategy="lowest", metric=None, dev_set=None, model_sha256=sha, steps=steps
            )
        return read_plan(path, experiment.num_layers, sha)
    path = Path(plan) if str(plan).endswith(".json") else plan_path(experiment.path, str(plan))
    if not path.exists():
        others = [name for name in ALL_NAMES if strategy_name(name) != strategy_name(str(plan))]
        raise UserError(f"{path}: no such file; {Plan.made_by} makes it{did_you_mean(str(plan), others, strategy_name)}")
    return read_plan(path, experiment.num_layers, sha)
