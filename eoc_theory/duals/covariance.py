"""Maps of a whole batch's covariance: E[φ(u_i) φ(u_j)] and E[φ'(u_i) φ'(u_j)] for all pairs, fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from ..activations.core import Activation
from ..errors import ArgumentError
from . import mehler
from .closed_forms import closed_dual
from .pairs import Array, Pairs


@dataclass(frozen=True)
class CovarianceMaps:
    """Second moments of a layer's activities and derivatives under a Gaussian covariance.

    Attributes:
        phi: E[φ(u_i) φ(u_j)], shape (..., B, B).
        dphi: E[φ'(u_i) φ'(u_j)], shape (..., B, B), or None when not asked for. φ' is the derivative almost
            everywhere, the one that backpropagation uses.
        error: estimated largest error of an entry relative to √(E f_i² E f_j²).
    """

    phi: Array
    dphi: Array | None
    error: float


def covariance_maps(
    activation: Activation, K: ArrayLike, *, derivative: bool = True, tolerance: float = 1e-8
) -> CovarianceMaps:
    """E[φ(u_i) φ(u_j)] and E[φ'(u_i) φ'(u_j)] for (u_1 … u_B) ~ N(0, K).

    Closed forms where there are; otherwise Mehler's series to the order at which its remainder, at most
    |c|^n √(tail_i tail_j), is below the tolerance.

    Args:
        activation: the activation function φ.
        K: covariances, shape (..., B, B), symmetric; the diagonal entries may differ.
        derivative: whether to compute the map of φ' too.
        tolerance: error aimed at, relative to √(E f_i² E f_j²). What was reached is in the result.

    Raises:
        ArgumentError: K is not a stack of square matrices of finite numbers with a diagonal >= 0.
    """
    K = np.asarray(K, dtype=np.float64)
    checks.positive("tolerance", tolerance)
    if K.ndim < 2 or K.shape[-1] != K.shape[-2] or K.shape[-1] == 0:
        raise ArgumentError(f"K must have shape (..., B, B) with B >= 1, got {K.shape}")
    if K.ndim == 2:
        return _maps(activation, K, derivative, tolerance)
    flat = [_maps(activation, one, derivative, tolerance) for one in K.reshape(-1, *K.shape[-2:])]
    phi = np.array([maps.phi for maps in flat]).reshape(K.shape)
    dphi = np.array([maps.dphi for maps in flat]).reshape(K.shape) if derivative else None
    return CovarianceMaps(phi, dphi, max((maps.error for maps in flat), default=0.0))


def _maps(activation: Activation, K: Array, derivative: bool, tolerance: float) -> CovarianceMaps:
    q = np.diagonal(K).copy()
    if not (np.isfinite(K).all() and (q >= 0).all()):
        raise ArgumentError("K must hold finite numbers with variances >= 0 on its diagonal")
    c = correlations(K, q)
    if activation.closed_form is not None:
        return _closed(activation, q, c, derivative)
    return _series(activation, q, c, derivative, tolerance)


def correlations(K: Array, q: Array) -> Array:
    """c_ij = K_ij/√(q_i q_j) in [−1, 1], 1 on the diagonal; 0 where a variance is 0."""
    with np.errstate(divide="ignore"):
        scale = np.where(q > 0, 1 / np.sqrt(q), 0.0)
    c = K * scale
    c *= scale[:, None]
    np.maximum(c, -1.0, out=c)
    np.minimum(c, 1.0, out=c)
    np.fill_diagonal(c, 1.0)
    return c


def _closed(activation: Activation, q: Array, c: Array, derivative: bool) -> CovarianceMaps:
    shape = c.shape
    pairs = Pairs(np.broadcast_to(q[:, None], shape), np.broadcast_to(q, shape), c, 1 - c, 1 + c)
    results = [closed_dual(activation, pairs, order, order) for order in ((0, 1) if derivative else (0,))]
    phi = results[0]
    assert phi is not None
    dphi = results[1] if derivative else None
    return CovarianceMaps(phi[0], None if dphi is None else dphi[0], 16 * np.finfo(float).eps)


def _series(activation: Activation, q: Array, c: Array, derivative: bool, tolerance: float) -> CovarianceMaps:
    c_squared = c * c
    scratch = np.empty_like(c)
    apart = np.abs(c)
    np.fill_diagonal(apart, 0.0)
    reach = float(apart.max(initial=0.0))
    results, error = [], 0.0
    for order in (0, 1) if derivative else (0,):
        n, half_width = mehler.plan(activation, order, _above(float(q.max())), _towards_one(reach), tolerance)
        a = mehler.batch_coefficients(activation, order, q, n, half_width)
        values = mehler.series(c, c_squared, a, np.empty_like(c), scratch)
        # The diagonal needs no series.
        np.fill_diagonal(values, a.square)
        with np.errstate(invalid="ignore", divide="ignore"):
            left_out = np.where(a.square > 0, a.tail / a.square, 0.0)
        error = max(error, float(left_out.max(initial=0.0)) * reach**n + 1e-15)
        results.append(values)
    return CovarianceMaps(results[0], results[1] if derivative else None, error)


def _above(q: float) -> float:
    """q rounded up to a quarter octave, so that plans are few and depend on the input alone."""
    return float(2.0 ** (np.ceil(4 * np.log2(q)) / 4)) if q > 0 else 1e-300


def _towards_one(reach: float) -> float:
    """|c| rounded up, in steps of 1 − |c| by halves."""
    return 1.0 if reach >= 1 else float(1 - 2.0 ** np.floor(np.log2(1 - reach)))
