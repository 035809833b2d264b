"""T(θ) = E[φ'(u)φ'(v)] for u, v of equal variances and correlation cos θ, quickly for many angles at once.

By whatever suits φ: its closed form, Mehler's series, polar coordinates around a single centre, the kinks
alone where φ is piecewise linear, panels between all kinks otherwise. (The duals package does one pair at a
time to the last digit; here 1e-10 is enough, and hundreds of angles are wanted.)
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ...activations import Activation
from .. import hermite_coefficients, moment_table
from ..expectations import jumps_of
from ..rules import RADIANS, TAIL
from . import dual
from .deficit import jump_products, point_masses

Array = NDArray[np.float64]

# Numbers of Hermite coefficients that are tried before two-dimensional quadrature.
SERIES = (64, 160, 400)
SERIES_TAIL = 1e-12


def slope_dual(act: Activation, q: Array, theta: Array) -> Array:
    """T = E[φ'(u)φ'(v)] at variances q (n,) and angles θ (n, m), to about 1e-12; T sin θ where φ jumps.

    At a jump φ' is a point mass: T grows like 1/θ towards θ = 0, and T sin θ is what is smooth.
    """
    if not jumps_of(act).value:
        return _regular_part(act, q, theta)
    masses = np.stack([_masses(act, float(v), row) for v, row in zip(q, theta, strict=True)])
    return _regular_part(act, q, theta) * np.sin(theta) + masses


def _masses(act: Activation, q: float, theta: Array) -> Array:
    """sin θ times what the point masses of φ' add to T, at one q and angles θ (m,)."""
    jumps = act.jumps(0)
    if piecewise_degree(act) is None:
        return np.array([point_masses(act, q, float(t), 0, jumps) for t in theta]) / q
    sine, cosine, root = np.sin(theta), np.cos(theta), math.sqrt(q)
    total = jump_products(act, jumps, q, theta) / q
    for x, jump in zip(act.kinks, jumps, strict=True):
        density = math.exp(-0.5 * x * x / q) / (root * math.sqrt(2.0 * math.pi))
        total += 2.0 * jump * density * sine * _mean_of_linear(act, x * cosine, root * sine)
    return total


def _regular_part(act: Activation, q: Array, theta: Array) -> Array:
    """T without the point masses of φ'."""
    if act.closed_form is None:
        if piecewise_degree(act) == 1:
            return _of_kinks(act, q, theta)
        if act.scale_points == (0.0,) and act.kinks in ((), (0.0,)) and not act.oscillation:
            return _by_series(act, q, theta) if not act.kinks else _around_zeros(act, q, theta)
        if not (jumps_of(act).slope or jumps_of(act).value):
            return _by_series(act, q, theta)
        return _by_panels(act, q, theta)
    return dual(act, q[:, None], q[:, None], one_minus_c=2.0 * np.sin(0.5 * theta) ** 2, order=1).value


@lru_cache(maxsize=512)
def piecewise_degree(act: Activation) -> int | None:
    """1 or 2 where φ is linear or quadratic between its kinks, judged at nine points of each interval."""
    if not act.kinks:
        return None
    outside, fractions = np.geomspace(1e-2, 1e3, 9), np.linspace(0.1, 0.9, 9)
    inside = [act.kinks[0] - outside]
    inside += [low + (high - low) * fractions for low, high in pairwise(act.kinks)]
    inside.append(act.kinks[-1] + outside)
    for degree in (1, 2):
        if all(not np.any(piece[degree + 1](x)) for piece, x in zip(act.pieces, inside, strict=True)):
            return degree
    return None


def _middles(act: Activation) -> Array:
    """A point of each interval between kinks."""
    kinks = act.kinks
    return np.array([kinks[0] - 1.0, *(0.5 * (a + b) for a, b in pairwise(kinks)), kinks[-1] + 1.0])


def _at_middles(act: Activation, order: int) -> Array:
    return np.array([p[order](np.array([x]))[0] for p, x in zip(act.pieces, _middles(act), strict=True)])


