"""Correlations in the chaotic phase: the fixed point c* < 1 of the correlation map for many (q, σ_w) at once.

At variance q the map is C(c) = 1 − σ_w² (Φ(1) − Φ(c))/q, and Φ' = q T(c) with T(c) = E[φ'(u)φ'(v)] (Price).
With S(c) = 1/(1−c) ∫_c^1 T, the mean of T, a fixed point c* ≠ 1 has σ_w² S(c*) = 1 and the slope C'(c*) =
σ_w² T(c*). Both depend on q and c alone: one table of T in (log q, θ = arccos c) serves every network with
that activation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from .activations import Activation
from .duals import dual
from .duals.deficit import point_masses
from .gaussian import hermite_coefficients, moment_table
from .gaussian.expectations import jumps_of
from .gaussian.rules import TAIL
from .gaussian.tables import FIRST_DECADE, LAST_DECADE

Array = NDArray[np.float64]

# Points per panel of q (half a decade) and over the angles from 0 to π/2, doubled where the interpolant's
# last terms say so.
PANELS = 2
Q_POINTS = 12
ANGLE_POINTS = 28
RESOLVED = 1e-9
SERIES_TAIL = 1e-12
# Numbers of Hermite coefficients that are tried before two-dimensional quadrature.
SERIES = (64, 160, 400)


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
    """Angles θ = w sinh(x X), x in [0, 1] ↔ θ in [0, π/2]: fine near 0, where T changes over w."""

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
    """T = E[φ'(u)φ'(v)] at variances q (n,) and angles θ (n, m), to about 1e-12; T sin θ where φ jumps.

    At a jump φ' is a point mass: T grows like 1/θ towards θ = 0, and T sin θ is what is smooth.
    """
    if not jumps_of(act).value:
        return _regular_part(act, q, theta)
    jumps = act.jumps(0)
    masses = np.empty_like(theta)
    for i, j in np.ndindex(theta.shape):
        masses[i, j] = point_masses(act, float(q[i]), float(theta[i, j]), 0, jumps) / q[i]
    return _regular_part(act, q, theta) * np.sin(theta) + masses


def _regular_part(act: Activation, q: Array, theta: Array) -> Array:
    """T without the point masses of φ'."""
    if act.closed_form is None:
        if act.kinks and is_piecewise_linear(act) and not jumps_of(act).value:
            return _of_kinks(act, q, theta)
        if act.scale_points == (0.0,) and act.kinks in ((), (0.0,)) and not act.oscillation:
            return _by_series(act, q, theta) if not act.kinks else _around_zeros(act, q, theta)
        if not (jumps_of(act).slope or jumps_of(act).value):
            return _by_series(act, q, theta)
    return dual(act, q[:, None], q[:, None], one_minus_c=2.0 * np.sin(0.5 * theta) ** 2, order=1).value


@lru_cache(maxsize=512)
def is_piecewise_linear(act: Activation) -> bool:
    """Whether φ'' vanishes between the kinks (judged at nine points of each interval)."""
    ends = [act.kinks[0] - 1e3, *act.kinks, act.kinks[-1] + 1e3] if act.kinks else [-1e3, 1e3]
    fractions = np.linspace(0.1, 0.9, 9) ** 3
    inside = (low + (high - low) * fractions for low, high in pairwise(ends))
    return all(not np.any(piece[2](x)) for piece, x in zip(act.pieces, inside, strict=True))


def _of_kinks(act: Activation, q: Array, theta: Array) -> Array:
    """T of a piecewise linear φ: E[φ'²] less ∫ −dT/dθ dθ, −dT/dθ = Σ Δ_j Δ_k p(x_j, x_k; θ) q sin θ."""
    kinks, jumps = np.array(act.kinks), act.jumps(1)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    ends = np.concatenate([np.zeros((len(q), 1)), theta], axis=1)
    half = 0.5 * np.diff(ends)
    inner = half[..., None] * nodes + (0.5 * (ends[:, 1:] + ends[:, :-1]))[..., None]
    density = np.zeros_like(inner)
    sine2, cosine2, q2 = np.sin(inner) ** 2, np.cos(0.5 * inner) ** 2, 2.0 * q[:, None, None]
    for x, jump in zip(kinks, jumps, strict=True):
        for y, other in zip(kinks, jumps, strict=True):
            # (x² + y² − 2xy cos θ)/sin² θ, written so that x = y does not cancel.
            exponent = ((x - y) ** 2 / sine2 + x * y / cosine2) / q2
            density += jump * other / (2.0 * np.pi) * np.exp(-exponent)
    return moment_table(act).dphi2(q)[:, None] - np.cumsum((density @ weights) * half, axis=1)


