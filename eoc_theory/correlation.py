"""Correlations in the chaotic phase: the fixed point c* < 1 of the correlation map for many (q, σ_w) at once.

At variance q the map is C(c) = 1 − σ_w² (Φ(1) − Φ(c))/q, and Φ' = q T(c) with T(c) = E[φ'(u)φ'(v)] (Price). With
S(c) = 1/(1−c) ∫_c^1 T, the mean of T, a fixed point c* ≠ 1 has σ_w² S(c*) = 1 and the slope C'(c*) = σ_w² T(c*).
Both depend on q and c alone: one table of T in (log q, θ = arccos c) serves every network with that activation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from .activations import Activation
from .duals import dual
from .gaussian import hermite_coefficients, moment_table
from .gaussian.expectations import jumps_of
from .gaussian.tables import FIRST_DECADE, LAST_DECADE

Array = NDArray[np.float64]

# Points per decade of q and over the angles from 0 to π/2, doubled where the interpolant's last terms say so.
Q_POINTS = 14
ANGLE_POINTS = 24
RESOLVED = 1e-10
SERIES_TAIL = 1e-12
# Numbers of Hermite coefficients that are tried before two-dimensional quadrature.
SERIES = (64, 160, 400, 1000, 2500)


def _points(n: int) -> Array:
    """Chebyshev points in [0, 1], increasing."""
    return 0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n)


@lru_cache(maxsize=4)
def _coefficients(n: int) -> Array:
    """Matrix from values at the n points to Chebyshev coefficients on [0, 1]."""
    matrix = chebyshev.chebvander(2.0 * _points(n) - 1.0, n - 1).T * (2.0 / n)
    matrix[0] *= 0.5
    return matrix


@dataclass(frozen=True)
class Stretch:
    """Angles θ = w sinh(x X), x in [0, 1] ↔ θ in [0, π/2]: fine on the width w over which T changes near θ = 0."""

    width: Array
    span: Array

    @classmethod
    def at(cls, act: Activation, q: Array) -> Stretch:
        """The map for variances q."""
        lengths = [act.length_scale, *np.diff(act.kinks)]
        if act.oscillation:
            lengths.append(1.0 / act.oscillation)
        width = 1.0 / np.sqrt(1.0 + q / min(lengths) ** 2)
        return cls(width, np.arcsinh(0.5 * np.pi / width))

    def angle(self, x: Array) -> Array:
        """θ at x."""
        return self.width * np.sinh(x * self.span)

    def rate(self, x: Array) -> Array:
        """dθ/dx."""
        return self.width * self.span * np.cosh(x * self.span)


def slope_dual(act: Activation, q: Array, theta: Array) -> Array:
    """T = E[φ'(u)φ'(v)] at variances q (n,) and angles θ (n, m), to about 1e-12."""
    if act.closed_form is None and not jumps_of(act).slope:
        return _by_series(act, q, theta)
    return dual(act, q[:, None], q[:, None], one_minus_c=2.0 * np.sin(0.5 * theta) ** 2, order=1).value


def _by_series(act: Activation, q: Array, theta: Array) -> Array:
    """Mehler's series where a few hundred terms hold all of E[φ'²], otherwise quadrature."""
    result = np.empty_like(theta)
    pending = np.arange(len(q))
    total = moment_table(act).dphi2(q)
    needed = np.zeros(len(q))
    for terms, next_terms in zip(SERIES, (*SERIES[1:], np.inf), strict=True):
        if not np.any(needed[pending] <= next_terms):
            break
        squares = hermite_coefficients(act, q[pending], terms, order=1) ** 2
        tail = total[pending] - squares.sum(axis=1)
        enough = np.abs(tail) < SERIES_TAIL * total[pending]
        # The terms of an analytic function fall like exp(−a√k): a from what half of them leave.
        half = total[pending] - squares[:, : terms // 2].sum(axis=1)
        with np.errstate(all="ignore"):
            rate = np.log(half / tail) / (math.sqrt(terms) - math.sqrt(terms // 2))
            more = np.log(tail / (SERIES_TAIL * total[pending])) / rate
        needed[pending] = np.where(enough | ~(rate > 0.0), np.inf, (math.sqrt(terms) + more) ** 2)
        for i in np.flatnonzero(enough):
            result[pending[i]] = power_series(squares[i], np.cos(theta[pending[i]]))
        pending = pending[~enough]
    if len(pending):
        some = q[pending][:, None]
        epsilon = 2.0 * np.sin(0.5 * theta[pending]) ** 2
        result[pending] = dual(act, some, some, one_minus_c=epsilon, order=1).value
    return result


def power_series(coefficients: Array, c: Array) -> Array:
    """Σ a_k c^k."""
    return np.polynomial.polynomial.polyval(c, coefficients)


class CorrelationTable:
    """T and S over (log q, θ) for one activation, filled decade by decade of q when asked for."""

    def __init__(self, act: Activation) -> None:
        self.activation = act
        # Chebyshev coefficients in (log q, x) of T and of log S.
        self._decades: dict[int, tuple[Array, Array]] = {}

    def fixed_points(self, q: Array, sigma_w2: Array) -> tuple[Array, Array]:
        """c* < 1 and the slope C'(c*) for networks in the chaotic phase.

        Args:
            q: fixed points of the variance map, finite and > 0, shape (n,).
            sigma_w2: σ_w² > 1/E[φ'²] at that q, shape (n,).

        Returns:
            1 − c* (n,), in (0, 1]: exactly 1 (c* = 0) where C(0) = 0; and the slope (n,).
        """
        epsilon, slope = np.empty_like(q), np.empty_like(q)
        decade = np.clip(np.floor(np.log10(q)).astype(int), FIRST_DECADE, LAST_DECADE - 1)
        for d in np.unique(decade):
            rows = decade == d
            epsilon[rows], slope[rows] = self._solve(int(d), q[rows], sigma_w2[rows])
        return epsilon, slope

    def _decade(self, d: int) -> tuple[Array, Array]:
        """Chebyshev coefficients in (log q, x) of T and of log S for one decade of q."""
        if d not in self._decades:
            n, m = Q_POINTS, ANGLE_POINTS
            for _ in range(4):
                found = self._sample(d, n, m)
                size = np.abs(found[1]).max()
                in_q = max(np.abs(c[-2:]).max() / np.abs(c).max() for c in found) > RESOLVED
                in_angle = max(np.abs(c[:, -2:]).max() / np.abs(c).max() for c in found) > RESOLVED
                if size == 0.0 or not (in_q or in_angle) or max(n, m) > 50:
                    break
                n, m = (2 * n if in_q else n), (2 * m if in_angle else m)
            self._decades[d] = found
        return self._decades[d]

    def _sample(self, d: int, n: int, m: int) -> tuple[Array, Array]:
        q = 10.0 ** (d + _points(n))
        stretch = Stretch.at(self.activation, q[:, None])
        x = _points(m)
        along = slope_dual(self.activation, q, stretch.angle(x)) @ _coefficients(m).T
        mean = _mean_from_zero(along, stretch, x)
        to_q = _coefficients(n)
        return to_q @ along, to_q @ np.log(mean) @ _coefficients(m).T

    def _solve(self, d: int, q: Array, sigma_w2: Array) -> tuple[Array, Array]:
        slopes, means = self._decade(d)
        basis = chebyshev.chebvander(2.0 * (np.log10(q) - d) - 1.0, len(means) - 1)
        mean = (basis @ means).T.copy()
        # log σ_w² S falls from log χ > 0 at x = 0; C(0) ≥ 0 keeps it ≤ 0 at x = 1.
        grid = np.linspace(0.0, 1.0, 17)
        coarse = chebyshev.chebvander(2.0 * grid - 1.0, len(mean) - 1) @ mean + np.log(sigma_w2)
        cell = np.clip((coarse[1:-1] > 0.0).sum(axis=0), 0, len(grid) - 2)
        at = np.arange(len(q))
        low, high = coarse[cell, at], coarse[cell + 1, at]
        with np.errstate(all="ignore"):
            x = grid[cell] + np.clip(low / (low - high), 0.0, 1.0) * (grid[1] - grid[0])
        left, right = grid[cell].copy(), grid[cell + 1].copy()
        active, target = at, np.log(sigma_w2)
        for _ in range(30):
            value, derivative = _clenshaw(mean[:, active] if len(active) < len(at) else mean, x[active])
            value = value + target[active]
            above = value > 0.0
            left[active] = np.where(above, x[active], left[active])
            right[active] = np.where(above, right[active], x[active])
            with np.errstate(all="ignore"):
                new = x[active] - value / derivative
            inside = (new >= left[active]) & (new <= right[active])
            new = np.where(inside, new, 0.5 * (left[active] + right[active]))
            moved = np.abs(new - x[active])
            x[active] = new
            active = active[moved > 1e-6]
            if len(active) == 0:
                break
        theta = Stretch.at(self.activation, q).angle(x)
        slope = sigma_w2 * _clenshaw((basis @ slopes).T, x)[0]
        return np.minimum(2.0 * np.sin(0.5 * theta) ** 2, 1.0), slope


def _mean_from_zero(along: Array, stretch: Stretch, x: Array) -> Array:
    """S at the points x from Chebyshev coefficients of T along x, one row for each q."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    ends = np.concatenate([[0.0], x])
    half = 0.5 * np.diff(ends)
    inner = (half[:, None] * nodes + 0.5 * (ends[1:] + ends[:-1])[:, None]).reshape(-1)
    values = along @ chebyshev.chebvander(2.0 * inner - 1.0, along.shape[1] - 1).T
    values *= np.sin(stretch.angle(inner)) * stretch.rate(inner)
    pieces = (values.reshape(len(along), len(x), -1) @ weights) * half
    return np.cumsum(pieces, axis=1) / (2.0 * np.sin(0.5 * stretch.angle(x)) ** 2)


def _clenshaw(coefficients: Array, x: Array) -> tuple[Array, Array]:
    """Σ_k c_k T_k(2x − 1) and its derivative; coefficients (k, n), x (n,)."""
    t = 2.0 * (2.0 * x - 1.0)
    b1, b2 = np.zeros_like(x), np.zeros_like(x)
    d1, d2 = np.zeros_like(x), np.zeros_like(x)
    for k in range(len(coefficients) - 1, 0, -1):
        d1, d2 = t * d1 + 2.0 * b1 - d2, d1
        b1, b2 = t * b1 + coefficients[k] - b2, b1
    half = 0.5 * t
    return coefficients[0] + half * b1 - b2, 2.0 * (b1 + half * d1 - d2)


@lru_cache(maxsize=64)
def correlation_table(act: Activation) -> CorrelationTable:
    """The table of an activation, made once."""
    return CorrelationTable(act)
