"""Similarity of two layers, in float64: SVCCA (arXiv 1706.05806), PWCCA (arXiv 1806.05759), linear CKA (arXiv 1905.00414)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from asrprune.runtime.errors import UserError
from asrprune.runtime.progress import track

FRAMES_PER_DIMENSION = 10  # with fewer frames, random layers look similar


@dataclass(frozen=True)
class Subspace:
    """The subspace of the directions that explain most of the variance of a layer."""

    basis: np.ndarray  # (N, k), orthonormal columns; k = 0 if the layer is constant
    centred: np.ndarray  # (N, D) float64


def subspace(x: np.ndarray, variance: float = 0.99) -> Subspace:
    """Centre (N, D) activations; keep the smallest number of directions that explain ``variance`` of their variance."""
    centred = x.astype(np.float64)
    for _ in range(2):  # twice: the mean of a large constant has a rounding error, which would become a direction
        centred = centred - centred.mean(axis=0)
    q, r = np.linalg.qr(centred)  # the SVD of the small R costs D^3 instead of N D^2
    u, s, _ = np.linalg.svd(r, full_matrices=False)
    if not s.any():
        return Subspace(q[:, :0], centred)
    explained = np.cumsum(s**2)
    count = int(np.searchsorted(explained, variance * explained[-1] * (1 - 1e-12)) + 1)  # 1e-12: above the rounding error
    return Subspace(q @ u[:, :count], centred)


def canonical_correlations(x: Subspace, y: Subspace) -> np.ndarray:
    """Return the cosines of the principal angles between two subspaces, descending: (min(k_x, k_y),), in 0..1."""
    return np.clip(np.linalg.svd(x.basis.T @ y.basis, compute_uv=False), 0.0, 1.0)


def svcca(x: Subspace, y: Subspace) -> float:
    """Return the mean canonical correlation; 1 for two constant layers, 0 if only one layer is constant."""
    return _mean(canonical_correlations(x, y), x, y)


def pwcca(x: Subspace, y: Subspace) -> float:
    """Return the mean canonical correlation, weighted by the share of x in each canonical direction (paper, section 3)."""
    u, correlations, _ = np.linalg.svd(x.basis.T @ y.basis, full_matrices=False)
    weights = np.abs((x.basis @ u).T @ x.centred).sum(axis=1)
    return _mean(np.clip(correlations, 0.0, 1.0), x, y, weights)


def linear_cka(x: Subspace, y: Subspace) -> float:
    """Return ||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F) for the centred activations X and Y."""
    scale = np.linalg.norm(x.centred.T @ x.centred) * np.linalg.norm(y.centred.T @ y.centred)
    if scale == 0.0:
        return _mean(np.zeros(0), x, y)
    return float(np.linalg.norm(x.centred.T @ y.centred) ** 2 / scale)


def similarity_matrix(spaces: Sequence[Subspace], measure: Callable[[Subspace, Subspace], float] = svcca) -> np.ndarray:
    """Return the similarity of every pair of layers: (L + 1, L + 1) float64, symmetric, 1 on the diagonal.

    ``measure`` is called with the higher layer first.

    Raises:
        UserError: there are fewer than 10 frames per dimension.
    """
    frames, dim = spaces[0].centred.shape
    if frames < FRAMES_PER_DIMENSION * dim:
        raise UserError(
            f"{frames} frames are too few to compare layers of {dim} dimensions: at least {FRAMES_PER_DIMENSION} frames per"
            f" dimension ({FRAMES_PER_DIMENSION * dim}) are needed; use a larger set or raise prune.svcca_frames"
        )
    matrix = np.eye(len(spaces))
    for i, space in enumerate(track(spaces, measure.__name__)):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = measure(space, spaces[j])
    return matrix


def _mean(correlations: np.ndarray, x: Subspace, y: Subspace, weights: np.ndarray | None = None) -> float:
    if x.basis.shape[1] == 0 or y.basis.shape[1] == 0:
        return float(x.basis.shape[1] == y.basis.shape[1])
    return float(np.average(correlations, weights=weights))
