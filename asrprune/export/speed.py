"""The real-time factor of an exported file at each depth, in onnxruntime."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asrprune.decode.greedy import GREEDY
from asrprune.export.examples import Example
from asrprune.export.record import Exported, Speed
from asrprune.export.session import Session
from asrprune.runtime.cores import physical_cores
from asrprune.runtime.hardware import environment
from asrprune.runtime.threads import given_threads

UTTERANCES, REPEATS = 10, 3


def with_speed(exported: Exported, session: Session, examples: Iterable[Example], dev: Path) -> Exported:
    """Return the record with the real-time factor of each depth, and of early exit: the median of ``REPEATS`` measurements.

    Utterances of ``dev`` run one by one, with greedy decoding. Each repetition runs every depth once, so that a change of the
    speed of the machine affects all of them; a first one warms up.
    """
    inputs, audio_s = list[tuple[np.ndarray, np.ndarray]](), 0.0
    for example in examples:
        inputs += example.one_by_one()
        audio_s += int(example.frames.sum()) * exported.frontend.shift_ms / 1000
    keeps = [None if exported.form == "depth" else row.keep for row in exported.depths]
    runs: list[Callable[..., Sequence[np.ndarray]]] = [partial(session.run, keep=keep) for keep in keeps]
    if exported.ended:
        runs.append(partial(session.run_until_sure, thresholds=exported.thresholds))
    seconds = np.array([[_seconds(run, inputs) for run in runs] for _ in range(REPEATS + 1)])[1:]
    rtf = (np.median(seconds, axis=0) / audio_s).tolist()
    changes: dict[str, Any] = {
        "depths": tuple(row.model_copy(update={"rtf": own}) for row, own in zip(exported.depths, rtf, strict=False)),
        "ended": exported.ended and exported.ended.model_copy(update={"rtf": rtf[-1]}),
        "speed": Speed(
            set=dev.resolve().name, utterances=len(inputs), cpu=str(environment()["cpu"]),
            threads=given_threads() or physical_cores(), decoder=GREEDY.identity,
        ),
    }  # fmt: skip
    return exported.model_copy(update=changes)


def _seconds(run: Callable[..., Sequence[np.ndarray]], inputs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    started = time.perf_counter()
    for x, lens in inputs:
        GREEDY.decode(*run(x, lens)[:2])
    return time.perf_counter() - started
