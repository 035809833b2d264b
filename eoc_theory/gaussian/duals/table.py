"""The correlation dependence of a dual at one variance, c → E[φ(u)φ(v)] and E[φ'(u)φ'(v)], as a table.

In θ = arccos c both are smooth up to the ends even for kinked φ. Each is a piecewise polynomial in θ on
panels that are halved until it is resolved; next to θ = 0 the deficit Φ(1) − Φ(c) is kept as its ratio to θ²
(θ where φ jumps), so that it has relative accuracy down to the smallest 1 − c.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...activations import activation as resolve
from ...activations import evaluations
from ...activations.core import Activation
from ...base import checks
from ...errors import ArgumentError, ConvergenceError
from .. import effort, hermite_coefficients
from ..expectations import shortest_length
from .closed_forms import closed_dual
from .deficit import point_masses
from .localised import localised_slope
from .pairs import Array, Pairs
from .quadrature import dual_quadrature, inherited_error, second_moment

# Polynomials of this degree; a panel is resolved when its last coefficients are below ACCURACY.
DEGREE = 15
ACCURACY = 3e-14
NOISE = 1e-12
SHORTEST = 1e-7
ROUNDING = 1e-14
# So many widths of the narrowest peak of T are a panel to begin with, where that is below NARROW.
PEAK, NARROW = 8.0, 0.1
GROWTH = 1.5
# With this many terms Mehler's series serves all but the angles next to 0 and π.
TERMS = 2048
# What a few terms may leave of E φ'² where the last of them have died out.
UNSEEN = 1e-13


class DualTable:
    """Φ(c) = E[φ(u)φ(v)] and Φ'(c) = E[φ'(u)φ'(v)] at equal variances q, for fast repeated evaluation.

    Building takes between a millisecond and a second, an evaluation a few microseconds for a float. Accuracy:
    1e-12 of E φ² and E φ'²; the deficit relative to itself for c ≥ 0.

    Args:
        activation: anything :func:`eoc_theory.activation` accepts.
        q: variance > 0.

    Raises:
        ConvergenceError: it takes too much work, some five seconds' worth, or cannot be resolved.

    Attributes:
        phi_at_one, dphi_at_one: E φ(√q Z)² and E φ'(√q Z)² (φ' almost everywhere).
        error: estimated largest errors of `phi` and `dphi`, relative to phi_at_one and dphi_at_one.
    """

    def __new__(cls, activation: Any, q: float) -> DualTable:
        return _table(resolve(activation), checks.positive("q", q))

    activation: Activation
    q: float
    phi_at_one: float
    dphi_at_one: float
    error: tuple[float, float]

    def _build(self, activation: Activation, q: float) -> None:
        self.activation, self.q = activation, q
        self.phi_at_one = second_moment(activation, q, 0)
        self.dphi_at_one = second_moment(activation, q, 1)
        self._power = 1 if np.any(activation.jumps(0)) else 2
        slopes_of = _Slopes(activation, q, self._power)
        with evaluations.counting(effort.allowance(activation, effort.MOST_OF_A_DUAL)):
            panels = _resolved_panels(slopes_of)
        # The deficit is an integral of what is uncertain by that much relative to its largest value.
        missed = slopes_of.error + ROUNDING
        share = q * self.dphi_at_one * missed / self.phi_at_one if self.phi_at_one > 0.0 else 0.0
        self.error = (2.0 * share + ROUNDING + 2.0 * inherited_error(activation, q, 0), missed)
        self._edges = [low for low, _, _ in panels]
        x = _points()
        transform = _transform()
        gauss, weights = np.polynomial.legendre.leggauss(DEGREE + 5)
        self._dphi: list[list[float]] = []
        self._deficit: list[list[float]] = []
        so_far = 0.0
        for low, high, (slopes, dphi) in panels:
            theta = low + 0.5 * (high - low) * (1 + x)
            # slopes holds d(deficit)/dθ divided by sin θ (by nothing where φ jumps), which is what is smooth.
            coefficients = transform @ slopes

            def integral(end: Array, low: float = low, high: float = high, c: Array = coefficients) -> Array:
                t = low + 0.5 * (end - low)[:, None] * (1 + gauss)
                values = np.polynomial.chebyshev.chebval((2 * t - low - high) / (high - low), c)
                if self._power == 2:
                    values = values * np.sin(t)
                return 0.5 * (end - low) * (values @ weights)

            # Further on the ratio has its pole next to the panel, and is no such polynomial.
            divisor = theta**self._power if low == 0.0 else 1.0
            deficit = (so_far + integral(theta)) / divisor
            so_far += float(integral(np.array([high]))[0])
            self._deficit.append((transform @ deficit)[::-1].tolist())
            self._dphi.append((transform @ dphi)[::-1].tolist())
        self._high = [high for _, high, _ in panels]
        # Where the deficit is kept as a ratio: everywhere, if there is one panel.
        self._ratio_below = self._high[0] if len(panels) > 1 else math.inf

    def deficit(self, one_minus_c: Any) -> Any:
        """Φ(1) − Φ(c); float for a float, array otherwise."""
        if isinstance(one_minus_c, float):
            theta = 2.0 * math.atan2(math.sqrt(one_minus_c), math.sqrt(2.0 - one_minus_c))
            value = self._at(self._deficit, theta)
            if theta >= self._ratio_below:
                return value
            return value * (theta * theta if self._power == 2 else theta)
        theta = _angle(one_minus_c)
        factor = np.where(theta < self._ratio_below, theta**self._power, 1.0)
        return self._many(self._deficit, theta) * factor

    def phi(self, c: ArrayLike | None = None, *, one_minus_c: ArrayLike | None = None) -> Any:
        """Φ(c); give c or 1 − c, floats or arrays."""
        return self.phi_at_one - self.deficit(_gap(c, one_minus_c))

    def dphi(self, c: ArrayLike | None = None, *, one_minus_c: ArrayLike | None = None) -> Any:
        """E[φ'(u)φ'(v)]; give c or 1 − c, floats or arrays."""
        gap = _gap(c, one_minus_c)
        if isinstance(gap, float):
            return self._at(self._dphi, 2.0 * math.atan2(math.sqrt(gap), math.sqrt(2.0 - gap)))
        return self._many(self._dphi, _angle(gap))

    def _at(self, table: list[list[float]], theta: float) -> float:
        i = bisect_right(self._edges, theta) - 1
        low, high = self._edges[i], self._high[i]
        twice = 2.0 * (2.0 * theta - low - high) / (high - low)
        value = before = older = 0.0
        for coefficient in table[i]:  # Clenshaw, highest degree first
            older, before = before, value
            value = twice * before - older + coefficient
        return value - 0.5 * twice * before

    def _many(self, table: list[list[float]], theta: Array) -> Array:
        edges, high = np.array(self._edges), np.array(self._high)
        i = np.searchsorted(edges, theta, side="right") - 1
        x = (2.0 * theta - edges[i] - high[i]) / (high[i] - edges[i])
        coefficients = np.array(table)[i]
        value = before = np.zeros_like(theta)
        for k in range(DEGREE + 1):
            before, value = value, 2.0 * x * value - before + coefficients[..., k]
        return value - x * before


@lru_cache(maxsize=256)
def _table(activation: Activation, q: float) -> DualTable:
    """The dual activation at one variance, as a table over the correlation."""
    table = object.__new__(DualTable)
    table._build(activation, q)
    return table


def _gap(c: ArrayLike | None, one_minus_c: ArrayLike | None) -> Any:
    if (c is None) == (one_minus_c is None):
        raise ArgumentError("give exactly one of c and one_minus_c")
    gap = one_minus_c if c is None else 1.0 - (c if isinstance(c, float) else np.asarray(c, dtype=np.float64))
    if isinstance(gap, float):
        if not 0.0 <= gap <= 2.0:
            raise ArgumentError(f"one_minus_c must lie in [0, 2], got {gap:g}")
        return float(gap)
    gap = np.asarray(gap, dtype=np.float64)
    if not np.all((gap >= 0) & (gap <= 2)):
        raise ArgumentError("one_minus_c must lie in [0, 2] everywhere")
    return gap


def _angle(one_minus_c: ArrayLike) -> Array:
    gap = np.asarray(one_minus_c, dtype=np.float64)
    return 2.0 * np.arctan2(np.sqrt(gap), np.sqrt(2.0 - gap))


def _points() -> Array:
    return np.cos(np.pi * (np.arange(DEGREE + 1)[::-1] + 0.5) / (DEGREE + 1))


@lru_cache(maxsize=1)
def _transform() -> Array:
    """Values at the points → Chebyshev coefficients."""
    k = np.arange(DEGREE + 1)
    matrix = 2.0 / (DEGREE + 1) * np.cos(k[:, None] * np.arccos(_points()))
    matrix[0] *= 0.5
    return matrix


class _Slopes:
    """E[φ'(u)φ'(v)] and the deficit's slope at given angles, each by the cheapest method that is exact
    there.
    """

    def __init__(self, activation: Activation, q: float, power: int) -> None:
        self.activation, self.q, self.power = activation, q, power
        self.jumps = activation.jumps(0)
        self.scale = second_moment(activation, q, 1)
        self.spectrum: Array | None = None
        self.seen: dict[float, float] = {}
        self.localised = localised_slope(activation, q)
        # Largest error of the quadrature and of the panels, relative to E[φ'²].
        self.noise = self.left_out = 0.0

    @property
    def error(self) -> float:
        """Of E[φ'(u)φ'(v)] relative to E[φ'²], of what was computed so far."""
        return self.noise + self.left_out + 2.0 * inherited_error(self.activation, self.q, 1)

    def __call__(self, theta: Array) -> tuple[Array, Array]:
        dphi = self._dphi(theta)
        if self.power == 2:
            return self.q * dphi, dphi
        masses = [point_masses(self.activation, self.q, float(t), 0, self.jumps) for t in theta]
        return self.q * np.sin(theta) * dphi + np.array(masses), dphi

    def _dphi(self, theta: Array) -> Array:
        q, act = np.full(theta.shape, self.q), self.activation
        closed = closed_dual(
            act, Pairs(q, q, np.cos(theta), 2 * np.sin(theta / 2) ** 2, 2 * np.cos(theta / 2) ** 2), 1, 1
        )
        if closed is not None:
            return closed[0]
        result = np.empty_like(theta)
        series = self._series(theta, result)
        if self.localised is not None:
            result[~series] = self.localised.dual(self.q, theta[~series])
            return result
        for i in np.flatnonzero(~series):
            t = float(theta[i])
            twin = math.pi - t
            if act.parity is not None and twin in self.seen:
                result[i] = self.seen[twin] * (1 if act.parity == "odd" else -1)
            else:
                result[i], error = dual_quadrature(act, self.q, self.q, math.cos(t), math.sin(t), 1, 1)
                if evaluations.exhausted():
                    raise ConvergenceError(
                        f"the correlation map of {act.name} at q = {self.q:g} is too costly: it takes more "
                        f"than {effort.MOST_OF_A_DUAL} evaluations; a function that is smoother or faster "
                        "is accepted"
                    )
                self.noise = max(self.noise, error / self.scale)
            self.seen[t] = float(result[i])
        return result

    def _series(self, theta: Array, result: Array) -> Array:
        """Fill in what Mehler's series gives to rounding; returns where it did."""
        square = self.spectrum
        if square is None:
            short = hermite_coefficients(self.activation, self.q, 128, 1)[0]
            smooth = float(np.sum(short[-32:] ** 2)) < 1e-16 * self.scale
            # The terms of a fast wave begin far behind these.
            smooth = smooth and self.scale - float(np.sum(short**2)) < UNSEEN * self.scale
            few = short if smooth else hermite_coefficients(self.activation, self.q, TERMS, 1)[0]
            square = self.spectrum = few**2
        n = len(square)
        left = float(np.sum(square[-n // 4 :])) if n == 128 else max(self.scale - float(square.sum()), 0.0)
        good = np.abs(np.cos(theta)) ** n * left <= 1e-15 * self.scale
        if good.any():
            c = np.cos(theta[good])
            value = np.zeros_like(c)
            for a in square[::-1]:
                value = value * c + a
            result[good] = value
        return good


def _first_ends(activation: Activation, q: float) -> list[float]:
    """Ends of the panels to begin with: a wave's T may be 0 but next to 0 and π, which points would miss.

    From there on they grow with θ, as the deficit's ratio to θ² asks for.
    """
    narrow = PEAK / math.sqrt(1.0 + q / shortest_length(activation) ** 2)
    if not activation.oscillation or narrow >= NARROW:
        return [0.0, math.pi]
    last = math.pi - narrow
    growing = narrow * GROWTH ** np.arange(math.log(last / narrow) / math.log(GROWTH) - 0.5)
    return [0.0, *growing.tolist(), last, math.pi]


def _resolved_panels(f: _Slopes) -> list[tuple[float, float, tuple[Array, Array]]]:
    """Panels over [0, π] on which both functions are polynomials of the table's degree, with their values."""
    ends, shortest = _first_ends(f.activation, f.q), SHORTEST
    if len(ends) > 2:
        shortest *= ends[1] / NARROW
    todo = [(low, high, math.inf) for low, high in pairwise(ends)][::-1]
    done = []
    x = _points()
    scales = [1e-300, 1e-300]
    while todo:
        low, high, before = todo.pop()
        values = f(low + 0.5 * (high - low) * (1 + x))
        unresolved = 0.0
        for i, v in enumerate(values):
            scales[i] = max(scales[i], float(np.max(np.abs(v))))
            unresolved = max(unresolved, float(np.max(np.abs((_transform() @ v)[-2:]))) / scales[i])
        # What halving does not improve is the quadrature's own noise.
        if unresolved <= ACCURACY or (unresolved <= NOISE and unresolved > 0.3 * before):
            done.append((low, high, values))
            f.left_out = max(f.left_out, unresolved)
        elif high - low < shortest:
            raise ConvergenceError(
                f"the correlation map of {f.activation.name} at q = {f.q:g} cannot be resolved"
            )
        else:
            middle = 0.5 * (low + high)
            todo += [(middle, high, unresolved), (low, middle, unresolved)]
    return sorted(done, key=lambda panel: panel[0])
