"""The Transformer layer: its formula, its mask, its two ways to attend. test_espnet_parity.py tests padding and positions."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from asrprune.model.masks import padding_mask
from asrprune.model.transformer import TransformerLayer, _attention

DIM, HEADS = 12, 3


@pytest.fixture
def layer() -> TransformerLayer:
    torch.manual_seed(0)
    return TransformerLayer(DIM, HEADS, 20, dropout=0.2, attention_dropout=0.2)


def attend_by_hand(layer: TransformerLayer, x: Tensor) -> Tensor:
    """Multi-head attention of one utterance, (T', D), head by head ("Attention is all you need", equation 1)."""
    query, key, value = layer.qkv(x).chunk(3, dim=-1)
    heads = []
    for head in range(HEADS):
        columns = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
        weights = (query[:, columns] @ key[:, columns].T / math.sqrt(DIM / HEADS)).softmax(-1)
        heads.append(weights @ value[:, columns])
    return layer.project(torch.cat(heads, dim=-1))


def test_layer_is_the_formula(layer: TransformerLayer) -> None:
    """x + c * MHSA(LN(x)), then x + c * FFN(LN(x)), with an odd c."""
    layer.eval()
    x = torch.randn(7, DIM)
    with torch.inference_mode():
        middle = x + 1.7 * attend_by_hand(layer, layer.norm_attention(x))
        expected = middle + 1.7 * layer.contract(F.relu(layer.expand(layer.norm_ffn(middle))))
        torch.testing.assert_close(layer(x[None], None, 1.7)[0], expected)


def test_no_frame_is_masked_without_padding() -> None:
    assert padding_mask(torch.tensor([5, 5]), 5) is None
    mask = padding_mask(torch.tensor([5, 2, 0]), 5)
    assert mask is not None
    assert mask.shape == (3, 1, 1, 5)
    assert mask[:2, 0, 0].tolist() == [[True] * 5, [True, True, False, False, False]]
    assert mask[2].all()  # nobody reads this utterance, and a softmax over nothing would be NaN


@pytest.mark.parametrize("lens", [None, [11, 4, 0]])
def test_written_out_attention_is_torchs(lens: list[int] | None) -> None:
    query, key, value = torch.randn(3, 3, HEADS, 11, 8, generator=torch.Generator().manual_seed(0))
    mask = None if lens is None else padding_mask(torch.tensor(lens), 11)
    torch.testing.assert_close(
        _attention(query, key, value, mask, 0.0), F.scaled_dot_product_attention(query, key, value, mask)
    )


def test_bfloat16_training_computes_what_float32_computes(layer: TransformerLayer) -> None:
    """On the CPU, bfloat16 with gradients takes the written-out attention: outputs and gradients, to bfloat16's 3 digits."""
    layer.dropout = layer.attention_dropout = 0.0
    x = torch.randn(3, 11, DIM)
    mask = padding_mask(torch.tensor([11, 6, 2]), 11)
    outputs, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = layer._attend(x, mask)
        assert y.dtype == dtype
        y.float()[mask[:, 0, 0]].square().sum().backward()
        outputs.append(y.detach().float())
        gradients.append(layer.qkv.weight.grad.clone())
    for ours, expected in zip((outputs[1], gradients[1]), (outputs[0], gradients[0]), strict=True):
        assert float((ours - expected).norm() / expected.norm()) < 0.02


def test_attention_dropout_is_alive_on_both_paths(layer: TransformerLayer) -> None:
    layer.dropout = 0.0
    x = torch.randn(2, 5, DIM)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            layer.train()
            dropped = layer._attend(x, None)
            layer.eval()
            assert not torch.allclose(dropped, layer._attend(x, None), rtol=0.05)