def _of_kinks(act: Activation, q: Array, theta: Array) -> Array:
    """T of a piecewise linear φ without point masses: dT/dθ = −Σ Δ_j Δ_k p(x_j, x_k) q sin θ."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    ends = np.concatenate([np.zeros((len(q), 1)), theta], axis=1)
    half = 0.5 * np.diff(ends)
    inner = half[..., None] * nodes + (0.5 * (ends[:, 1:] + ends[:, :-1]))[..., None]
    density = jump_products(act, act.jumps(1), q[:, None, None], inner)
    bounds = special.ndtr(np.array([-np.inf, *act.kinks, np.inf]) / np.sqrt(q)[:, None])
    at_zero = np.diff(bounds, axis=1) @ _at_middles(act, 1) ** 2
    return at_zero[:, None] - np.cumsum((density @ weights) * half, axis=1)


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
            result[pending[i]] = np.polynomial.polynomial.polyval(np.cos(theta[pending[i]]), squares[i])
        pending = pending[~enough]
    if len(pending):
        around = act.scale_points == (0.0,) and not act.oscillation
        result[pending] = (_around_zeros if around else _by_panels)(act, q[pending], theta[pending])
    return result


def _by_panels(act: Activation, q: Array, theta: Array) -> Array:
    """T for any φ: E[φ'(u) E[φ'(v) | u]] on panels between all kinks, for u and, given each u, for v.

    Given u, v is normal with mean u cos θ and deviation √q sin θ: the inner expectation is smooth in u but
    changes within that deviation around (kink)/cos θ, so the outer panels are graded there as well.
    """
    result = np.empty_like(theta)
    slope = act.derivative(1)
    quadratic = piecewise_degree(act) == 2
    marks = np.array(sorted({*act.kinks, *act.scale_points}))
    # Within one length of a mark, and from there on in steps that grow with the distance.
    offsets = act.length_scale * 2.0 ** np.arange(0.0, 20.0)
    offsets = np.concatenate([-offsets[::-1], [0.0], offsets])
    for i, variance in enumerate(q):
        root = math.sqrt(variance)
        near = np.zeros(1) if quadratic else offsets[np.abs(offsets) < 2.0 * TAIL * root]
        points = (marks[:, None] + near).reshape(-1) if len(near) else marks
        frequency = 2.0 * act.oscillation
        for j, angle in enumerate(theta[i]):
            mean, deviation = math.cos(angle), root * math.sin(angle)
            edges = np.concatenate([points, *((marks / mean)[:, None] + deviation * _GRADED).T])
            x, weight, _ = _panels(edges[None], np.zeros(1), root, frequency)
            outer = (weight * slope(x)).reshape(-1)
            if quadratic:
                result[i, j] = outer @ _mean_of_linear(act, mean * x.reshape(-1), deviation)
                continue
            v, weight, owner = _panels(points[None], mean * x.reshape(-1), deviation, frequency)
            result[i, j] = outer[owner] @ (weight * slope(v)).sum(axis=1)
    return result


def _mean_of_linear(act: Activation, mean: Array, deviation: float | Array) -> Array:
    """E φ'(N(mean, deviation²)) of a piecewise quadratic φ: φ' = a + bx between neighbouring kinks."""
    mean, spread = mean[:, None], np.broadcast_to(deviation, mean.shape)[:, None]
    b = _at_middles(act, 2)
    a = _at_middles(act, 1) - b * _middles(act)
    z = (np.array(act.kinks) - mean) / spread
    below = np.concatenate([np.zeros((len(z), 1)), special.ndtr(z), np.ones((len(z), 1))], axis=1)
    density = np.pad(np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi), ((0, 0), (1, 1)))
    probability, edge = np.diff(below, axis=1), -np.diff(density, axis=1)
    return (probability * (a + b * mean) + spread * edge * b).sum(axis=1)


_GRADED = np.array([-8.0, -4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0])


def _panels(
    edges: Array, mean: Array, deviation: float, frequency: float
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Panels for N(mean, deviation²), one mean a row, between given edges: nodes, weights, rows."""
    count = max(8, math.ceil(2.0 * TAIL * deviation * frequency / RADIANS))
    bulk = mean[:, None] + deviation * np.linspace(-TAIL, TAIL, count + 1)
    ends = np.sort(np.concatenate([np.clip(edges, bulk[:, :1], bulk[:, -1:]), bulk], axis=1), axis=1)
    width = np.diff(ends, axis=1)
    row, column = np.nonzero(width > 1e-12 * deviation)
    half = 0.5 * width[row, column]
    x = half[:, None] * _NODES + (ends[row, column] + half)[:, None]
    z = (x - mean[row, None]) / deviation
    weight = (half / (deviation * math.sqrt(2.0 * math.pi)))[:, None] * _WEIGHTS * np.exp(-0.5 * z * z)
    return x, weight, row


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
