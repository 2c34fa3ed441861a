"""The CTC model: its losses, its one head, self-conditioning, and which utterances CTC can learn from."""

import copy

import pytest
import torch
from emissions import emit
from torch import Tensor
from torch.nn import functional as F

from asrprune.config.schema import ModelConfig
from asrprune.decode.greedy import GREEDY
from asrprune.model.ctc_model import CtcModel, num_params
from asrprune.model.head import consistency_losses, ctc_losses

NUM_MELS, VOCAB = 20, 6
LAYER_TYPES = ("transformer", "conformer", "ebranchformer")
FEATURES = torch.randn(3, 50, NUM_MELS, generator=torch.Generator().manual_seed(1))
LENS = torch.tensor([50, 31, 40])
LABELS = torch.tensor([[1, 2, 2, 5], [3, 0, 0, 0], [4, 4, 0, 0]])
LABEL_LENS = torch.tensor([4, 1, 2])


def make_model(**options: object) -> CtcModel:
    torch.manual_seed(0)
    sizes = {"num_layers": 4, "dim": 16, "heads": 2, "ffn": 24, "subsampling": {"channels": 3}, "dropout": 0.0, "taps": (1, 3)}
    return CtcModel(ModelConfig.model_validate({**sizes, **options}), NUM_MELS, VOCAB).eval()


def torch_ctc(log_probs: Tensor, lens: Tensor) -> Tensor:
    return F.ctc_loss(log_probs.transpose(0, 1), LABELS, lens, LABEL_LENS, reduction="sum")


def test_losses_are_torchs_ctc_of_every_tap() -> None:
    model = make_model()
    with torch.inference_mode():
        losses = model(FEATURES, LENS, LABELS, LABEL_LENS)
        encoded = model.encode(FEATURES, LENS, taps=(1, 3))
        streams = [encoded.taps[1], encoded.taps[3], encoded.x]
        expected = [torch_ctc(model.head(stream), encoded.lens) for stream in streams]
    torch.testing.assert_close(losses, torch.stack(expected))
    assert len(set(losses.tolist())) == 3


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.66])
def test_total_is_the_papers_sum(weight: float) -> None:
    model = make_model(tap_weight=weight)
    losses = torch.tensor([3.0, 5.0, 11.0])
    assert float(model.total(losses)) == pytest.approx((1 - weight) * 11.0 + weight * (3.0 + 5.0) / 2)


def test_a_truncated_step_has_the_losses_of_the_exits_that_it_reaches() -> None:
    model = make_model()
    with torch.inference_mode():
        whole = model(FEATURES, LENS, LABELS, LABEL_LENS)
        for depth, exits in ((1, 1), (3, 2), (4, 3)):
            losses = model(FEATURES, LENS, LABELS, LABEL_LENS, keep=range(1, depth + 1), depth=depth)
            torch.testing.assert_close(losses, whole[:exits])


def test_a_truncated_step_scales_the_weights_to_a_sum_of_1() -> None:
    model = make_model(tap_weight=0.6)
    losses = torch.tensor([3.0, 5.0, 11.0])
    assert float(model.total(losses)) == pytest.approx(0.3 * 3.0 + 0.3 * 5.0 + 0.4 * 11.0)
    assert float(model.total(losses[:2])) == pytest.approx(4.0)
    assert float(model.total(losses[:1])) == pytest.approx(3.0)


def other_view() -> Tensor:
    return FEATURES + 0.5 * torch.randn(FEATURES.shape, generator=torch.Generator().manual_seed(2))


def test_two_views_have_the_mean_of_their_losses_and_the_divergence_between_them() -> None:
    """CR-CTC: (CTC(a) + CTC(b)) / 2 + weight * (KL(a || b) + KL(b || a)) / 2, over the frames of each utterance."""
    model = make_model()
    views = [FEATURES, other_view()]
    with torch.inference_mode():
        losses = model(torch.cat(views), LENS, LABELS, LABEL_LENS, consistency=0.2)
        expected = []
        for exit in (1, 3, 4):
            encoded = [model.encode(view, LENS, taps=(1, 3, 4)) for view in views]
            a, b = (model.head(e.taps[exit]) for e in encoded)
            lens = encoded[0].lens
            kl = sum(
                F.kl_div(b[i, :n], a[i, :n], log_target=True, reduction="sum")
                + F.kl_div(a[i, :n], b[i, :n], log_target=True, reduction="sum")
                for i, n in enumerate(lens.tolist())
            )
            expected.append((torch_ctc(a, lens) + torch_ctc(b, lens)) / 2 + 0.2 * kl / 2)
    torch.testing.assert_close(losses, torch.stack(expected))


