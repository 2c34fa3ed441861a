"""Sub-models that run together give what each gives on its own."""

import itertools

import pytest
import torch

from asrprune.config.schema import ModelConfig
from asrprune.experiment.plan import Keep
from asrprune.infer.prefix_tree import layers_run, run_together
from asrprune.model import encoder
from asrprune.model.ctc_model import CtcModel

LAYERS = 5
SETS: list[Keep] = [keep for count in range(1, LAYERS + 1) for keep in itertools.combinations(range(1, LAYERS + 1), count)]


@pytest.fixture(scope="module", params=["plain", "conditioned", "conformer"])
def model(request: pytest.FixtureRequest) -> CtcModel:
    torch.manual_seed(0)
    options = {"num_layers": LAYERS, "dim": 16, "heads": 2, "ffn": 32, "subsampling": {"channels": 4}, "taps": [2, 4, LAYERS]}
    layer = {"layer": {"type": "conformer", "kernel": 3}} if request.param == "conformer" else {}
    config = ModelConfig.model_validate({**options, **layer, "self_conditioning": request.param == "conditioned"})
    return CtcModel(config, 80, 7).eval()


@pytest.mark.parametrize("max_frames", [0, 300, 100_000])
def test_every_stream_is_that_of_the_sub_model_alone(model: CtcModel, max_frames: int) -> None:
    features, lens = torch.randn(3, 60, 80), torch.tensor([60, 33, 5])
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handles = [layer.register_forward_hook(count) for layer in model.encoder.layers]
    with torch.inference_mode():
        x, context = model.embed(features, lens)
        frames, streams = context.lens, run_together(model, x, context, SETS, max_frames // 4)
        for handle in handles:
            handle.remove()
        for keep in SETS:
            alone = model.encode(model.normalise(features), lens, keep)
            assert torch.equal(frames, alone.lens)
            for row, count_ in enumerate(frames):
                torch.testing.assert_close(streams[keep][row, :count_], alone.x[row, :count_], rtol=1e-5, atol=1e-5)
    if max_frames == 0:
        assert calls == layers_run(SETS) < sum(map(len, SETS))
    if max_frames == 100_000:
        assert calls < layers_run(SETS)


def test_the_padding_is_looked_at_once(model: CtcModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is waited for each time."""
    calls, make = [], encoder.padding_mask
    monkeypatch.setattr(encoder, "padding_mask", lambda *args: (calls.append(args), make(*args))[1])
    with torch.inference_mode():
        x, context = model.embed(torch.randn(3, 60, 80), torch.tensor([60, 33, 5]))
        run_together(model, x, context, SETS, 75)
    assert len(calls) == 1


def test_what_is_run_is_every_beginning_once() -> None:
    assert layers_run([]) == 0
    assert layers_run([(1, 2, 3), (1, 2), (1,)]) == 3
    assert layers_run([(1, 2), (2,), (1, 3)]) == 4
    assert layers_run(SETS) == 2**LAYERS - 1  # each set is a beginning of its own
