"""From a strategy's name to its plan file in an experiment."""

import logging
from collections.abc import Iterable
from pathlib import Path

from asrprune.config.schema import PruneConfig
from asrprune.config.strategies import strategy_name
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Plan, plan_path
from asrprune.experiment.store import Experiment
from asrprune.prune.evidence import Evidence, read_measure
from asrprune.prune.strategies.table import STRATEGIES
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, Executor
from asrprune.runtime.version import version

logger = logging.getLogger(__name__)


def make_plan(
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
        strategy: a name of the table of strategies.
        dev: the dev set, on which a strategy has layers measured (`asrprune svcca` did it) or sub-models scored.
        options: instead of those in the experiment's config.
        executor: where the dev set is decoded.
        decoder: decodes it.

    Raises:
        UserError: no such strategy; what it needs is not measured, or was on another model.
    """
    name, options = strategy_name(strategy), options or experiment.config.prune
    if name not in STRATEGIES:
        raise UserError(f"--strategy {strategy}: no such strategy; choose from {', '.join(STRATEGIES)}")
    chosen, evidence = STRATEGIES[name], Evidence(experiment, name, dev, options, executor, decoder)
    steps = chosen.choose(evidence)
    scorer = evidence.score if any(step.score is not None for step in steps) else None
    if scorer:
        logger.info("%.0f layer-forwards over the dev set instead of %d", scorer.layer_forwards, scorer.naive_layer_forwards)
    plan = Plan(
        format=1, num_layers=experiment.num_layers, strategy=name, metric=options.metric if scorer else None,
        dev_set=dev.name if chosen.needs else None, model_sha256=experiment.record.model_sha256,
        beam=options.beam if scorer and chosen.effort == "beam" else None,
        rerank=options.rerank if scorer and chosen.effort == "rerank" else None, decoder=decoder.identity if scorer else None,
        layer_forwards=round(scorer.layer_forwards, 2) if scorer else None,
        naive_layer_forwards=scorer.naive_layer_forwards if scorer else None,
        seconds=round(scorer.seconds, 2) if scorer else None, asrprune=version(), steps=steps,
    )  # fmt: skip
    plan.write(plan_path(experiment.path, name))
    return plan


def check_measured(experiment: Experiment, strategies: Iterable[str], set_name: str) -> None:
    """Raise a ``UserError`` if one of these strategies needs a measure that is not there."""
    for name in strategies:
        needs = STRATEGIES[name].needs
        if needs is not None and needs != "score":
            read_measure(experiment, set_name, needs)
