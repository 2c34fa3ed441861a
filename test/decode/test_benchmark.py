"""Real-time factors: seconds of a clock that is ours over seconds of audio, a row for each sub-model."""

import json
from pathlib import Path

import pytest
import soundfile
import torch
from experiments import with_numbers
from torch import Tensor

from asrprune.config.schema import BeamConfig
from asrprune.data.kaldi import read_data_dir
from asrprune.decode import benchmark as bench
from asrprune.decode.decoder import BestPath
from asrprune.decode.greedy import GREEDY
from asrprune.decode.prefix_beam import PrefixBeam
from asrprune.experiment.store import Experiment
from asrprune.model.ctc_model import num_params
from asrprune.runtime.errors import UserError

KEEPS = [(1, 2, 3, 4), (2, 4), (3,)]


def audio_seconds(directory: Path) -> list[float]:
    return [soundfile.info(utterance.audio).duration for utterance in read_data_dir(directory)]


class Clock:
    """Moves when a sub-model runs: a hundredth of a second a layer, and more at each repetition."""

    def __init__(self, exp: Experiment, per_pass: int) -> None:
        self.now, self.layers, self.per_pass = 100.0, 0, per_pass
        for layer in exp.model.encoder.layers:
            layer.register_forward_hook(self.tick)

    def tick(self, *_: object) -> None:
        repetition = self.layers // self.per_pass  # 0 is the warm-up
        self.layers += 1
        self.now += 1000.0 if repetition == 0 else 0.01 * repetition**2

    def perf_counter(self) -> float:
        return self.now

    def decode(self, log_probs: Tensor, lens: Tensor) -> list[BestPath]:
        """A decoder that takes a second for each utterance."""
        self.now += len(lens)
        return [BestPath([], [], [])] * len(lens)


def test_rtf_is_seconds_over_seconds_of_audio_without_the_warm_up(
    own: Experiment, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three repetitions that take 1, 4 and 9 hundredths a layer and utterance, median 4, and a second for the decoder."""
    own = with_numbers(own, "bench", utterances=100, repeats=3, batch=1)
    clock = Clock(own, per_pass=6 * sum(map(len, KEEPS)))
    monkeypatch.setattr(bench.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(GREEDY, "decode", clock.decode, raising=False)
    path = bench.bench(own, tiny_data / "dev", KEEPS)
    written = json.loads(path.read_text())
    total = sum(audio_seconds(tiny_data / "dev"))
    assert written["audio_s"] == pytest.approx(total)
    assert written["utterances"] == 6
    assert clock.layers == 4 * 6 * 7
    for row, keep in zip(written["rows"], KEEPS, strict=True):
        a_pass = 6 * len(keep) * 0.01
        assert row["rtf"] == pytest.approx((4 * a_pass + 6) / total)
        assert row["rtf_min"] == pytest.approx((a_pass + 6) / total)
        assert row["rtf_max"] == pytest.approx((9 * a_pass + 6) / total)
        assert row["decoder_rtf"] == pytest.approx(6 / total), "which has a part of its own"


def test_there_is_a_row_for_each_sub_model_and_the_conditions_are_stated(own: Experiment, tiny_data: Path) -> None:
    path = bench.bench(with_numbers(own, "bench", utterances=3, batch=2, repeats=2), tiny_data / "dev", KEEPS)
    assert path == own.path / "bench.json"
    written = json.loads(path.read_text())
    assert [(row["depth"], tuple(row["keep"])) for row in written["rows"]] == [(len(keep), keep) for keep in KEEPS]
    for row, keep in zip(written["rows"], KEEPS, strict=True):
        assert row["params_m"] == pytest.approx(num_params(own.model, keep) / 1e6)
        assert 0 < row["rtf_min"] <= row["rtf"] <= row["rtf_max"]
    facts = {name: written[name] for name in ("set", "utterances", "batch", "repeats", "device", "dtype", "model_sha256")}
    assert facts == {
        "set": "dev", "utterances": 3, "batch": 2, "repeats": 2, "device": "cpu", "dtype": "float32",
        "model_sha256": own.record.model_sha256,
    }  # fmt: skip
    assert written["features_rtf"] > 0
    assert written["environment"]["torch"] == torch.__version__


def test_the_configured_decoder_is_timed(own: Experiment, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = with_numbers(own, "decode", decoder=BeamConfig(width=3))
    decoded: list[int] = []
    real = PrefixBeam.decode

    def watched(self: PrefixBeam, log_probs: Tensor, lens: Tensor) -> list[BestPath]:
        decoded.append(self.options.width)
        return real(self, log_probs, lens)

    monkeypatch.setattr(PrefixBeam, "decode", watched)
    own = with_numbers(own, "bench", utterances=2, repeats=1)
    written = json.loads(bench.bench(own, tiny_data / "dev", [(1,)]).read_text())
    assert decoded == [3] * 4, "two utterances, warm-up and repetition"
    assert written["decoder"].startswith("beam width=3")


def test_batches_hold_all_utterances_longest_first(own: Experiment, tiny_data: Path) -> None:
    features, audio_s, _ = bench._features(own, tiny_data / "dev", with_numbers(own, "bench", utterances=6).config.bench)
    lengths = [len(matrix) for matrix in features]
    assert lengths == sorted(lengths, reverse=True)
    assert audio_s == pytest.approx(sum(audio_seconds(tiny_data / "dev")))
    batches = bench._batches(features, 4)
    assert [len(lens) for _, lens in batches] == [4, 2]
    assert [int(length) for _, lens in batches for length in lens] == lengths
    for padded, lens in batches:
        assert padded.shape[1] == int(lens.max())


@pytest.mark.parametrize("fails", [False, True])
def test_threads_are_set_for_the_measurement_and_restored(
    own: Experiment, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    before, during = torch.get_num_threads(), []

    def measure(*_: object) -> tuple[bench.Timed, ...]:
        during.append(torch.get_num_threads())
        if fails:
            raise UserError("stop")
        return (bench.Timed(depth=4, keep=(1, 2, 3, 4), params_m=0.1, rtf=0.1, rtf_min=0.1, rtf_max=0.1),)

    monkeypatch.setattr(bench, "measure", measure)
    own = with_numbers(own, "bench", threads=before + 1)
    if fails:
        with pytest.raises(UserError):
            bench.bench(own, tiny_data / "dev", KEEPS)
        assert not (own.path / "bench.json").exists()
    else:
        assert json.loads(bench.bench(own, tiny_data / "dev", KEEPS).read_text())["threads"] == before + 1
    assert during == [before + 1]
    assert torch.get_num_threads() == before


def test_keeps_are_one_for_each_depth(own: Experiment) -> None:
    assert bench.keeps_of(own) == [(1, 2, 3, 4), (1, 2, 3), (1, 2), (1,)]
