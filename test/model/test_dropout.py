"""The dropout that draws its mask from random bytes does what dropout does."""

import pytest
import torch
from torch import Tensor

from asrprune.model.dropout import dropout


@pytest.fixture
def x() -> Tensor:
    return torch.rand(64, 1001, generator=torch.Generator().manual_seed(0)) + 0.5


def test_share_of_zeros_is_the_rate_rounded_to_a_256th(x: Tensor) -> None:
    torch.manual_seed(0)
    for rate in (0.1, 0.5, 0.9):
        zeros = float((dropout(x, rate, True) == 0).double().mean())
        expected = round(rate * 256) / 256
        assert zeros == pytest.approx(expected, abs=4 * (expected * (1 - expected) / x.numel()) ** 0.5)


@pytest.mark.parametrize(("rate", "share_kept"), [(0.25, 192 / 256), (0.1, 230 / 256), (0.999, 1 / 256)])
def test_what_is_kept_is_scaled_by_the_inverse_of_the_share_kept(x: Tensor, rate: float, share_kept: float) -> None:
    torch.manual_seed(0)
    y = dropout(x, rate, True, scale=1.5)
    torch.testing.assert_close(y[y != 0], x[y != 0] * 1.5 / share_kept)


def test_all_byte_values_come_equally_often(x: Tensor) -> None:
    """A rate of 1/256 drops byte 0, one of 255/256 keeps byte 255."""
    torch.manual_seed(0)
    lowest, highest = dropout(x, 1 / 256, True), dropout(x, 255 / 256, True)
    expected, deviation = x.numel() / 256, (x.numel() / 256) ** 0.5
    assert int((lowest == 0).sum()) == pytest.approx(expected, abs=4 * deviation)
    assert int((highest != 0).sum()) == pytest.approx(expected, abs=4 * deviation)


def test_elements_are_dropped_independently(x: Tensor) -> None:
    """Eight elements share one draw of 64 bits; none of the eight bytes may follow from another."""
    torch.manual_seed(0)
    kept = (dropout(x, 0.5, True) != 0).double().view(-1, 8)
    correlation = torch.corrcoef(kept.T) - torch.eye(8, dtype=torch.double)
    assert float(correlation.abs().max()) < 4.5 * len(kept) ** -0.5


def test_gradient_has_the_mask_and_scale_of_the_output(x: Tensor) -> None:
    torch.manual_seed(0)
    x = x.clone().requires_grad_()
    y = dropout(x, 0.4, True, scale=2.0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())


def test_evaluation_is_the_identity(x: Tensor) -> None:
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x
    assert torch.equal(dropout(x, 0.5, False, scale=2.0), 2.0 * x)


def test_same_seed_same_mask(x: Tensor) -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(x, 0.5, True) == 0)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (5, 7, 3)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert dropout(torch.ones(shape), 0.5, True).shape == shape


def test_type_is_kept() -> None:
    assert dropout(torch.ones(8, dtype=torch.bfloat16), 0.5, True).dtype == torch.bfloat16
