"""The scores that a search has seen, on disk: one that was killed goes on where it stopped."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.experiment.plan import Keep
from asrprune.prune.dev_score import DevScore
from asrprune.prune.dev_scorer import DevScorer
from asrprune.runtime.files import read_json, write_json


class RememberedScorer:
    """A ``DevScorer`` whose answers are written down, and given again when the same is asked anew."""

    def __init__(self, scorer: DevScorer, path: Path, made_by: Sequence[Any]) -> None:
        """``made_by``: plain data on which the answers depend, besides the question."""
        self.scorer, self.path, self.made_by = scorer, path, list(made_by)
        self.answers: dict[str, Any] = read_json(path) if path.exists() else {}
        # As of a search that was not killed:
        self.layer_forwards, self.naive_layer_forwards, self.seconds = 0.0, 0, 0.0

    def __call__(self, keeps: Sequence[Keep], best: int | None = None) -> dict[Keep, DevScore]:
        """Score sub-models, as ``DevScorer`` does."""
        question = hashlib.sha256(json.dumps([self.made_by, keeps, best]).encode()).hexdigest()[:16]
        if question not in self.answers:
            self.answers[question] = self._ask(keeps, best)
            write_json(self.path, self.answers)
        answer = self.answers[question]
        self.layer_forwards += answer["layer_forwards"]
        self.naive_layer_forwards += answer["naive_layer_forwards"]
        self.seconds += answer["seconds"]
        return {tuple(keep): DevScore(primary, tie_break) for keep, primary, tie_break in answer["scores"]}

    def _ask(self, keeps: Sequence[Keep], best: int | None) -> dict[str, Any]:
        started, scorer = time.monotonic(), self.scorer
        made, naive = scorer.layer_forwards, scorer.naive_layer_forwards
        scores = [[keep, score.primary, score.tie_break] for keep, score in scorer(keeps, best).items()]
        return {
            "layer_forwards": scorer.layer_forwards - made,
            "naive_layer_forwards": scorer.naive_layer_forwards - naive,
            "seconds": time.monotonic() - started,
            "scores": scores,
        }
