"""SVCCA, PWCCA and CKA against scipy and against their definitions; the known traps: self, rotation, scale, constant, rank."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import ortho_group

from asrprune.analysis.svcca import Subspace, canonical_correlations, linear_cka, pwcca, similarity_matrix, subspace, svcca
from asrprune.runtime.errors import UserError

FRAMES, DIM = 600, 12


def layer(seed: int, dim: int = DIM, frames: int = FRAMES) -> np.ndarray:
    """(frames, dim) float32 random activations of unequal variance, off centre."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(frames, dim)) * np.geomspace(10, 0.5, dim) + rng.normal(size=dim) * 5).astype(np.float32)


def stream(num_layers: int = 6, dim: int = DIM, frames: int = FRAMES) -> list[np.ndarray]:
    """x_0..x_L as a residual stream has them: every layer adds something smaller than what is there, smooth in time."""
    rng = np.random.default_rng(0)
    smooth = np.exp(-((np.arange(-10, 11) / 4.0) ** 2))
    x = np.apply_along_axis(np.convolve, 0, rng.normal(size=(frames, dim)), smooth, "same") * np.geomspace(8, 0.3, dim)
    xs = [x]
    for _ in range(num_layers):
        x = x + np.maximum(x @ rng.normal(size=(dim, dim)) * 0.2, 0) @ rng.normal(size=(dim, dim)) * 0.2
        xs.append(x)
    return [x.astype(np.float32) for x in xs]


def by_hand(x: np.ndarray, share: float) -> np.ndarray:
    """(N, k) scores of the fewest principal directions with at least ``share`` of the variance; straight from numpy's SVD."""
    centred = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    count = next(k for k in range(1, len(s) + 1) if (s[:k] ** 2).sum() >= share * (s**2).sum() * (1 - 1e-12))
    return u[:, :count] * s[:count]


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    xs = stream()
    mixed = layer(1) @ np.random.default_rng(9).normal(size=(DIM, 7)).astype(np.float32) + layer(2, 7)
    return [(layer(1), layer(2)), (layer(1), mixed), (xs[0], xs[1]), (xs[0], xs[6]), (xs[4], xs[5])]


# ---- the oracle


@pytest.mark.parametrize("share", [0.9, 0.99, 1.0])
def test_correlations_are_cosines_of_scipys_subspace_angles(share: float) -> None:
    for x, y in pairs():
        reduced = by_hand(x, share), by_hand(y, share)
        expected = np.sort(np.cos(subspace_angles(*reduced)))[::-1]
        found = canonical_correlations(subspace(x, share), subspace(y, share))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert len(found) == min(reduced[0].shape[1], reduced[1].shape[1])
        assert svcca(subspace(x, share), subspace(y, share)) == pytest.approx(expected.mean(), abs=1e-6)


def test_99_percent_are_of_the_variance_not_of_the_singular_values() -> None:
    """Variances 90, 9.5, 0.45, 0.05 of 100: two directions hold 99.5 %; of the singular values they would hold 93 %."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(500, 4))
    white = np.linalg.qr(noise - noise.mean(axis=0))[0]
    x = white * np.sqrt([90.0, 9.5, 0.45, 0.05])
    assert [subspace(x, share).basis.shape[1] for share in (0.5, 0.9, 0.901, 0.99, 0.995, 0.996, 0.9996, 1.0)] == [
        1, 1, 2, 2, 2, 3, 4, 4
    ]  # fmt: skip


def test_basis_is_orthonormal_and_centred() -> None:
    space = subspace(layer(3))
    np.testing.assert_allclose(space.basis.T @ space.basis, np.eye(space.basis.shape[1]), atol=1e-12)
    np.testing.assert_allclose(space.basis.sum(axis=0), 0.0, atol=1e-10)
    assert space.basis.dtype == space.centred.dtype == np.float64


def test_pwcca_against_its_definition() -> None:
    """Weights: sum over x's units z_j of |<h_i, z_j>|, h_i the i-th canonical direction in x's space."""
    for x, y in pairs():
        a, b = by_hand(x, 0.99), by_hand(y, 0.99)
        whiten = [np.linalg.inv(np.linalg.cholesky(z.T @ z)).T for z in (a, b)]
        u, rho, _ = np.linalg.svd(whiten[0].T @ a.T @ b @ whiten[1], full_matrices=False)
        directions = a @ whiten[0] @ u  # (N, k), unit columns
        units = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
        weights = np.array([sum(abs(h @ z) for z in units.T) for h in directions.T])
        assert pwcca(subspace(x), subspace(y)) == pytest.approx((weights * rho).sum() / weights.sum(), abs=1e-9)


def test_cka_against_its_definition() -> None:
    """HSIC of the linear kernels' centred Gram matrices: the long way round."""
    for x, y in pairs():
        centre = np.eye(FRAMES) - 1.0 / FRAMES
        k, m = (centre @ (z.astype(np.float64) @ z.astype(np.float64).T) @ centre for z in (x, y))
        expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
        assert linear_cka(subspace(x), subspace(y)) == pytest.approx(expected, abs=1e-9)


