"""The front ends: lengths, utterances in a batch, layouts of memory, and the size of what they give to the layers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asrprune.config.lengths import min_frames, output_length
from asrprune.config.schema import Conv1dConfig, Conv2dConfig, ModelConfig
from asrprune.model.ctc_model import CtcModel
from asrprune.model.encoder import Encoder
from asrprune.model.subsampling import Conv1dSubsampling, Conv2dSubsampling, make_subsampling

NUM_MELS, DIM = 20, 12
FACTORS = (4, 8)
FRONT_ENDS = [kind(channels=3, factor=factor) for kind in (Conv2dConfig, Conv1dConfig) for factor in FACTORS]
of_each_kind = pytest.mark.parametrize("options", FRONT_ENDS, ids=lambda options: f"{options.type}-{options.factor}")
LAYERS = ["transformer", {"type": "conformer", "norm": "layer", "kernel": 5}, {"type": "ebranchformer", "kernel": 5}]


def make(options: Conv2dConfig | Conv1dConfig, dim: int = DIM) -> nn.Module:
    torch.manual_seed(0)
    return make_subsampling(ModelConfig(dim=dim, heads=2, subsampling=options), NUM_MELS).eval()


@of_each_kind
def test_lengths_are_what_the_convolutions_give(options: Conv2dConfig | Conv1dConfig) -> None:
    subsampling = make(options)
    for frames in range(1, 201):
        expected = output_length(frames, options.factor)
        assert (expected == 0) == (frames < min_frames(options.factor))
        if expected == 0 and options.type == "conv2d":
            with pytest.raises(RuntimeError, match="Kernel size"):
                subsampling(torch.zeros(1, frames, NUM_MELS))
        else:
            with torch.inference_mode():
                assert subsampling(torch.zeros(1, frames, NUM_MELS)).shape == (1, expected, DIM)


@pytest.mark.parametrize("factor", FACTORS)
def test_lengths_of_numbers_arrays_and_tensors_are_the_same(factor: int) -> None:
    frames = range(201)
    expected = [output_length(count, factor) for count in frames]
    assert expected[min_frames(factor) - 1 : min_frames(factor) + 1] == [0, 1]
    assert min(expected) == 0
    assert output_length(np.array(frames), factor).tolist() == expected
    lens = output_length(torch.tensor(frames), factor)
    assert lens.tolist() == expected
    assert lens.dtype == torch.int64


@of_each_kind
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_an_utterance_in_a_batch_is_the_utterance_alone(options: Conv2dConfig | Conv1dConfig, layer: object) -> None:
    torch.manual_seed(0)
    sizes = {"layer": layer, "num_layers": 2, "dim": DIM, "heads": 2, "ffn": 24}
    encoder = Encoder(ModelConfig(**sizes, subsampling=options), NUM_MELS).eval()
    features, lens = torch.randn(5, 80, NUM_MELS), torch.tensor([80, 41, 15, 14, 6])
    with torch.inference_mode():
        batch = encoder(features, lens)
        for row, length in enumerate(lens.tolist()):
            alone = encoder(features[row : row + 1, :length], lens[row : row + 1])
            frames = int(batch.lens[row])
            assert alone.lens.tolist() == [frames] == [output_length(length, options.factor)]
            torch.testing.assert_close(batch.x[row, :frames], alone.x[0, :frames], atol=1e-5, rtol=1e-5)
    assert batch.x.isfinite().all()


@pytest.mark.parametrize("factor", FACTORS)
def test_conv2d_is_the_formula(factor: int) -> None:
    """ESPnet's Conv2dSubsampling and Conv2dSubsampling8: convolutions and ReLU, a linear layer, sqrt(D)."""
    subsampling = make(Conv2dConfig(channels=3, factor=factor))
    assert isinstance(subsampling, Conv2dSubsampling)
    names = ["conv1", "conv2", "conv3"][: {4: 2, 8: 3}[factor]]
    assert sorted(subsampling.state_dict()) == [f"{name}.{end}" for name in (*names, "linear") for end in ("bias", "weight")]
    x = torch.randn(2, 33, NUM_MELS)
    expected = x[:, None]
    for name in names:
        conv = getattr(subsampling, name)
        expected = F.relu(F.conv2d(expected, conv.weight, conv.bias, stride=2))
    batch, channels, frames, bins = expected.shape
    expected = expected.permute(0, 2, 1, 3).reshape(batch, frames, channels * bins)
    expected = F.linear(expected, subsampling.linear.weight, subsampling.linear.bias) * DIM**0.5
    torch.testing.assert_close(subsampling(x), expected)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("frames", [15, 16, 17, 100])
