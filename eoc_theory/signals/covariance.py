"""Roots of covariances that may be singular, or a little below 0 for rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def scaled_root(covariance: Array, scale: Array | float, jitters: Sequence[float]) -> Array:
    """R with R Rᵀ = scale · covariance, lower triangular where Cholesky's method works; also of stacks.

    Args:
        covariance: of mean variance 1, shape (…, n, n).
        scale: of each, shape (…).
        jitters: added to the diagonal, one after the other, until Cholesky's method works. Where none does,
            the root is made of the eigenvectors with positive eigenvalues.
    """
    size, eye = np.asarray(scale)[..., None, None], np.eye(covariance.shape[-1])
    for jitter in jitters:
        try:
            return np.linalg.cholesky(covariance + jitter * eye) * np.sqrt(size)
        except np.linalg.LinAlgError:
            continue
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0)[..., None, :] * size)


def covariance_root(covariance: Array, jitter: float = 1e-10) -> Array:
    """R with R Rᵀ = covariance, lower triangular; works on stacks and where the matrix is singular.

    Kernels lose rank with depth; `jitter`, relative to the mean variance, keeps Cholesky's method going.
    """
    scale = np.trace(covariance, axis1=-2, axis2=-1) / covariance.shape[-1]
    scale = np.maximum(scale, np.finfo(float).tiny)
    return scaled_root(covariance / scale[..., None, None], scale, (jitter, 1e2 * jitter, 1e4 * jitter))
