"""Maps of a whole batch's covariance: E[φ(u_i) φ(u_j)] and E[φ'(u_i) φ'(u_j)] for all pairs, fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...activations import activation as resolve
from ...activations.core import Activation
from ...base import checks
from ...errors import ArgumentError
from . import mehler, series_length
from .batch_forms import batch_form
from .closed_forms import closed_dual
from .pairs import Array, Pairs
from .piecewise import piecewise_maps, piecewise_quadratic
from .quadrature import inherited_error
from .remainders import add_remainder, half_power_weights
from .single import one_pair

# Entries with a larger error than so many tolerances are computed one by one, of one covariance at most so
# many.
GROSS, MOST_PAIRS = 100.0, 200
EPS = float(np.finfo(np.float64).eps)


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
    activation: Any, K: ArrayLike, *, derivative: bool = True, tolerance: float = 1e-8
) -> CovarianceMaps:
    """E[φ(u_i) φ(u_j)] and E[φ'(u_i) φ'(u_j)] for (u_1 … u_B) ~ N(0, K).

    Closed forms where there are; otherwise Mehler's series to the order at which its remainder, at most
    |c|^n √(tail_i tail_j), is below the tolerance.

    Args:
        activation: anything :func:`eoc_theory.activation` accepts.
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
    act = resolve(activation)
    stack = [_symmetric(one) for one in K.reshape(-1, *K.shape[-2:])]
    flat = [_maps(act, one, derivative, tolerance, len(stack)) for one in stack]
    phi = np.array([maps.phi for maps in flat]).reshape(K.shape) if K.ndim > 2 else flat[0].phi
    dphi = None
    if derivative:
        dphi = np.array([maps.dphi for maps in flat]).reshape(K.shape) if K.ndim > 2 else flat[0].dphi
    return CovarianceMaps(phi, dphi, max((maps.error for maps in flat), default=0.0))


@dataclass(frozen=True)
class KernelPropagation:
    """A batch's covariance through the layers of a network of infinite width.

    Attributes:
        K: pre-activation covariances K^1 … K^{layers+1}, shape (layers + 1, B, B).
        phi: E[φφ] under K^1 … K^layers, shape (layers, B, B).
        dphi: E[φ'φ'] likewise, or None when not asked for.
        error: estimated largest error of an entry of phi or dphi relative to √(E f_i² E f_j²), made in one
            layer.
    """

    K: Array
    phi: Array
    dphi: Array | None
    error: float


def propagate_kernel(
    activation: Any,
    K: ArrayLike,
    sigma_w: float,
    sigma_b: float,
    layers: int,
    *,
    derivative: bool = True,
    tolerance: float = 1e-8,
) -> KernelPropagation:
    """K^{l+1} = σ_b² + σ_w² E[φφ | K^l] for l = 1 … layers, from K^1 = `K` (B, B).

    Sources: Lee et al. 2018, Matthews et al. 2018 (the forward kernel); Schoenholz et al. 2017 for E[φ'φ'],
        which the backward recursion multiplies with.

    Raises:
        ArgumentError: as :func:`covariance_maps`; sigma_w or sigma_b negative; layers < 0; or a variance
            exceeds
            the range of floats on the way.
    """
    act = resolve(activation)
    layers = checks.integer("layers", layers, 0)
    w2, b2 = checks.non_negative("sigma_w", sigma_w) ** 2, checks.non_negative("sigma_b", sigma_b) ** 2
    checks.positive("tolerance", tolerance)
    K = np.asarray(K, dtype=np.float64)
    if K.ndim != 2 or K.shape[0] != K.shape[1] or K.shape[0] == 0:
        raise ArgumentError(f"K must have shape (B, B) with B >= 1, got {K.shape}")
    kernels = np.empty((layers + 1, *K.shape))
    phi = np.empty((layers, *K.shape))
    dphi = np.empty((layers, *K.shape)) if derivative else None
    kernels[0] = _symmetric(K)
    error = 0.0
    for layer in range(layers):
        maps = _maps(act, kernels[layer], derivative, tolerance, layers)
        phi[layer] = maps.phi
        if dphi is not None:
            dphi[layer] = maps.dphi
        np.multiply(maps.phi, w2, out=kernels[layer + 1])
        kernels[layer + 1] += b2
        error = max(error, maps.error)
    return KernelPropagation(kernels, phi, dphi, error)


def _symmetric(K: Array) -> Array:
    """The symmetric part: a batch's covariance may carry the rounding errors of a matrix product."""
    return 0.5 * (K + K.T)