def _around_zeros(act: Activation, q: Array, theta: Array) -> Array:
    """T for a φ whose only structure is around 0, in polar coordinates: there its sides meet at fixed angles.

    With u = √q r sin α, v = √q r sin β the plane has the sectors u, v > 0 (β = α + θ), u, v < 0 (the same,
    mirrored) and, twice each, u > 0 > v (β = θ − α, v = −√q r sin β). On each of them the integrand is
    smooth; structure of the width of φ's own lies at the sectors' edges and at r = 0.
    """
    result = np.empty_like(theta)
    left, right = act.pieces[0][1], act.pieces[-1][1]
    # φ'(−x) = ±φ'(x): half of the evaluations.
    sign = {"odd": 1.0, "even": -1.0}.get(act.parity or "")

    def both(x: Array, y: Array) -> Array:
        if sign is not None:
            return 2.0 * right(x) * right(y)
        return right(x) * right(y) + left(-x) * left(-y)

    def opposite(x: Array, y: Array) -> Array:
        if sign is not None:
            return 2.0 * sign * right(x) * right(y)
        return right(x) * left(-y) + right(y) * left(-x)

    for i, (variance, angles) in enumerate(zip(q, theta, strict=True)):
        width = act.length_scale / math.sqrt(variance)
        r, weight = _stretched(np.array([[TAIL]]), width, 44)
        weight = weight[0] * r[0] * np.exp(-0.5 * r[0] ** 2) / np.pi
        scale = (math.sqrt(variance) * r[0]).reshape(-1, 1, 1)
        alpha, outer = _stretched(0.5 * (np.pi - angles)[:, None], width, 32)
        near, far = scale * np.sin(alpha), scale * np.sin(alpha + angles[:, None])
        same = both(near, far)
        # The mixed sector has an edge at either end: two halves.
        alpha, inner = _stretched(0.5 * angles[:, None], width, 20)
        near, far = scale * np.sin(alpha), scale * np.sin(angles[:, None] - alpha)
        mixed = opposite(near, far)
        result[i] = weight @ ((same * outer).sum(-1) + (mixed * inner).sum(-1))
    return result


