#!/usr/bin/env python3
"""How sure must a gain on dev be to leave the lowest layers? Half of the speakers choose, the other half judges.

python tools/choice.py exp/one exp/two

Runs no model: it reads the scores of each speaker that `asrprune search` with a beam above 1 has left in EXP/plans/scores.
No test set is read. The sub-models were found with all speakers, so the choice by any gain looks better here than it is.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from asrprune.experiment.plan import Keep, Plan, plan_path
from asrprune.prune.dev_score import standard_error
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status
from asrprune.runtime.files import read_json

ERRORS = (0.0, 1.0, 2.0, 3.0)  # standard errors that a gain must exceed
HALVES = 1000  # ways to halve the speakers


def scores_of(exp: Path) -> tuple[dict[Keep, np.ndarray], float]:
    """Return the errors of each speaker, (S,), for each sub-model that was scored completely, and the words of all speakers."""
    plan = Plan.read(plan_path(exp, "iterative"))
    if plan.metric != "wer":
        raise UserError(f"{exp}: its plan was chosen by {plan.metric}; search with --metric wer")
    path = exp / "plans/scores/iterative.json"
    results = read_json(path).values() if path.exists() else ()
    rows = [row for one in results if "by_speaker" in one for row in zip(one["scores"], one["by_speaker"], strict=True)]
    found = {tuple(keep): np.array(errors) for (keep, *_), errors in rows}
    full = tuple(range(1, plan.num_layers + 1))
    if full not in found or plan.steps[0].score is None:
        raise UserError(f"{exp}: has no scores by speaker; run stage 7 (`asrprune search`) again")
    return found, 100 * found[full].sum() / plan.steps[0].score


def gains(found: dict[Keep, np.ndarray], words: float, depth: int) -> np.ndarray:
    """Return the gain over the lowest layers, on the speakers that did not choose, in points of WER: (len(ERRORS),) means."""
    safe = tuple(range(1, depth + 1))
    keeps = [safe, *(keep for keep in found if len(keep) == depth and keep != safe)]
    errors = np.stack([found[keep] for keep in keeps])  # (K, S)
    rng, speakers = np.random.default_rng(0), errors.shape[1]
    total = np.zeros(len(ERRORS))
    for _ in range(HALVES):
        order = rng.permutation(speakers)
        chooses, judges = order[: speakers // 2], order[speakers // 2 :]
        best = errors[:, chooses].sum(axis=1).argmin()
        gain = errors[0, chooses] - errors[best, chooses]
        clear = gain.sum() > np.array(ERRORS) * standard_error(gain)
        total += clear * (errors[0, judges] - errors[best, judges]).sum() * speakers / len(judges)
    return 100 * total / HALVES / words


def main() -> None:
    """Print a table: rows are depths, columns are the standard errors that a gain must exceed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path, nargs="+")
    for exp in parser.parse_args().exp:
        found, words = scores_of(exp)
        print(f"{exp}: {len(next(iter(found.values())))} speakers; gain over the lowest layers, in points of WER")
        print("layers  sub-models" + "".join(f"  > {error:g} s.e." for error in ERRORS))
        for depth in sorted({len(keep) for keep in found}, reverse=True)[1:]:
            row = "".join(f"{gain:+10.2f}" for gain in gains(found, words, depth))
            print(f"{depth:6}{sum(len(keep) == depth for keep in found):12}{row}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
