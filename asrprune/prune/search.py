"""Making the plan of a strategy and writing it into the experiment."""

import logging
from collections.abc import Iterable
from pathlib import Path

from asrprune.config.schema import PruneConfig
from asrprune.config.strategies import NEEDS, Needs, strategy_name
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Plan, plan_path
from asrprune.experiment.store import Experiment
from asrprune.prune.dev_score import CLEAR
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
        strategy: the name of the strategy.
        dev: the dev set on which layers were measured (`asrprune svcca`), and on which sub-models are scored.
        options: replace ``prune`` of the config of the experiment.
        executor: runs the decoding of the dev set.
        decoder: decodes the dev set.

    Raises:
        UserError: there is no such strategy; a measurement is missing, or was made on another model or other data.
    """
    name, options = strategy_name(strategy), options or experiment.config.prune
    if name not in STRATEGIES:
        raise UserError(f"--strategy {strategy}: no such strategy; choose from {', '.join(STRATEGIES)}")
    needs, evidence = NEEDS[name], Evidence(experiment, name, dev, options, executor, decoder)
    steps = STRATEGIES[name].choose(evidence)
    scorer = evidence.score if any(step.score is not None for step in steps) else None
    if scorer:
        logger.info("%.0f layer passes over the dev set instead of %d", scorer.layer_forwards, scorer.naive_layer_forwards)
    plan = Plan(
        format=1, num_layers=experiment.num_layers, strategy=name, metric=options.metric if scorer else None,
        dev_set=dev.name if needs != Needs() else None, model_sha256=experiment.record.model_sha256,
        **({needs.effort: getattr(options, needs.effort)} if scorer and needs.effort else {}),
        clear=CLEAR if needs.effort == "beam" and options.beam > 1 else None,
        decoder=decoder.identity if scorer else None,
        layer_forwards=round(scorer.layer_forwards, 2) if scorer else None,
        naive_layer_forwards=scorer.naive_layer_forwards if scorer else None,
        seconds=round(scorer.seconds, 2) if scorer else None, asrprune=version(), steps=steps,
    )  # fmt: skip
    plan.write(plan_path(experiment.path, name))
    return plan


def check_measured(experiment: Experiment, strategies: Iterable[str], dev: Path) -> None:
    """Raise a ``UserError`` if the measurement that one of these strategies needs is missing or of other data."""
    for name in strategies:
        if measure := NEEDS[name].measure:
            read_measure(experiment, dev, measure)