def _maps(activation: Activation, K: Array, derivative: bool, tolerance: float, calls: int) -> CovarianceMaps:
    q = np.diagonal(K).copy()
    # A non-finite entry anywhere makes the sum so.
    if not (np.isfinite(K.sum()) and q.min() >= 0):
        raise ArgumentError("K must hold finite numbers with variances >= 0 on its diagonal")
    c = correlations(K, q)
    reach = _reach(c)
    # A kink feels θ = arccos c, and θ² ≈ 2 (1 − c) no more than the rounding of c allows.
    rounding = min(2 * EPS / max(1 - reach * reach, EPS) ** 0.5, EPS**0.5) if activation.kinks else 0.0
    form = batch_form(activation, float(q.max()))
    if form is not None:
        return CovarianceMaps(*form(K, q, c, derivative), 1e-11 + rounding)
    closed = _closed(activation, q, c, derivative)
    if closed is not None:
        return CovarianceMaps(*closed, 1e-14 + rounding)
    pieces = piecewise_quadratic(activation)
    if pieces is not None:
        maps, error = piecewise_maps((pieces, pieces.derivative()) if derivative else (pieces,), q, c)
        return CovarianceMaps(maps[0], maps[1] if derivative else None, error + rounding)
    maps, error = _series(activation, q, c, reach, derivative, tolerance, calls)
    return CovarianceMaps(maps[0], maps[1] if derivative else None, error + rounding)


def _reach(c: Array) -> float:
    """The largest |c| between different inputs: near 1 it decides how many terms a series needs."""
    c.flat[:: len(c) + 1] = 0.0
    reach = max(float(c.max()), -float(c.min()))
    c.flat[:: len(c) + 1] = 1.0
    return reach


def correlations(K: Array, q: Array) -> Array:
    """c_ij = K_ij/√(q_i q_j) in [−1, 1], 1 on the diagonal; 0 where a variance is 0. Symmetric to the last
    bit.
    """
    if q.min() > 0:
        scale = 1 / np.sqrt(q)
    else:
        scale = np.where(q > 0, 1 / np.sqrt(np.where(q > 0, q, 1.0)), 0.0)
    c = scale * scale[:, None]
    c *= K
    np.maximum(c, -1.0, out=c)
    np.minimum(c, 1.0, out=c)
    c.flat[:: len(c) + 1] = 1.0
    return c


def _closed(
    activation: Activation, q: Array, c: Array, derivative: bool
) -> tuple[Array, Array | None] | None:
    shape = c.shape
    pairs = Pairs(np.broadcast_to(q[:, None], shape), np.broadcast_to(q, shape), c, 1 - c, 1 + c)
    results = [closed_dual(activation, pairs, order, order) for order in ((0, 1) if derivative else (0,))]
    if results[0] is None or results[-1] is None:
        return None
    return results[0][0], results[-1][0] if derivative else None


def _series(
    activation: Activation, q: Array, c: Array, reach: float, derivative: bool, tolerance: float, calls: int
) -> tuple[list[Array], float]:
    c_squared = c * c
    results, error = [], 0.0
    for order in (0, 1) if derivative else (0,):
        n, half_width = series_length.plan(
            activation, order, _above(float(q.max())), _towards_one(reach), tolerance
        )
        a = mehler.batch_coefficients(activation, order, q, n, half_width)
        values = mehler.series(c, c_squared, a, calls)
        unexplained = series_length.unexplained_by_kink(activation, order, q, n, a)
        if unexplained is not None:
            add_remainder(values, c, half_power_weights(activation, order, q), n)
        # The diagonal needs no series.
        values.flat[:: len(q) + 1] = a.square
        left_out = a.tail if unexplained is None else unexplained
        missed = np.sqrt(left_out / np.maximum(a.square, 1e-300))
        missed = np.outer(missed, missed) * np.abs(c) ** n
        np.fill_diagonal(missed, 0.0)
        _one_by_one(activation, order, q, c, values, missed, GROSS * tolerance, MOST_PAIRS // calls)
        beyond = 2 * series_length.beyond(activation, order, q, n, half_width, a)
        inherited = 2 * max(inherited_error(activation, float(v), order) for v in (q.min(), q.max()) if v > 0)
        error = max(error, float(missed.max()) + 1e-14 + beyond + inherited)
        results.append(values)
    return results, error


def _one_by_one(
    activation: Activation,
    order: int,
    q: Array,
    c: Array,
    values: Array,
    missed: Array,
    accepted: float,
    most: int,
) -> None:
    """Replace entries of which the series misses too much by quadrature, if they are few; in place.

    That is where large variances meet correlations near 1.
    """
    if missed.max() <= accepted:
        return
    rows, columns = np.nonzero(np.tril(missed > accepted, -1))
    if len(rows) > most:
        return
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        value, error = one_pair(activation, float(q[i]), float(q[j]), 1.0 - float(c[i, j]), order, order)
        size = math.sqrt(values[i, i] * values[j, j])
        values[i, j] = values[j, i] = value
        missed[i, j] = missed[j, i] = error / size if size > 0.0 else 0.0


def _above(q: float) -> float:
    """q rounded up to a quarter octave, so that plans are few and depend on the input alone."""
    return float(2.0 ** (np.ceil(4 * np.log2(q)) / 4)) if q > 0 else 1e-300


def _towards_one(reach: float) -> float:
    """|c| rounded up, in steps of 1 − |c| by halves."""
    return 1.0 if reach >= 1 else float(1 - 2.0 ** np.floor(np.log2(1 - reach)))