def _stretched(end: Array, width: float, n: int) -> tuple[Array, Array]:
    """n Gauss–Legendre nodes and weights on [0, end], denser towards 0 on the scale `width`; (m, n)."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    span = np.arcsinh(end / width)
    x = 0.5 * (nodes + 1.0)
    return width * np.sinh(x * span), 0.5 * weights * span * width * np.cosh(x * span)


def _by_series(act: Activation, q: Array, theta: Array) -> Array:
    """Mehler's series where a few hundred terms hold all of E[φ'²], otherwise quadrature."""
    result = np.empty_like(theta)
    pending = np.arange(len(q))
    total = moment_table(act).dphi2(q)
    needed = np.zeros(len(q))
    for terms, next_terms in zip(SERIES, (*SERIES[1:], np.inf), strict=True):
        # A short series cannot tell how fast the terms of a sharp function fall in the end.
        if len(pending) == 0 or (terms > SERIES[1] and not np.any(needed[pending] <= next_terms)):
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
    if len(pending) and act.scale_points == (0.0,) and not act.oscillation and not act.kinks:
        result[pending] = _around_zeros(act, q[pending], theta[pending])
    elif len(pending):
        some = q[pending][:, None]
        epsilon = 2.0 * np.sin(0.5 * theta[pending]) ** 2
        result[pending] = dual(act, some, some, one_minus_c=epsilon, order=1).value
    return result


def power_series(coefficients: Array, c: Array) -> Array:
    """Σ a_k c^k."""
    return np.asarray(np.polynomial.polynomial.polyval(c, coefficients), dtype=np.float64)


class CorrelationTable:
    """T and S over (log q, θ) for one activation, filled panel by panel of q when asked for."""

    def __init__(self, act: Activation) -> None:
        self.activation = act
        # Where φ jumps T and S grow like 1/θ towards θ = 0: then the tables hold T sin θ and S θ.
        self._jumps = jumps_of(act).value
        # Chebyshev coefficients in (log q, x) of T and of log S.
        self._panels: dict[int, tuple[Array, Array]] = {}

    def fixed_points(self, q: Array, sigma_w2: Array) -> tuple[Array, Array]:
        """c* < 1 and the slope C'(c*) for networks in the chaotic phase.

        Args:
            q: fixed points of the variance map, finite and > 0, shape (n,).
            sigma_w2: σ_w² > 1/E[φ'²] at that q, shape (n,).

        Returns:
            1 − c* (n,), in (0, 1]: exactly 1 (c* = 0) where C(0) = 0; and the slope (n,).
        """
        epsilon, slope = np.empty_like(q), np.empty_like(q)
        panel = np.floor(PANELS * np.log10(q)).astype(int)
        panel = np.clip(panel, PANELS * FIRST_DECADE, PANELS * LAST_DECADE - 1)
        for p in np.unique(panel):
            rows = panel == p
            epsilon[rows], slope[rows] = self._solve(int(p), q[rows], sigma_w2[rows])
        return epsilon, slope

    def _panel(self, p: int) -> tuple[Array, Array]:
        """Chebyshev coefficients in (log q, x) of T and of log S for one panel of q."""
        if p not in self._panels:
            n, m = Q_POINTS, ANGLE_POINTS
            for _ in range(4):
                found = self._sample(p, n, m)
                size = np.abs(found[1]).max()
                in_q = max(np.abs(c[-2:]).max() / np.abs(c).max() for c in found) > RESOLVED
                in_angle = max(np.abs(c[:, -2:]).max() / np.abs(c).max() for c in found) > RESOLVED
                if size == 0.0 or not (in_q or in_angle) or max(n, m) > 50:
                    break
                n, m = (2 * n if in_q else n), (2 * m if in_angle else m)
            self._panels[p] = found
        return self._panels[p]

    def _sample(self, p: int, n: int, m: int) -> tuple[Array, Array]:
        q = 10.0 ** ((p + _points(n)) / PANELS)
        stretch = Stretch.at(self.activation, q[:, None])
        x = _points(m)
        along = slope_dual(self.activation, q, stretch.angle(x)) @ _coefficients(m).T
        mean = _mean_from_zero(along, stretch, x, self._jumps)
        to_q = _coefficients(n)
        return to_q @ along, to_q @ np.log(mean) @ _coefficients(m).T

    def _solve(self, p: int, q: Array, sigma_w2: Array) -> tuple[Array, Array]:
        slopes, means = self._panel(p)
        basis = chebyshev.chebvander(2.0 * (PANELS * np.log10(q) - p) - 1.0, len(means) - 1)
        mean = (basis @ means).T.copy()
        # log σ_w² S falls from log χ > 0 at x = 0; C(0) ≥ 0 keeps it ≤ 0 at x = 1.
        grid = np.linspace(0.0, 1.0, 17)
        coarse = chebyshev.chebvander(2.0 * grid - 1.0, len(mean) - 1) @ mean + np.log(sigma_w2)
        stretch = Stretch.at(self.activation, q)
        if self._jumps:
            with np.errstate(divide="ignore"):
                coarse = coarse - np.log(stretch.angle(grid[:, None]))
        cell = np.clip((coarse[1:-1] > 0.0).sum(axis=0), 0, len(grid) - 2)
        at = np.arange(len(q))
        low, high = coarse[cell, at], coarse[cell + 1, at]
        with np.errstate(all="ignore"):
            share = np.where(np.isfinite(low), low / (low - high), 0.5)
        x = grid[cell] + np.clip(share, 0.0, 1.0) * (grid[1] - grid[0])
        left, right = grid[cell].copy(), grid[cell + 1].copy()
        active, target = at, np.log(sigma_w2)
        for _ in range(30):
            value, derivative = _clenshaw(mean[:, active] if len(active) < len(at) else mean, x[active])
            value = value + target[active]
            if self._jumps:
                some = Stretch(stretch.width[active], stretch.span[active])
                theta = some.angle(x[active])
                value, derivative = value - np.log(theta), derivative - some.rate(x[active]) / theta
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
        theta = stretch.angle(x)
        slope = sigma_w2 * _clenshaw((basis @ slopes).T, x)[0]
        if self._jumps:
            slope = slope / np.sin(theta)
        return np.minimum(2.0 * np.sin(0.5 * theta) ** 2, 1.0), slope


def _mean_from_zero(along: Array, stretch: Stretch, x: Array, jumps: bool) -> Array:
    """S (S θ where φ jumps) at the points x from Chebyshev coefficients of T (T sin θ), a row for each q."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    ends = np.concatenate([[0.0], x])
    half = 0.5 * np.diff(ends)
    inner = (half[:, None] * nodes + 0.5 * (ends[1:] + ends[:-1])[:, None]).reshape(-1)
    values = along @ chebyshev.chebvander(2.0 * inner - 1.0, along.shape[1] - 1).T
    values *= stretch.rate(inner)
    if not jumps:
        values *= np.sin(stretch.angle(inner))
    pieces = (values.reshape(len(along), len(x), -1) @ weights) * half
    theta = stretch.angle(x)
    mean = np.cumsum(pieces, axis=1) / (2.0 * np.sin(0.5 * theta) ** 2)
    return mean * theta if jumps else mean


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
