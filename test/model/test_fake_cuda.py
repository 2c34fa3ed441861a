"""The model on a GPU that is not there: fake tensors have devices and shapes, and mixing devices fails as on CUDA."""

from collections.abc import Iterator

import pytest
import torch
from emissions import emit
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from asrprune.config.schema import ModelConfig
from asrprune.infer.prefix_tree import run_together
from asrprune.model import encoder, relative_attention
from asrprune.model.ctc_model import CtcModel
from asrprune.model.encoder import real_frames
from asrprune.model.head import ctc_losses

LAYERS, VOCAB_SIZE, NUM_MELS = 4, 7, 80
CUDA = torch.device("cuda", 0)
CONFIGS = {
    "transformer": {},
    "conformer": {"layer": {"type": "conformer", "kernel": 3, "norm": "batch"}},
    "conformer, LayerNorm": {"layer": {"type": "conformer", "kernel": 3, "norm": "layer"}},
    "ebranchformer": {"layer": {"type": "ebranchformer", "kernel": 3, "merge_kernel": 5, "cgmlp": 24}},
    "conditioned": {"self_conditioning": True},
}


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, tensors are fake. What needs values is done as if there were padding, or is left out."""
    monkeypatch.setattr(encoder, "padding_mask", real_frames)
    monkeypatch.setattr(F, "ctc_loss", checked_ctc_loss)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    relative_attention.distances.cache_clear()
    with FakeTensorMode():
        yield
    relative_attention.distances.cache_clear()


def checked_ctc_loss(log_probs: Tensor, targets: Tensor, input_lens: Tensor, target_lens: Tensor, **_: object) -> Tensor:
    """The losses' shape; fake tensors have no CTC. What CUDA's kernel asks for: all of it there, float32 and int64."""
    assert {x.device for x in (log_probs, targets, input_lens, target_lens)} == {CUDA}
    assert log_probs.dtype == torch.float32
    assert {x.dtype for x in (targets, input_lens, target_lens)} == {torch.int64}
    assert log_probs.shape[1] == len(targets) == len(input_lens) == len(target_lens)
    return log_probs.sum(dim=(0, 2))


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest, fake: None) -> CtcModel:
    sizes = {
        "num_layers": LAYERS,
        "dim": 16,
        "heads": 2,
        "ffn": 32,
        "subsampling": {"channels": 4},
        "taps": [1, 2],
        "attention_dropout": 0.1,
    }
    config = ModelConfig.model_validate({**sizes, **CONFIGS[request.param]})
    with CUDA:  # parameters are fake from the start: torch cannot move fake ones
        return CtcModel(config, NUM_MELS, VOCAB_SIZE)


def batch(frames: int = 60) -> tuple[Tensor, Tensor]:
    return torch.randn(3, frames, NUM_MELS, device=CUDA), torch.tensor([frames, 33, 5], device=CUDA)


def units() -> tuple[Tensor, Tensor]:
    return torch.ones(3, 5, dtype=torch.int64, device=CUDA), torch.tensor([5, 4, 0], device=CUDA)


def check(*tensors: Tensor) -> None:
    assert {tensor.device for tensor in tensors} == {CUDA}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep", [None, (1, 3), ()])
def test_inference(model: CtcModel, keep: tuple[int, ...] | None, dtype: torch.dtype) -> None:
    model.eval()
    with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        for frames in (60, 5):
            emissions = emit(model, *batch(frames), keep)
            check(emissions.log_probs, emissions.lens)
            assert emissions.log_probs.dtype == torch.float32
        encoded = model.encode(*batch(), keep, range(LAYERS + 1))
        check(encoded.x, encoded.lens, *encoded.taps.values())
        x, context = model.embed(*batch())
        check(x, context.lens, model.head(model.step(x, 2, context, after=1)))
        check(*run_together(model, x, context, [(1, 2), (1, 3), (2,)], 1000).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("all_take_part", [False, True])
@pytest.mark.parametrize("keep", [None, (1, 3), ()])
def test_training(model: CtcModel, keep: tuple[int, ...] | None, all_take_part: bool, dtype: torch.dtype) -> None:
    model.all_take_part = all_take_part
    features, lens = batch()
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        losses = model(model.normalise(features), lens, *units(), keep, [1.5] * LAYERS)
    assert losses.shape == (3,)
    check(losses, model.total(losses))


def test_losses_of_stacked_emissions() -> None:
    log_probs, lens = torch.randn(6, 14, VOCAB_SIZE, device=CUDA), torch.tensor([14, 7, 0], device=CUDA)
    check(ctc_losses(log_probs, lens, *units()))
