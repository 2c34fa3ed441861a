"""A file of the scores of a search, with which a killed search continues."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from asrprune.experiment.plan import Keep
from asrprune.prune.dev_score import DevScore
from asrprune.prune.dev_scorer import DevScorer
from asrprune.runtime.files import write_json
from asrprune.runtime.records import Finite, read_values


class _Result(TypedDict):
    """The scores of some sub-models, (layers, score, tie break) each, and their cost."""

    layer_forwards: Finite
    naive_layer_forwards: int
    seconds: Finite
    scores: list[tuple[Keep, Finite, Finite]]
    by_speaker: NotRequired[list[tuple[Finite, ...]]]  # of the same sub-models; an earlier version did not write it


class CachedScorer:
    """A ``DevScorer`` that writes its results to a file and reuses them for the same sub-models."""

    def __init__(self, scorer: DevScorer, path: Path, made_by: Sequence[Any]) -> None:
        """Read the file at ``path``; ``made_by`` is JSON data on which the results depend, besides the sub-models."""
        self.scorer, self.path, self.made_by = scorer, path, list(made_by)
        known = path.exists()
        self.results = read_values(dict[str, _Result], path, "stage 7 (`asrprune search`)") if known else {}
        # The cost of the search, including reused results:
        self.layer_forwards, self.naive_layer_forwards, self.seconds = 0.0, 0, 0.0

    def __call__(self, keeps: Sequence[Keep], best: int | None = None) -> dict[Keep, DevScore]:
        """Compute dev scores; see ``DevScorer``."""
        key = hashlib.sha256(json.dumps([self.made_by, keeps, best]).encode()).hexdigest()[:16]
        if not self._has(key, keeps, best):
            self.results[key] = self._compute(keeps, best)
            write_json(self.path, self.results)
        result = self.results[key]
        self.layer_forwards += result["layer_forwards"]
        self.naive_layer_forwards += result["naive_layer_forwards"]
        self.seconds += result["seconds"]
        scored = zip(result["scores"], result["by_speaker"], strict=True)
        return {keep: DevScore(primary, tie_break, by_speaker) for (keep, primary, tie_break), by_speaker in scored}

    def _has(self, key: str, keeps: Sequence[Keep], best: int | None) -> bool:
        """Return whether there is a result with the sub-models that were asked for: the file may have been changed."""
        result = self.results.get(key)
        if result is None or list(map(len, result.get("by_speaker", ()))) != [self.scorer.num_speakers] * len(result["scores"]):
            return False
        found = {keep for keep, _, _ in result["scores"]}
        return found <= set(keeps) and len(found) >= (len(keeps) if best is None else min(best, len(keeps)))

    def _compute(self, keeps: Sequence[Keep], best: int | None) -> _Result:
        started, scorer = time.monotonic(), self.scorer
        made, naive = scorer.layer_forwards, scorer.naive_layer_forwards
        scores = scorer(keeps, best)
        return {
            "layer_forwards": scorer.layer_forwards - made,
            "naive_layer_forwards": scorer.naive_layer_forwards - naive,
            "seconds": time.monotonic() - started,
            "scores": [(keep, score.primary, score.tie_break) for keep, score in scores.items()],
            "by_speaker": [score.by_speaker for score in scores.values()],
        }
