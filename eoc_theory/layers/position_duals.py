"""E[φ(u)φ(u')] and E[φ'(u)φ'(u')] for Gaussian fields with a mean, over all pairs of positions.

Zero-mean fields under a (leaky) ReLU have the closed form of Cho & Saul 2009. All others go by Mehler's
series with coefficients of their own for each position, a_k(p) = E[φ(μ_p + √q_p Z) He_k(Z)]/√k!, cut at
`TERMS`. What it leaves out at ρ = 1 is known for every position; how that falls with ρ is taken from the mean
position's law, whose series has `MANY_TERMS` and, behind them, the tail that a kink makes,
Σ_{k>K} k^{−5/2} ρ^k for φ and Σ_{k>K} k^{−3/2} ρ^k for φ'. Where all positions have one law nothing is lost.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..activations.core import Activation
from .position_kernels import hermite_coefficients, rectified, series

Array = np.ndarray

#: Terms of Mehler's series at every position, and for the mean position.
TERMS = 16
MANY_TERMS = 512
#: Terms are left out behind the last that carries more than this share of E[f²], remainders below another.
NEGLIGIBLE = 1e-8
ROUNDING = 1e-12
#: Cells of the tables over √(1−ρ) in [0, √2].
CELLS = 2048
_REACH = 9.0
#: Panels of Gauss–Legendre nodes between ±_REACH, without those that kinks and bends add.
_PANELS, _NODES = 20, 8
_MANY_PANELS, _MANY_NODES = 72, 12
#: Panels end at the places where an activation bends and so many of its length scales beside them.
_BESIDE = (-3.0, -1.0, 0.0, 1.0, 3.0)


def field_maps(activation: Activation, mean: Array, covariance: Array) -> tuple[Array, Array, Array]:
    """E[φ(u)], E[φφ'] and E[φ'φ'] of fields u with mean (P,) and covariance (T, P, P) for each kind of pair.

    The variances are the diagonal of the first kind, an input with itself.

    Errors, relative to E[φ²] and E[φ'²], for variances from 0.01 to 25 (tests/layers/test_position_duals.py):
    1e-6 and 4e-6 with the closed form. Else, where two positions have the mean one's law, 3e-6 and 5e-5, with
    φ' that jumps 1e-3 at ρ = 0.9999; where their variances differ by 20 % and correlate by 0.9999, up to 4e-4
    and 0.03 for jumps, and for tanh at q = 25 2e-4 and 4e-3. For ρ < −0.99 φ' that jumps may be out by 0.01.
    In single precision add 5e-5 for φ' that jumps, since 1−ρ is known to 1e-7 only.

    Returns:
        arrays of shape (P,), (T, P, P), (T, P, P).
    """
    root = np.sqrt(np.maximum(np.diagonal(covariance[0]), 0.0).astype(float))
    if activation.slopes is not None and not mean.any():
        left, right = activation.slopes
        phi, slope = rectified(covariance, root, left, right)
        return ((right - left) * root / np.sqrt(2 * np.pi)).astype(mean.dtype), phi, slope
    laws = np.stack([mean.astype(float), root], axis=1)
    # Positions of one law, as under circular padding, share their coefficients.
    unique, where = np.unique(np.round(laws, 12), axis=0, return_inverse=True)
    where = where.ravel()
    typical = spectra(activation, laws.mean(axis=0)[None], MANY_TERMS, _MANY_PANELS, _MANY_NODES)
    own = spectra(activation, unique, TERMS, _PANELS, _NODES)
    maps = []
    for order in (0, 1):
        (many, whole), (few, square) = typical[order], own[order]
        kept = _last_needed(np.concatenate([few, many[:TERMS]], axis=1))
        rest = np.maximum(square - (few[:kept] ** 2).sum(axis=0), 0.0)
        rest = np.sqrt(np.where(rest > ROUNDING * square, rest, 0.0))
        table = _remainder(many[:, 0], float(whole[0]), kept, 2.5 - order)
        maps.append(series(covariance, root, few[:kept, where], rest[where], table, np.sqrt(2.0)))
    return own[0][0][0, where].astype(mean.dtype), maps[0], maps[1]


@lru_cache(maxsize=1)
def _correlations() -> Array:
    """ρ at equidistant √(1−ρ) in [0, √2], (CELLS + 1,)."""
    return np.clip(1.0 - np.linspace(0.0, np.sqrt(2.0), CELLS + 1) ** 2, -1.0, 1.0)


def spectra(
    activation: Activation, laws: Array, terms: int, panels: int, nodes: int
) -> list[tuple[Array, Array]]:
    """For φ and φ': Hermite coefficients (terms, N) and second moments (N,) of N laws (mean, deviation)."""
    z, weights = _quadrature(activation, laws, panels, nodes)
    u = laws[:, :1] + laws[:, 1:] * z
    values = np.stack([np.asarray(activation.derivative(order)(u), dtype=float) for order in (0, 1)])
    weighted = values * weights
    squares = np.einsum("dnz,dnz->dn", values, weighted)
    found = hermite_coefficients(z, weighted, squares, terms, 0.1 * ROUNDING)
    return list(zip(found, squares, strict=True))


def _quadrature(activation: Activation, laws: Array, panels: int, nodes: int) -> tuple[Array, Array]:
    """Nodes and weights (N, Z) of the standard normal law, with panels that end where φ bends."""
    bends = [
        *activation.kinks,
        *(s + m * activation.length_scale for s in activation.scale_points for m in _BESIDE),
    ]
    places = (np.unique(bends) - laws[:, :1]) / np.maximum(laws[:, 1:], 1e-300)
    regular = np.broadcast_to(np.linspace(-_REACH, _REACH, panels + 1), (len(laws), panels + 1))
    edges = np.sort(np.concatenate([regular, np.clip(places, -_REACH, _REACH)], axis=1), axis=1)
    x, w = np.polynomial.legendre.leggauss(nodes)
    half, middle = 0.5 * np.diff(edges)[..., None], 0.5 * (edges[:, 1:] + edges[:, :-1])[..., None]
    z = (middle + half * x).reshape(len(laws), -1)
    weights = (half * w).reshape(len(laws), -1) * np.exp(-0.5 * z**2)
    return z, weights / weights.sum(axis=1, keepdims=True)


def _last_needed(coefficients: Array) -> int:
    share = (coefficients**2).max(axis=1)
    needed = np.flatnonzero(share > NEGLIGIBLE * max(float(share.max()), 1e-300))
    return int(needed[-1]) + 1 if len(needed) else 1


def _remainder(coefficients: Array, square: float, kept: int, power: float) -> Array:
    """What the terms from `kept` on add up to, over their sum at ρ = 1, at `_correlations`."""
    squares = coefficients**2
    behind = max(square - float(squares.sum()), 0.0)
    total = float(squares[kept:].sum()) + behind
    if total <= ROUNDING * square:
        return np.zeros(CELLS + 1)
    return (squares[kept:] @ _powers()[kept:] + behind * _tail(power)) / total


@lru_cache(maxsize=1)
def _powers() -> Array:
    """ρ^k at `_correlations`, (MANY_TERMS, CELLS + 1)."""
    return _correlations() ** np.arange(MANY_TERMS)[:, None]


@lru_cache(maxsize=4)
def _tail(power: float) -> Array:
    """Σ_{k≥MANY_TERMS} k^{−power} ρ^k, 1 at ρ = 1, at `_correlations`; 0 for negative ρ."""
    k = np.unique(np.round(np.geomspace(MANY_TERMS, 1e7, 400))).astype(float)
    # The sum over each stretch of k by its length: the terms vary slowly.
    edges = np.append(0.5 * (k[1:] + k[:-1]), k[-1])
    length = np.diff(edges, prepend=MANY_TERMS - 0.5)
    values = (k**-power * length) @ np.maximum(_correlations(), 0.0) ** k[:, None]
    return values / values[0]