def test_each_view_learns_from_the_other_which_is_a_constant() -> None:
    lens = torch.tensor([7, 4, 6])
    logits = torch.randn(6, 7, VOCAB, generator=torch.Generator().manual_seed(3), requires_grad=True)
    consistency_losses(logits.log_softmax(-1), lens).sum().backward()
    assert logits.grad is not None
    posteriors = logits.detach().softmax(-1)
    inside = (torch.arange(7) < lens.unsqueeze(1)).unsqueeze(2)
    for own, other in ((0, 1), (1, 0)):  # the gradient of KL(other || own) with respect to own logits is own - other
        own, other = slice(3 * own, 3 * own + 3), slice(3 * other, 3 * other + 3)
        torch.testing.assert_close(logits.grad[own], 0.5 * (posteriors[own] - posteriors[other]) * inside)


def test_two_equal_views_have_the_losses_of_one() -> None:
    model = make_model()
    with torch.inference_mode():
        two = model(FEATURES.repeat(2, 1, 1), LENS, LABELS, LABEL_LENS, keep=[1, 2, 3], depth=3, consistency=0.2)
        torch.testing.assert_close(two, model(FEATURES, LENS, LABELS, LABEL_LENS, keep=[1, 2, 3], depth=3))


def test_without_taps_the_total_is_the_last_layers_loss() -> None:
    model = make_model(taps=())
    with torch.inference_mode():
        losses = model(FEATURES, LENS, LABELS, LABEL_LENS)
    assert losses.shape == (1,)
    assert float(model.total(losses)) == float(losses)


def test_sub_model_is_scored_by_the_shared_head() -> None:
    """The log-probabilities of keep = 1..k are the tap's, with no parameters of their own."""
    model = make_model()
    with torch.inference_mode():
        tap = model.head(model.encode(model.normalise(FEATURES), LENS, taps=(3,)).taps[3])
        emissions = emit(model, FEATURES, LENS, keep=(1, 2, 3))
    assert torch.equal(emissions.log_probs, tap)
    torch.testing.assert_close(tap.exp().sum(-1), torch.ones(tap.shape[:2]))


def test_scales_act_in_the_loss() -> None:
    model = make_model()
    with torch.inference_mode():
        skipped = model(FEATURES, LENS, LABELS, LABEL_LENS, keep=[1, 3, 4])
        silenced = model(FEATURES, LENS, LABELS, LABEL_LENS, scales=[1.0, 0.0, 1.0, 1.0])
    assert torch.equal(skipped, silenced)


def test_cmvn_is_mean_and_scale() -> None:
    model = make_model()
    mean, scale = torch.randn(NUM_MELS), torch.rand(NUM_MELS)
    before = emit(model, (FEATURES - mean) * scale, LENS).log_probs
    model.set_cmvn(mean, scale)
    torch.testing.assert_close(model.normalise(FEATURES), (FEATURES - mean) * scale)
    torch.testing.assert_close(emit(model, FEATURES, LENS).log_probs, before)


# -- self-conditioning -----------------------------------------------------------------------------------------------


def conditioned_by_hand(model: CtcModel, keep: tuple[int, ...]) -> Tensor:
    """x_k <- x_k + Linear(softmax(CTC(LN(x_k)))) after each kept tap that another layer follows."""
    assert model.condition is not None
    x, _ = model.encoder.embed(FEATURES[:1], LENS[:1])
    for number in keep:
        x = model.encoder.layers[number - 1](x, None, 1.0)
        if number in (1, 3) and number != keep[-1]:
            x = x + model.condition(model.head.project(model.head.norm(x)).softmax(-1))
    return x