# ---- what must hold


MEASURES = pytest.mark.parametrize("measure", [svcca, pwcca, linear_cka])


@MEASURES
def test_a_layer_is_like_itself(measure) -> None:
    for x in (layer(1), stream()[3], layer(1, 1)):
        assert measure(subspace(x), subspace(x)) == pytest.approx(1.0, abs=1e-12)


@MEASURES
def test_rotation_and_scale_change_nothing(measure) -> None:
    x, y = stream()[0], stream()[5]
    before = measure(subspace(x), subspace(y))
    rotation = ortho_group.rvs(DIM, random_state=0)
    for change in (rotation, 1e-3 * np.eye(DIM), 1e4 * rotation):
        changed = x.astype(np.float64) @ change + 3.0
        if measure is pwcca:  # its weights are sums over units, so only y, or a scale, is free
            assert measure(subspace(y), subspace(changed)) == pytest.approx(measure(subspace(y), subspace(x)), abs=1e-6)
        else:
            assert measure(subspace(changed), subspace(y)) == pytest.approx(before, abs=1e-6)
        assert measure(subspace(changed), subspace(x)) == pytest.approx(1.0, abs=1e-6)


@MEASURES
def test_unrelated_layers_are_unlike(measure) -> None:
    assert measure(subspace(layer(1, frames=6000)), subspace(layer(2, frames=6000))) < 0.1


@MEASURES
def test_constant_layers_are_like_each_other_and_nothing_else(measure) -> None:
    constant, zero = (subspace(np.full((FRAMES, DIM), value, np.float32)) for value in (0.1, 0.0))
    noisy = np.full((FRAMES, DIM), 12345.6789)
    assert (noisy - noisy.mean(axis=0)).any(), "its mean in float64 is a little off"
    for one in (constant, zero, subspace(noisy)):
        assert one.basis.shape == (FRAMES, 0), "rounding noise is no direction"
        assert measure(one, constant) == 1.0
        assert measure(one, subspace(layer(1))) == 0.0
        assert measure(subspace(layer(1)), one) == 0.0


@MEASURES
def test_constant_duplicated_and_dependent_units_make_no_nan(measure) -> None:
    x, y = layer(1), layer(2)
    spoilt = np.concatenate([x, x, np.full((FRAMES, 2), 7.7, np.float32), x[:, :1] + x[:, 1:2]], axis=1)
    space = subspace(spoilt, 1.0)
    assert space.basis.shape[1] == DIM
    assert np.isfinite(measure(space, subspace(y, 1.0)))
    assert measure(space, space) == pytest.approx(1.0, abs=1e-9)
    if measure is svcca:
        assert measure(space, subspace(y, 1.0)) == pytest.approx(measure(subspace(x, 1.0), subspace(y, 1.0)), abs=1e-9)


def test_correlations_never_leave_0_to_1() -> None:
    beyond = 0
    for seed in range(20):
        x = subspace(np.repeat(layer(seed, 3), 4, axis=1), 1.0)
        y = subspace(3.0 * layer(seed, 3), 1.0)
        beyond += np.linalg.norm(x.basis.T @ y.basis, 2) > 1.0
        correlations = canonical_correlations(x, y)
        assert len(correlations) == 3
        assert correlations.max() <= 1.0
        assert correlations.min() > 1 - 1e-9
    assert beyond, "rounding does lead beyond 1 without a clip"


# ---- the matrix


def test_matrix_holds_every_pair() -> None:
    spaces = [subspace(x) for x in stream()]
    matrix = similarity_matrix(spaces)
    assert matrix.shape == (7, 7)
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(np.diag(matrix), 1.0)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert matrix[5, 2] == svcca(spaces[5], spaces[2])
    assert similarity_matrix(spaces, pwcca)[2, 5] == pwcca(spaces[5], spaces[2])
    assert matrix[0, 1] > matrix[0, 6], "neighbours are more alike than the ends"


def test_ten_frames_a_dimension_are_the_least() -> None:
    def spaces(frames: int) -> list[Subspace]:
        return [subspace(layer(seed, frames=frames)) for seed in (1, 2)]

    with pytest.raises(
        UserError, match=r"119 frames are too few to compare layers of 12 dimensions: at least 10 .*\(120\) are needed"
    ):
        similarity_matrix(spaces(119))
    assert similarity_matrix(spaces(120)).shape == (2, 2)
