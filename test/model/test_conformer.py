"""The Conformer layer: its formula, relative positions and padding; test_espnet_parity.py has ESPnet's numbers."""

import pytest
import torch
from torch import Tensor

from asrprune.config.schema import Conv2dConfig, ModelConfig
from asrprune.model.conformer import ConformerLayer, RelativeAttention, _shift, distances
from asrprune.model.ctc_model import CtcModel
from asrprune.model.encoder import Encoder, padding_mask
from asrprune.model.transformer import sinusoids

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


def test_attention_is_transformer_xls(layer: ConformerLayer) -> None:
    """Every score by hand: (q_i + u) k_j + (q_i + v) W r_{i-j}."""
    attention = layer.attention
    with torch.no_grad():
        attention.content_bias.normal_()
        attention.position_bias.normal_()
    x, size = torch.randn(7, DIM), DIM // HEADS
    with torch.inference_mode():
        query, key, value = attention.qkv(x).chunk(3, dim=-1)
        heads = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = torch.empty(7, 7)
            for i in range(7):
                for j in range(7):
                    r = attention.position(sinusoids(torch.tensor([float(i - j)]), DIM))[0, part]
                    by_content = (query[i, part] + attention.content_bias[part]) @ key[j, part]
                    scores[i, j] = by_content + (query[i, part] + attention.position_bias[part]) @ r
            heads.append((scores / size**0.5).softmax(-1) @ value[:, part])
        expected = attention.project(torch.cat(heads, dim=-1))
        torch.testing.assert_close(attention(x.unsqueeze(0), None)[0], expected)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shift_takes_column_t_minus_1_minus_i_plus_j(frames: int) -> None:
    scores = torch.randn(2, 3, frames, 2 * frames - 1)
    shifted = _shift(scores)
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


def test_noise_in_the_padding_changes_nothing(layer: ConformerLayer) -> None:
    lens = torch.tensor([9, 4])
    x = torch.randn(2, 9, DIM)
    with torch.inference_mode():
        batch = layer(x, padding_mask(lens, 9), 1.0)
        torch.testing.assert_close(batch[1, :4], layer(x[1:, :4], None, 1.0)[0])
        torch.testing.assert_close(batch[0], layer(x[:1], None, 1.0)[0])


def test_attention_dropout_is_alive_in_training(layer: ConformerLayer) -> None:
    attention: RelativeAttention = layer.attention.train()
    x = torch.randn(1, 8, DIM)
    with torch.inference_mode():
        assert not torch.allclose(attention(x, None), attention(x, None))


def test_bfloat16_is_close_to_float32(layer: ConformerLayer) -> None:
    x = torch.randn(2, 20, DIM)
    with torch.inference_mode():
        exact = layer(x, None, 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            rough = layer(x, None, 1.0)
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0.1)
    assert not torch.equal(rough.float(), exact)


def test_encoder_runs_kept_conformer_layers_without_absolute_positions() -> None:
    torch.manual_seed(0)
    sizes = {"layer": {"type": "conformer", "kernel": KERNEL}, "num_layers": 4, "dim": 16, "heads": 2, "ffn": 24}
    config = ModelConfig(**sizes, subsampling=Conv2dConfig(channels=3))
    encoder = Encoder(config, 20).eval()
    features, lens = torch.randn(3, 60, 20), torch.tensor([60, 33, 7])
    with torch.inference_mode():
        front: Tensor = encoder.embed(features, lens)[0]
        torch.testing.assert_close(front, encoder.subsampling(features))
        kept = encoder(features, lens, keep=[1, 3])
        step_by_step = front
        for number in (1, 3):
            step_by_step = encoder.layers[number - 1](step_by_step, padding_mask(kept.lens, front.shape[1]), 1.0)
        assert torch.equal(kept.x, step_by_step)


@pytest.mark.parametrize("num_layers", [4, 12, 24])
def test_a_deep_stack_starts_near_the_identity(num_layers: int) -> None:
    """So that no depth spoils what a shallower one has learnt; with branches of full size 12 of them leave a cosine of 0.22."""
    torch.manual_seed(0)
    sizes = {"layer": {"type": "conformer", "kernel": KERNEL}, "num_layers": num_layers, "dim": 32, "heads": 2, "ffn": 64}
    config = ModelConfig(**sizes, subsampling=Conv2dConfig(channels=3))
    model = CtcModel(config, 20, 5).eval()
    with torch.inference_mode():
        encoded = model.encode(torch.randn(2, 120, 20), torch.tensor([120, 120]), taps=(0,))
        alike = torch.cosine_similarity(encoded.x, encoded.taps[0], dim=-1).mean()
    assert alike > 0.6
