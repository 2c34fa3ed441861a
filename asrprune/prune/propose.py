"""From a strategy's name to its plan file in an experiment."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from asrprune.analysis.matrices import read_matrices, similarity_path
from asrprune.config.schema import PruneConfig
from asrprune.data.dataset import Corpus
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.experiment.plan import Plan, Step, plan_path, write_plan
from asrprune.experiment.provenance import fingerprint
from asrprune.experiment.store import Experiment
from asrprune.prune import search
from asrprune.prune.dev_scorer import DevScorer
from asrprune.prune.score_cache import RememberedScorer
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, Executor
from asrprune.runtime.version import __version__, version

logger = logging.getLogger(__name__)
Found = tuple[tuple[Step, ...], str | None, dict[str, Any]]  # steps, the metric that chose them if one did, other facts


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
        strategy: top, every, greedy or svcca.
        dev: the dev set: greedy decodes it; svcca uses the similarities that `asrprune svcca` measured on it, and with
            ``rerank`` decodes it, too.
        options: instead of those in the experiment's config.
        executor: where the dev set is decoded.
        decoder: decodes it.

    Raises:
        UserError: no such strategy; svcca's matrix is missing or of another model.
    """
    options = options or experiment.config.prune
    if strategy == "greedy":
        steps, metric, facts = _greedy(experiment, dev, options, executor, decoder)
    elif strategy == "svcca":
        steps, metric, facts = _svcca(experiment, dev, options, executor, decoder)
    elif strategy in ("top", "every"):
        chosen = search.top if strategy == "top" else search.every
        steps, metric, facts = chosen(experiment.num_layers, experiment.config.depths()), None, {}
    else:
        raise UserError(f"--strategy {strategy}: no such strategy; choose from top, every, greedy and svcca")
    facts = {**facts, "asrprune": version()}
    used_dev = dev.name if strategy in ("greedy", "svcca") else None
    plan = Plan(strategy, experiment.num_layers, steps, experiment.info["model_sha256"], metric, used_dev, facts)
    write_plan(plan_path(experiment.path, strategy), plan)
    return plan


def _greedy(experiment: Experiment, dev: Path, options: PruneConfig, executor: Executor, decoder: Decoder) -> Found:
    score = _scorer(experiment, "greedy", dev, options, executor, decoder)
    steps = search.beam(experiment.num_layers, score, min(experiment.config.depths()), options.beam)
    return steps, options.metric, {"beam": options.beam, "decoder": decoder.identity, **_cost(score)}


def _svcca(experiment: Experiment, dev: Path, options: PruneConfig, executor: Executor, decoder: Decoder) -> Found:
    depths = experiment.config.depths()
    proposals = search.svcca(read_similarity(experiment, dev.name), depths, options.rerank)
    if options.rerank == 1:
        return tuple(Step(proposals[depth][0]) for depth in depths), None, {}
    score = _scorer(experiment, "svcca", dev, options, executor, decoder)
    return (
        search.rerank(proposals, score),
        options.metric,
        {"rerank": options.rerank, "decoder": decoder.identity, **_cost(score)},
    )


def _scorer(
    experiment: Experiment, strategy: str, dev: Path, options: PruneConfig, executor: Executor, decoder: Decoder
) -> RememberedScorer:
    """Dev scores; those that an earlier, killed search had of the same model and data are not computed again."""
    corpus = Corpus(dev, experiment.tokenizer)
    exact = [options.metric, experiment.config.decode.precision, decoder.identity, __version__]
    made_by = [experiment.info["model_sha256"], fingerprint(corpus), *exact]
    path = plan_path(experiment.path, strategy).parent / "scores" / f"{strategy}.json"
    return RememberedScorer(DevScorer(experiment, corpus, options.metric, executor, decoder), path, made_by)


def _cost(scorer: RememberedScorer) -> dict[str, Any]:
    made, naive = round(scorer.layer_forwards, 2), round(scorer.naive_layer_forwards)
    logger.info("%.0f layer-forwards over the dev set instead of %d", made, naive)
    return {"layer_forwards": made, "naive_layer_forwards": naive, "seconds": round(scorer.seconds, 2)}


def read_similarity(experiment: Experiment, set_name: str) -> np.ndarray:
    """The SVCCA matrix (L + 1, L + 1) of this model on a set; stage 6 makes it."""
    path = similarity_path(experiment.path, set_name)
    stored = read_matrices(path)
    if str(stored["model_sha256"]) != experiment.info["model_sha256"]:
        raise UserError(f"{path}: measured on another model; run stage 6 (`asrprune svcca`) again")
    return stored["similarity"]