def test_conv1d_is_the_formula(factor: int, frames: int) -> None:
    """Frame t of a convolution is a linear layer of the frames 2t, 2t + 1 and 2t + 2."""
    subsampling = make(Conv1dConfig(channels=5, factor=factor))
    assert isinstance(subsampling, Conv1dSubsampling)
    expected = x = torch.randn(frames, NUM_MELS)
    for name in ["conv1", "conv2", "conv3"][: {4: 2, 8: 3}[factor]]:
        conv = getattr(subsampling, name)
        weight = conv.weight.transpose(1, 2).flatten(1)  # (C, 3 F), the frames one after the other
        windows = [expected[start : start + 3].flatten() for start in range(0, len(expected) - 2, 2)]
        expected = F.relu(F.linear(torch.stack(windows), weight, conv.bias))
    expected = F.linear(expected, subsampling.linear.weight, subsampling.linear.bias)
    expected = (expected - expected.mean(1, keepdim=True)) / expected.var(1, unbiased=False, keepdim=True).sqrt()
    torch.testing.assert_close(subsampling(x[None])[0], expected, atol=1e-4, rtol=1e-4)


@of_each_kind
def test_channels_are_those_asked_for_or_the_width(options: Conv2dConfig | Conv1dConfig) -> None:
    assert make(options).conv1.out_channels == 3
    assert make(type(options)(factor=options.factor)).conv1.out_channels == DIM


def test_conv2d_is_the_same_in_either_layout_of_memory() -> None:
    """Channels come first in float32 training on a CPU, last otherwise."""
    torch.manual_seed(0)
    subsampling, x = Conv2dSubsampling(20, 8, 4, 4), torch.randn(2, 30, 20)
    trained = subsampling(x)
    with torch.inference_mode():
        assert subsampling.conv1(subsampling._layout(x)).is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(subsampling(x), trained, atol=1e-6, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(subsampling(x).float(), trained, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("channels", "factor"), [(16, 4), (64, 4), (16, 8), (64, 8)])
def test_conv1d_starts_as_large_as_positions(channels: int, factor: int) -> None:
    """The sinusoids have a size of 0.7; a stream of 5 drowns them, and one of 0.1 is drowned."""
    torch.manual_seed(0)
    options = Conv1dConfig(channels=channels, factor=factor)
    model = CtcModel(ModelConfig(num_layers=1, dim=64, heads=2, ffn=8, subsampling=options), 80, 5)
    with torch.inference_mode():
        assert float(model.encoder.subsampling(torch.randn(2, 100, 80)).std()) == pytest.approx(1.0, abs=0.02)


@of_each_kind
def test_every_weight_learns(options: Conv2dConfig | Conv1dConfig) -> None:
    torch.manual_seed(0)
    model = CtcModel(ModelConfig(num_layers=2, dim=DIM, heads=2, ffn=8, subsampling=options), NUM_MELS, 5)
    labels = torch.tensor([[1, 2], [3, 4]])
    model(torch.randn(2, 60, NUM_MELS), torch.tensor([60, 50]), labels, torch.tensor([2, 2])).sum().backward()
    assert all(bool(weight.grad.any()) for weight in model.encoder.subsampling.parameters())
