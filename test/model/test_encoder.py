"""The one loop over the layers: kept layers, taps, padding, utterances that are too short."""

import copy

import pytest
import torch
from torch import Tensor

from asrprune.config.schema import ModelConfig
from asrprune.model.ctc_model import CtcModel
from asrprune.model.encoder import Encoded, Encoder
from asrprune.model.transformer import sinusoids
from asrprune.runtime.errors import UserError

NUM_MELS, LAYERS = 20, 5


def make_encoder(layer: str = "transformer", position_scale: float = 1.0) -> Encoder:
    torch.manual_seed(0)
    sizes = {"num_layers": LAYERS, "dim": 16, "heads": 2, "ffn": 24, "subsampling": {"channels": 3}}
    options = {"type": layer, **({"position_scale": position_scale} if layer == "transformer" else {"kernel": 5})}
    config = ModelConfig.model_validate({**sizes, "layer": options, "dropout": 0.3, "attention_dropout": 0.3})
    return Encoder(config, NUM_MELS).eval()


@pytest.fixture(scope="module", params=["transformer", "conformer", "ebranchformer"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return make_encoder(request.param)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 60, NUM_MELS, generator=torch.Generator().manual_seed(1)), torch.tensor([60, 33, 7, 48])


@pytest.fixture(scope="module")
def full(encoder: Encoder, batch: tuple[Tensor, Tensor]) -> Encoded:
    with torch.inference_mode():
        return encoder(*batch, taps=range(LAYERS + 1))


def test_an_utterance_in_a_batch_is_the_utterance_alone(encoder: Encoder, batch: tuple[Tensor, Tensor], full: Encoded) -> None:
    features, lens = batch
    for row, length in enumerate(lens.tolist()):
        with torch.inference_mode():
            alone = encoder(features[row : row + 1, :length], lens[row : row + 1], taps=range(LAYERS + 1))
        frames = int(full.lens[row])
        assert alone.lens.tolist() == [frames] == [alone.x.shape[1]]
        torch.testing.assert_close(full.x[row, :frames], alone.x[0], atol=1e-5, rtol=1e-5)
        for tap in range(LAYERS + 1):
            torch.testing.assert_close(full.taps[tap][row, :frames], alone.taps[tap][0], atol=1e-5, rtol=1e-5)


def test_keeping_none_means_all(encoder: Encoder, batch: tuple[Tensor, Tensor], full: Encoded) -> None:
    with torch.inference_mode():
        assert torch.equal(encoder(*batch, keep=range(1, LAYERS + 1)).x, full.x)
        assert torch.equal(encoder(*batch, keep=[]).x, full.taps[0])


@pytest.mark.parametrize("keep", [[1], [5], [2, 4], [1, 3, 5], [2, 3, 4, 5]])
def test_kept_layers_are_the_model_of_those_layers(encoder: Encoder, batch: tuple[Tensor, Tensor], keep: list[int]) -> None:
    small = copy.deepcopy(encoder)
    small.layers = torch.nn.ModuleList(encoder.layers[layer - 1] for layer in keep)
    with torch.inference_mode():
        assert torch.equal(encoder(*batch, keep=keep).x, small(*batch).x)


def test_tap_of_a_skipped_layer_is_the_stream_that_passes_it(
    encoder: Encoder, batch: tuple[Tensor, Tensor], full: Encoded
) -> None:
    with torch.inference_mode():
        taps = encoder(*batch, keep=[2, 4], taps=range(LAYERS + 1)).taps
    assert torch.equal(taps[0], full.taps[0])
    assert torch.equal(taps[1], taps[0])
    assert torch.equal(taps[3], taps[2])
    assert torch.equal(taps[5], taps[4])
    assert not torch.allclose(taps[2], taps[1])


def test_taps_are_those_asked_for_and_change_nothing(encoder: Encoder, batch: tuple[Tensor, Tensor], full: Encoded) -> None:
    with torch.inference_mode():
        some = encoder(*batch, taps=(2, 5))
    assert set(some.taps) == {2, 5}
    assert torch.equal(some.taps[5], some.x)
    assert torch.equal(some.taps[2], full.taps[2])
    assert torch.equal(some.x, full.x)


def test_tap_0_is_the_front_end(encoder: Encoder, batch: tuple[Tensor, Tensor], full: Encoded) -> None:
    with torch.inference_mode():
        x, lens = encoder.embed(*batch)
    assert torch.equal(full.taps[0], x)
    assert torch.equal(full.lens, lens)


@pytest.mark.parametrize("encoder", ["transformer"], indirect=True)
def test_position_scale_is_the_factor_of_the_sinusoids(encoder: Encoder, batch: tuple[Tensor, Tensor], full: Encoded) -> None:
    louder = make_encoder(position_scale=4.0)
    louder.load_state_dict(encoder.state_dict())
    with torch.inference_mode():
        added = louder.embed(*batch)[0] - full.taps[0]
    positions = sinusoids(torch.arange(float(added.shape[1])), encoder.dim)
    torch.testing.assert_close(added, (3.0 * positions).expand_as(added), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("encoder", ["conformer", "ebranchformer"], indirect=True)
def test_layers_with_relative_positions_get_no_sinusoids(encoder: Encoder, batch: tuple[Tensor, Tensor], full: Encoded) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(full.taps[0], encoder.subsampling(batch[0]))


def test_a_layer_in_bfloat16_is_close_to_float32(encoder: Encoder) -> None:
    layer, x = encoder.layers[0], torch.randn(2, 20, encoder.dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = layer(x, None, 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            rough = layer(x, None, 1.0)
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0.1)
    assert not torch.equal(rough.float(), exact)


@pytest.mark.parametrize("layer", ["conformer", "ebranchformer"])
@pytest.mark.parametrize("num_layers", [4, 12, 24])
def test_a_deep_stack_starts_near_the_identity(layer: str, num_layers: int) -> None:
    """So that no depth spoils what a shallower one has learnt; 12 Conformer layers of full size leave a cosine of 0.22."""
    torch.manual_seed(0)
    sizes = {"num_layers": num_layers, "dim": 32, "heads": 2, "ffn": 64, "subsampling": {"channels": 3}}
    config = ModelConfig.model_validate({**sizes, "layer": {"type": layer, "kernel": 5}})
    model = CtcModel(config, NUM_MELS, 5).eval()
    with torch.inference_mode():
        encoded = model.encode(torch.randn(2, 120, NUM_MELS), torch.tensor([120, 120]), taps=(0,))
        alike = torch.cosine_similarity(encoded.x, encoded.taps[0], dim=-1).mean()
    assert alike > 0.6


def test_loop_goes_on_from_any_layer(encoder: Encoder, full: Encoded) -> None:
    """The search computes the layers below its candidate once."""
    with torch.inference_mode():
        for below in range(LAYERS):
            x = full.taps[below]
            for layer in range(below + 1, LAYERS + 1):
                x = encoder.step(x, layer, encoder.context(full.lens, x.shape[1]), after=layer - 1)
            assert torch.equal(x, full.x)


@pytest.mark.parametrize("keep", [[0, 1], [1, 6], [2, 1], [3, 3]])
def test_bad_layers_are_named(encoder: Encoder, keep: list[int]) -> None:
    with pytest.raises(UserError, match=r"must ascend and lie in 1\.\.5, got"):
        encoder.check_keep(keep)


def test_scales_belong_to_their_layers(encoder: Encoder, batch: tuple[Tensor, Tensor]) -> None:
    """A branch scaled by 0 adds nothing: that layer, and no other, is gone (up to the norm that some layer types end in)."""
    with torch.inference_mode():
        silenced = encoder(*batch, scales=[1.0, 1.0, 0.0, 1.0, 1.0]).x
        torch.testing.assert_close(silenced, encoder(*batch, keep=[1, 2, 4, 5]).x)


def one_more(x: Tensor, after: int) -> Tensor:
    """Add 1 after layers 2, 3 and 5."""
    return x + 1.0 if after in (2, 3, 5) else x


def test_the_stream_changes_between_kept_layers_only(encoder: Encoder, full: Encoded) -> None:
    x, context = full.taps[0], encoder.context(full.lens, full.x.shape[1])
    with torch.inference_mode():
        conditioned = encoder.run(x, context, [1, 3, 5], taps=(1, 3, 5), between=one_more)
        plain = encoder.run(x, context, [1, 3], taps=(1, 3))
        above = encoder.run(plain.x + 1.0, context, [5])
        assert torch.equal(encoder.step(plain.x, 5, context, after=3, between=one_more), above.x)
    assert torch.equal(conditioned.taps[3], plain.x)  # 2 is not kept, and a tap sees the stream before the change
    assert torch.equal(conditioned.x, above.x)  # no layer follows 5


def test_evaluation_is_not_random(encoder: Encoder, batch: tuple[Tensor, Tensor], full: Encoded) -> None:
    with torch.inference_mode():
        assert torch.equal(encoder(*batch).x, full.x)
        noisy = copy.deepcopy(encoder).train()
        assert not torch.allclose(noisy(*batch).x, noisy(*batch).x)


@pytest.mark.parametrize("frames", range(7))
def test_too_short_utterances_have_no_frames(encoder: Encoder, frames: int) -> None:
    with torch.inference_mode():
        encoded = encoder(torch.randn(2, frames, NUM_MELS), torch.tensor([frames, 0]))
    assert encoded.lens.tolist() == [0, 0]
    assert encoded.x.isfinite().all()


def test_too_short_utterances_do_not_disturb_a_mixed_batch(encoder: Encoder, batch: tuple[Tensor, Tensor]) -> None:
    features, _ = batch
    with torch.inference_mode():
        mixed = encoder(features, torch.tensor([0, 33, 6, 48]))
        alone = encoder(features[1:2, :33], torch.tensor([33]))
    assert mixed.x.isfinite().all()
    torch.testing.assert_close(mixed.x[1, : int(alone.lens[0])], alone.x[0], atol=1e-5, rtol=1e-5)