@pytest.mark.parametrize("layer", LAYER_TYPES)
@pytest.mark.parametrize("keep", [(1, 2, 3, 4), (1, 2, 4), (2, 4), (3,), (1, 3)])
def test_self_conditioning_is_the_formula_at_every_depth(keep: tuple[int, ...], layer: str) -> None:
    model = make_model(self_conditioning=True, layer=layer)
    with torch.inference_mode():
        torch.testing.assert_close(model.encode(FEATURES[:1], LENS[:1], keep).x, conditioned_by_hand(model, keep))


def test_self_conditioning_learns_and_is_off_by_default() -> None:
    assert make_model().condition is None
    model = make_model(self_conditioning=True)
    assert model.condition is not None
    model.total(model(FEATURES, LENS, LABELS, LABEL_LENS)).backward()
    assert model.condition.weight.grad is not None
    assert model.condition.weight.grad.abs().sum() > 0


def test_a_sub_model_that_ends_on_a_tap_is_what_that_tap_was_trained_as() -> None:
    model = make_model(self_conditioning=True)
    with torch.inference_mode():
        assert torch.equal(model.encode(FEATURES, LENS, keep=(1, 2, 3)).x, model.encode(FEATURES, LENS, taps=(3,)).taps[3])


def test_search_goes_on_with_self_conditioning() -> None:
    """The conditions of tap 1, below which the stream was cut, and of tap 3 are both added on the way."""
    model = make_model(self_conditioning=True)
    with torch.inference_mode():
        x, context = model.embed(FEATURES, LENS)
        for layer in range(1, 5):
            x = model.step(x, layer, context, after=layer - 1)
        torch.testing.assert_close(x, model.encode(model.normalise(FEATURES), LENS).x)


# -- what CTC can learn from -----------------------------------------------------------------------------------------


def test_infeasible_utterances_give_no_loss_and_no_gradient() -> None:
    logits = torch.randn(3, 12, VOCAB, requires_grad=True)
    lens = torch.tensor([12, 0, 2])  # needed: 5, 1, 3
    losses = ctc_losses(logits.log_softmax(-1), lens, LABELS, LABEL_LENS)
    losses.sum().backward()
    assert losses[0] > 0
    assert losses[1:].tolist() == [0.0, 0.0]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1:].abs().sum() == 0.0


def test_stacked_sets_share_the_labels() -> None:
    log_probs = torch.randn(6, 12, VOCAB).log_softmax(-1)
    lens = torch.tensor([12, 9, 11])
    together = ctc_losses(log_probs, lens, LABELS, LABEL_LENS)
    apart = [ctc_losses(part, lens, LABELS, LABEL_LENS) for part in log_probs.chunk(2)]
    torch.testing.assert_close(together, torch.cat(apart))


# -- utterances that are too short -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYER_TYPES)
@pytest.mark.parametrize("conditioned", [False, True])
def test_gradients_are_finite_with_too_short_utterances_in_the_batch(conditioned: bool, layer: str) -> None:
    model = make_model(self_conditioning=conditioned, layer=layer).train()
    losses = model(FEATURES, torch.tensor([50, 0, 6]), LABELS, LABEL_LENS)
    model.total(losses).backward()
    assert losses.isfinite().all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("frames", range(7))
def test_too_short_utterances_decode_to_nothing(frames: int) -> None:
    with torch.inference_mode():
        emissions = emit(make_model(), FEATURES[:, :frames], torch.tensor([frames, 0, 0]))
    assert [path.labels for path in GREEDY.decode(emissions.log_probs, emissions.lens)] == [[], [], []]


# -- stochastic depth and sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYER_TYPES)
def test_parameters_of_a_sub_model_are_those_of_its_layers(layer: str) -> None:
    model = make_model(layer=layer)
    small = copy.deepcopy(model)
    small.encoder.layers = torch.nn.ModuleList([model.encoder.layers[0], model.encoder.layers[3]])
    assert num_params(model, (1, 4)) == num_params(small)
    assert num_params(model, (1, 2, 3, 4)) == num_params(model) > num_params(small)
