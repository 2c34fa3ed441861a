"""Making the plan of a strategy and writing it into the experiment."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asrprune.config.schema import PruneConfig
from asrprune.config.strategies import strategy_name
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Plan, plan_path, write_plan
from asrprune.experiment.store import Experiment
from asrprune.prune.evidence import Evidence, read_measure
from asrprune.prune.score_cache import CachedScorer
from asrprune.prune.strategies.table import STRATEGIES
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, Executor
from asrprune.runtime.version import version

logger = logging.getLogger(__name__)


def propose(
    experiment: Experiment,
    strategy: str,
    dev: Path,
    options: PruneConfig | None = None,
    executor: Executor = HERE,
    decoder: Decoder = GREEDY,
) -> Plan:
    """Make and write the plan of a strategy.

    Args:
        experiment: the full model.
        strategy: the name of the strategy.
        dev: the dev set on which layers were measured (`asrprune svcca`), and on which sub-models are scored.
        options: replace ``prune`` of the config of the experiment.
        executor: runs the decoding of the dev set.
        decoder: decodes the dev set.

    Raises:
        UserError: there is no such strategy; a measurement is missing, or was made on another model.
    """
    name, options = strategy_name(strategy), options or experiment.config.prune
    if name not in STRATEGIES:
        raise UserError(f"--strategy {strategy}: no such strategy; choose from {', '.join(STRATEGIES)}")
    chosen, evidence = STRATEGIES[name], Evidence(experiment, name, dev, options, executor, decoder)
    steps = chosen.choose(evidence)
    metric, facts = None, dict[str, Any]()
    if any(step.score is not None for step in steps):
        assert chosen.effort is not None
        effort = getattr(options, chosen.effort)
        metric, facts = options.metric, {str(chosen.effort): effort, "decoder": decoder.identity, **_cost(evidence.score)}
    facts["asrprune"] = version()
    dev_set = dev.name if chosen.needs else None
    plan = Plan(name, experiment.num_layers, steps, experiment.info["model_sha256"], metric, dev_set, facts)
    write_plan(plan_path(experiment.path, name), plan)
    return plan


def check_measured(experiment: Experiment, strategies: Iterable[str], set_name: str) -> None:
    """Raise a ``UserError`` if the measurement that one of these strategies needs is missing."""
    for name in strategies:
        needs = STRATEGIES[name].needs
        if needs is not None and needs != "score":
            read_measure(experiment, set_name, needs)


def _cost(scorer: CachedScorer) -> dict[str, Any]:
    made, naive = round(scorer.layer_forwards, 2), round(scorer.naive_layer_forwards)
    logger.info("%.0f layer passes over the dev set instead of %d", made, naive)
    return {"layer_forwards": made, "naive_layer_forwards": naive, "seconds": round(scorer.seconds, 2)}
