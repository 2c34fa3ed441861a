"""The speed of an exported file, with a clock that only the file moves."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asrprune.export import speed
from asrprune.export.examples import Example
from asrprune.export.record import Ended, Exported


def test_it_is_the_median_after_a_first_round(page: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer takes 10 ms for each utterance, and early exit 15 ms; rounds are 7, 1, 2 and 4 times as slow."""
    clock, slow = [0.0], [factor for factor in (7, 1, 2, 4) for _ in range(5 * 3)]  # five ways, three utterances

    class File:
        def run(self, x: np.ndarray, lens: np.ndarray, keep: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
            assert x.shape == (1, *lens, 80), "one utterance, without padding"
            clock[0] += 0.010 * len(keep) * slow.pop(0)
            return np.zeros((1, 5, 7), np.float32), np.array([5])

        def run_until_sure(self, x: np.ndarray, lens: np.ndarray, thresholds: tuple[float, ...]) -> tuple[np.ndarray, ...]:
            clock[0] += 0.015 * slow.pop(0)
            return np.zeros((1, 5, 7), np.float32), np.array([5]), np.array([1])

    def examples() -> Iterator[Example]:
        for lens in ([50, 30], [20]):
            x = torch.zeros(len(lens), max(lens), 80)
            yield Example(x, torch.tensor(lens), x.numpy(), np.array(lens))

    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    ended = Ended(set="dev", utterances=3, layers=1, layers_float32=1, changed=0, wer=None, wer_float32=None)
    record = Exported.read(page[0] / "model.onnx.json").model_copy(update={"ended": ended})
    found = speed.with_speed(record, File(), examples(), Path("data/dev"))
    assert [row.rtf for row in found.depths] == pytest.approx([0.02 * depth * 3 / 1.0 for depth in (4, 3, 2, 1)])
    assert found.ended.rtf == pytest.approx(0.03 * 3)
    assert (found.speed.set, found.speed.utterances) == ("dev", 3)
