"""The Conformer layer: scales and start. test_espnet_parity.py has its formula, test_encoder.py what all layer types share."""

import pytest
import torch

from asrprune.model.conformer import ConformerLayer
from asrprune.model.relative_attention import RelativeAttention, _shift, distances

DIM, HEADS, KERNEL = 12, 3, 5


@pytest.fixture(params=["batch", "layer"])
def layer(request: pytest.FixtureRequest) -> ConformerLayer:
    torch.manual_seed(0)
    return ConformerLayer(DIM, HEADS, 20, KERNEL, request.param, dropout=0.2, attention_dropout=0.2).eval()


def test_layer_is_the_formula(layer: ConformerLayer) -> None:
    """Half a feed-forward, attention, convolution, half a feed-forward, then a norm; every branch times an odd c."""
    x, c = torch.randn(2, 9, DIM), 1.7
    with torch.inference_mode():
        expected = x + c / 2 * layer.macaron(layer.norm_macaron(x))
        expected = expected + c * layer.attention(layer.norm_attention(expected), None)
        expected = expected + c * layer.conv(layer.norm_conv(expected), None)
        expected = layer.norm_out(expected + c / 2 * layer.ffn(layer.norm_ffn(expected)))
        torch.testing.assert_close(layer(x, None, c), expected)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shift_takes_column_t_minus_1_minus_i_plus_j(frames: int) -> None:
    scores = torch.randn(2, 3, frames, 2 * frames)
    shifted = _shift(scores)
    assert shifted.data_ptr() == scores[0, 0, 0, frames - 1 :].data_ptr(), "not copied"
    assert shifted.shape == (2, 3, frames, frames)
    for i in range(frames):
        for j in range(frames):
            assert torch.equal(shifted[:, :, i, j], scores[:, :, i, frames - 1 - i + j])


def test_a_table_made_in_decoding_serves_training(layer: ConformerLayer) -> None:
    distances.cache_clear()
    x = torch.randn(1, 6, DIM)
    with torch.inference_mode():
        layer(x, None, 1.0)
    layer(x, None, 1.0).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert distances.cache_info().hits >= 1


def test_attention_dropout_is_alive_in_training(layer: ConformerLayer) -> None:
    attention: RelativeAttention = layer.attention.train()
    x = torch.randn(1, 8, DIM)
    with torch.inference_mode():
        assert not torch.allclose(attention(x, None), attention(x, None))
