"""The E-Branchformer layer: scales and start. test_espnet_parity.py has its formula, test_encoder.py what all types share."""

import pytest
import torch
from torch.nn import functional as F

from asrprune.config.schema import Conv2dConfig, ModelConfig
from asrprune.model.ctc_model import CtcModel
from asrprune.model.ebranchformer import EBranchformerLayer
from asrprune.model.encoder import Encoder

DIM, HEADS, HIDDEN, KERNEL, MERGE_KERNEL = 12, 3, 16, 5, 3
LAYER = {"type": "ebranchformer", "kernel": KERNEL, "merge_kernel": MERGE_KERNEL}
SIZES = {"heads": 2, "ffn": 24}


@pytest.fixture
def layer() -> EBranchformerLayer:
    torch.manual_seed(0)
    return EBranchformerLayer(DIM, HEADS, 20, HIDDEN, KERNEL, MERGE_KERNEL, dropout=0.2, attention_dropout=0.2).eval()


def make_model(num_layers: int, dim: int = 16) -> CtcModel:
    torch.manual_seed(0)
    config = ModelConfig(**SIZES, layer=LAYER, num_layers=num_layers, dim=dim, subsampling=Conv2dConfig(channels=3))
    return CtcModel(config, 20, 5).eval()


def test_layer_is_the_formula(layer: EBranchformerLayer) -> None:
    """Half a feed-forward, both branches merged, half a feed-forward, then a norm; all that is added times an odd c."""
    x, c = torch.randn(2, 9, DIM), 1.7
    with torch.inference_mode():
        expected = x + c / 2 * layer.macaron(layer.norm_macaron(x))
        far = layer.attention(layer.norm_attention(expected), None)
        near = layer.cgmlp(layer.norm_cgmlp(expected), None)
        expected = expected + c * layer.merge(far, near, None)
        expected = layer.norm_out(expected + c / 2 * layer.ffn(layer.norm_ffn(expected)))
        torch.testing.assert_close(layer(x, None, c), expected)


def test_without_its_branches_only_the_last_norm_is_left(layer: EBranchformerLayer) -> None:
    x = torch.randn(2, 9, DIM)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, None, 0.0), F.layer_norm(x, (DIM,), eps=1e-12))


def test_shrinking_scales_what_the_branches_add(layer: EBranchformerLayer) -> None:
    """Biases aside, the three branches of one of three layers have a third of the size, as c = 1 / 3 makes it."""
    with torch.no_grad():
        layer.cgmlp.open_gate()
        for branch in (layer.macaron.contract, layer.merge.project, layer.ffn.contract):
            branch.bias.zero_()
    x = torch.randn(2, 9, DIM)
    with torch.inference_mode():
        expected = layer(x, None, 1 / 3)
        layer.initialise(3)
        torch.testing.assert_close(layer(x, None, 1.0), expected, atol=1e-4, rtol=1e-4)


def test_every_parameter_learns_from_the_start() -> None:
    model = make_model(num_layers=2)
    model.encode(torch.randn(2, 120, 20), torch.tensor([120, 90])).x.square().sum().backward()
    for name, parameter in model.encoder.layers.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_dropout_is_alive_in_each_branch(layer: EBranchformerLayer) -> None:
    x = torch.randn(1, 8, DIM)
    layer.train()
    with torch.inference_mode():
        for branch in (layer.attention, layer.cgmlp):
            assert not torch.allclose(branch(x, None), branch(x, None))
        assert not torch.allclose(layer(x, None, 1.0), layer(x, None, 1.0))


@pytest.mark.parametrize(("cgmlp", "hidden"), [(None, 64), (48, 48)])
def test_gated_branch_is_four_times_as_wide_as_the_stream_unless_told(cgmlp: int | None, hidden: int) -> None:
    """As in ESPnet's recipes of width 256, and in its OWSM models."""
    config = ModelConfig(**SIZES, layer={**LAYER, "cgmlp": cgmlp}, num_layers=1, dim=16)
    weights = Encoder(config, 20).state_dict()
    assert weights["layers.0.cgmlp.expand.weight"].shape == (hidden, 16)
    assert weights["layers.0.cgmlp.contract.weight"].shape == (16, hidden // 2)
    assert weights["layers.0.cgmlp.depthwise.weight"].shape == (hidden // 2, 1, KERNEL)
    assert weights["layers.0.merge.depthwise.weight"].shape == (32, 1, MERGE_KERNEL)


def test_gate_is_open_at_the_start() -> None:
    cgmlp = make_model(num_layers=1).encoder.layers[0].cgmlp
    x = torch.randn(1, 9, 16)
    with torch.inference_mode():
        content = F.gelu(cgmlp.expand(x))[..., :32]
        torch.testing.assert_close(cgmlp(x, None), cgmlp.contract(content), atol=1e-4, rtol=0.0)
