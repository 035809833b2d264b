"""E[φ(u)φ(u')] and E[φ'(u)φ'(u')] for Gaussian fields with a mean, over all pairs of positions.

Zero-mean fields under a (leaky) ReLU have the closed form of Cho & Saul 2009, tabulated in √(1−ρ). All others
go by Mehler's series with coefficients of their own for each position, a_k(p) = E[φ(μ_p + √q_p Z) He_k(Z)]/√k!,
cut at `TERMS`; what it leaves out at ρ = 1 is added with the dependence on ρ that a kink's tail has,
Σ_{k>K} k^{−5/2} ρ^k for φ and Σ_{k>K} k^{−3/2} ρ^k for φ'.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..activations.core import Activation

Array = np.ndarray

#: Terms of Mehler's series.
TERMS = 32
#: Terms are left out behind the last that carries more than this share of E[f²].
NEGLIGIBLE = 1e-7
#: Points of the tables over √(1−ρ).
POINTS = 1 << 13
_REACH = 9.0
_NODES = 601


def field_maps(activation: Activation, mean: Array, covariance: Array) -> tuple[Array, Array, Array]:
    """E[φ(u)], E[φφ'] and E[φ'φ'] of fields u with mean (P,) and covariance (T, P, P) for each kind of pair.

    The variances are the diagonal of the first kind, an input with itself. Relative errors: 1e-6 with the
    closed form, else about 1e-3 where φ has kinks and 1e-6 where it has none (tests/test_field_maps.py).

    Returns:
        arrays of shape (P,), (T, P, P), (T, P, P).
    """
    from ..position_kernels import look_up, series

    variance = np.maximum(np.diagonal(covariance[0]), 0.0)
    root = np.sqrt(variance)
    phi, slope = np.empty_like(covariance), np.empty_like(covariance)
    if activation.slopes is not None and not mean.any():
        left, right = activation.slopes
        table = _homogeneous(left, right)
        look_up(covariance, root, table, np.sqrt(2.0), phi, slope)
        return (right - left) * root / np.sqrt(2 * np.pi), phi, slope
    first = None
    for order, out in ((0, phi), (1, slope)):
        coefficients, rest = _coefficients(activation, order, mean, root)
        kept = _last_needed(coefficients)
        table = _tail(kept, 2.5 - order)
        dtype = covariance.dtype
        series(
            covariance, root, coefficients[:kept].astype(dtype), rest.astype(dtype), table, np.sqrt(0.5), out
        )
        first = coefficients[0] if first is None else first
    assert first is not None
    return first.astype(covariance.dtype), phi, slope


@lru_cache(maxsize=16)
def _homogeneous(left: float, right: float) -> Array:
    """f and g of φφ = √(qq') f(ρ), φ'φ' = g(ρ) on equidistant √(1−ρ), shape (2, POINTS + 1)."""
    c = 1.0 - np.linspace(0.0, np.sqrt(2.0), POINTS + 1) ** 2
    c = np.clip(c, -1.0, 1.0)
    theta = np.arccos(c)
    relu, step = (np.sin(theta) + (np.pi - theta) * c) / (2 * np.pi), (np.pi - theta) / (2 * np.pi)
    # φ(x) = left·x + (right − left)·relu(x).
    jump = right - left
    f = left**2 * c + left * jump * c + jump**2 * relu
    g = left**2 + left * jump + jump**2 * step
    return np.stack([f, g])


def _coefficients(activation: Activation, order: int, mean: Array, root: Array) -> tuple[Array, Array]:
    """a_k(p) for k < TERMS, (TERMS, P), and the root of what they leave out of E[f²], (P,)."""
    pairs = np.stack([mean, root], axis=1).astype(float)
    # Positions of one law, as under circular padding, share their coefficients.
    unique, where = np.unique(np.round(pairs, 12), axis=0, return_inverse=True)
    z, weights = _grid()
    f = activation if order == 0 else activation.derivative(order)
    values = np.asarray(f(unique[:, :1] + unique[:, 1:] * z), dtype=float)
    table = values @ (_hermite(TERMS) * weights).T
    square = (values**2) @ weights
    rest = np.sqrt(np.maximum(square - (table**2).sum(axis=1), 0.0))
    where = where.ravel()
    return np.ascontiguousarray(table[where].T), rest[where]


def _last_needed(coefficients: Array) -> int:
    share = (coefficients**2).max(axis=1)
    needed = np.flatnonzero(share > NEGLIGIBLE * max(float(share.max()), 1e-300))
    return int(needed[-1]) + 1 if len(needed) else 1


@lru_cache(maxsize=1)
def _grid() -> tuple[Array, Array]:
    """Equidistant nodes and Gaussian weights: exact to rounding for smooth f, to the step for kinks."""
    z = np.linspace(-_REACH, _REACH, _NODES)
    weights = np.exp(-0.5 * z**2)
    return z, weights / weights.sum()


@lru_cache(maxsize=4)
def _hermite(terms: int) -> Array:
    """He_k(z)/√k! on the grid, (terms, nodes)."""
    z, _ = _grid()
    rows = [np.ones_like(z), z]
    for k in range(1, terms - 1):
        rows.append((z * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1))
    return np.stack(rows[:terms])


@lru_cache(maxsize=128)
def _tail(terms: int, power: float) -> Array:
    """Σ_{k≥terms} k^{−power} ρ^k, 1 at ρ = 1, on equidistant √(1−ρ) in [0, √½]."""
    rho = 1.0 - np.linspace(0.0, np.sqrt(0.5), POINTS // 8 + 1) ** 2
    k = np.unique(np.round(np.geomspace(terms, 1e7, 400))).astype(float)
    # The sum over each stretch of k by its length: the terms vary slowly.
    edges = np.append(0.5 * (k[1:] + k[:-1]), k[-1])
    length = np.diff(edges, prepend=terms - 0.5)
    values = (k**-power * length) @ rho ** k[:, None]
    return values / values[0]
