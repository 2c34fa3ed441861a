"""A worker of the benchmark: builds what it is asked for, then runs it whenever it is told to, and says how long it took.

Each toolkit works in a process and an environment of its own; the benchmark lets them take turns. A line of JSON comes in on
stdin, a line goes out on stdout: ``{"case": NAME, ...options}`` -> ``{"ready": {...facts}}``; ``{"run": N}`` ->
``{"seconds": S}``, the mean of N runs; ``{"run": N, "depth": D}`` -> the same, of a case that runs at any depth;
``{"peak": "memory"}`` -> ``{"peak_gb": G}``, of the process so far; ``{"found": "last"}`` -> ``{"found": ...}``, what the last
run returned.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

VOCAB_SIZE = 500
Work = Callable[..., object]  # takes a depth, if the case runs at any depth
Case = Callable[..., tuple[Work, dict[str, Any]]]  # options -> what is timed, facts about it


def batch(utterances: int, frames: int, labels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, lengths (the shortest utterance has 90 % of the longest), labels, their lengths."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(utterances, frames, 80, generator=generator)
    lens = torch.linspace(frames, 0.9 * frames, utterances).long()
    units = torch.randint(1, VOCAB_SIZE, (utterances, labels), generator=generator)
    return features, lens, units, torch.full((utterances,), labels)


def serve(cases: dict[str, Case]) -> None:
    """Answer until stdin ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not get between the answers
    work: Work = lambda: None  # noqa: E731
    found: object = None
    for line in sys.stdin:
        message = json.loads(line)
        if "case" in message:
            work, facts = cases[message.pop("case")](**message)
            for _ in range(facts.pop("warm_up", 2)):
                work()
            answer: dict[str, Any] = {"ready": facts}
        elif "peak" in message:
            answer = {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
        elif "found" in message:
            answer = {"found": found}
        else:
            depth = [message["depth"]] if "depth" in message else []
            started = time.perf_counter()
            for _ in range(message["run"]):
                found = work(*depth)
            answer = {"seconds": (time.perf_counter() - started) / message["run"]}
        print(json.dumps(answer), file=out, flush=True)
