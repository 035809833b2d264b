"""Duals of piecewise linear and quadratic functions (hardtanh, ReLU6, softshrink, hardswish …) for a whole
batch.

φ = α + βx + γx² + Σ_k (J_k 1[w_k > 0] + Δ_k (w_k)_+ + Γ_k (w_k)_+²/2), w_k = σ_k x − h_k, so everything is
moments of a bivariate normal cut off at two thresholds (Rosenbaum 1961), which come down to its orthant
probability and so to Owen's T function (Owen 1956).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import special

from ...activations.core import Activation
from .pairs import Array

ROOT_2_PI = np.sqrt(2 * np.pi)


@dataclass(frozen=True)
class PiecewiseQuadratic:
    """A polynomial around 0, and what kinks on either side add to it.

    Thresholds are >= 0 but for one at most, so that nothing cancels when the variance is too small to reach
    them.

    Attributes:
        base: (α, β, γ).
        sides: σ_k, 1 for kinks to the right of 0 and -1 for those to the left.
        thresholds: h_k = σ_k · kink.
        parts: (J_k, Δ_k, Γ_k) for each kink.
    """

    base: tuple[float, float, float]
    sides: tuple[float, ...]
    thresholds: tuple[float, ...]
    parts: tuple[tuple[float, float, float], ...]

    def derivative(self) -> PiecewiseQuadratic:
        """The derivative almost everywhere."""
        parts = tuple(
            (s * bend, s * curve, 0.0) for s, (_, bend, curve) in zip(self.sides, self.parts, strict=True)
        )
        return PiecewiseQuadratic((self.base[1], 2 * self.base[2], 0.0), self.sides, self.thresholds, parts)


@lru_cache(maxsize=256)
def piecewise_quadratic(activation: Activation) -> PiecewiseQuadratic | None:
    """The activation in that form, or None when a piece of it is not a polynomial of degree two at most."""
    kinks = activation.kinks
    if not kinks:
        return None
    inside = [kinks[0] - 1.0, *(0.5 * (a + b) for a, b in pairwise(kinks)), kinks[-1] + 1.0]
    for piece, x, width in zip(activation.pieces, inside, [4.0, *np.diff(kinks), 4.0], strict=True):
        some = np.concatenate([x + width * np.linspace(-0.24, 0.24, 7), _structure(activation, x)])
        if np.any(np.abs(piece[3](some)) > 0) or np.ptp(piece[2](some)) > 0:
            return None
    middle = int(np.searchsorted(np.array(kinks), 0.0, side="right"))
    x = inside[middle]
    value, slope, curve = (float(activation.pieces[middle][order](np.array([x]))[0]) for order in range(3))
    sides = np.where(np.arange(len(kinks)) >= middle, 1.0, -1.0)
    jumps = [activation.jumps(order) for order in range(3)]
    return PiecewiseQuadratic(
        (value - slope * x + 0.5 * curve * x * x, slope - curve * x, 0.5 * curve),
        tuple(sides.tolist()),
        tuple((sides * np.array(kinks)).tolist()),
        tuple(zip((sides * jumps[0]).tolist(), jumps[1].tolist(), (sides * jumps[2]).tolist(), strict=True)),
    )


def _structure(activation: Activation, inside: float) -> Array:
    """Points around the centres of the structure that lie on the piece around `inside`.

    Between a few points a narrow bump would not be met.
    """
    centres = np.array(activation.scale_points)[:, None]
    points = (centres + activation.length_scale * np.array([-1.3, -0.6, 0.0, 0.6, 1.3])).ravel()
    kinks = np.array(activation.kinks)
    return points[np.searchsorted(kinks, points) == np.searchsorted(kinks, inside)]


def piecewise_maps(fs: Sequence[PiecewiseQuadratic], q: Array, c: Array) -> tuple[list[Array], float]:
    """E[f(u_i) f(u_j)], shape (B, B), for each f, which share their thresholds; and their largest rounding
    error relative to √(E f_i² E f_j²).
    """
    rows, columns = np.tril_indices(len(q))
    rho = c[rows, columns]
    sine = np.sqrt(np.maximum((1 - rho) * (1 + rho), 0.0))
    np.maximum(sine, 1e-30, out=sine)
    root = np.sqrt(np.maximum(q, 1e-200))
    first = fs[0]
    levels = {h: _Threshold(h / root) for h in first.thresholds}
    cuts: dict[tuple[float, float, float], _Cut] = {}
    values, sizes = [], []
    for f in fs:
        values.append(_smooth(f, root[rows], root[columns], rho))
        sizes.append(np.abs(values[-1]))
    for j, h in enumerate(first.thresholds):
        for value, size, f in zip(values, sizes, fs, strict=True):
            for a, b in ((rows, columns), (columns, rows)):
                term = _mixed(f, j, levels[h], root, rho, a, b)
                value += term
                size += np.abs(term)
        for k, g in enumerate(first.thresholds):
            # Symmetric functions come with equal thresholds on both sides, and so with equal cuts.
            key = (h, g, first.sides[j] * first.sides[k])
            if key not in cuts:
                cuts[key] = _Cut(levels[h], levels[g], rows, columns, key[2] * rho, sine)
            for value, size, f in zip(values, sizes, fs, strict=True):
                cuts[key].add(value, size, f.parts[j], f.parts[k], root[rows], root[columns])
    maps, error = [], 1e-14
    for value, size in zip(values, sizes, strict=True):
        out = np.empty_like(c)
        out[rows, columns] = value
        out[columns, rows] = value
        scale = np.sqrt(np.maximum(np.diagonal(out), 0.0))
        pairs = scale[rows] * scale[columns]
        with np.errstate(all="ignore"):
            error = max(
                error, float(np.max(np.where(pairs > 0, 8 * np.finfo(float).eps * size / pairs, 0.0)))
            )
        maps.append(out)
    # Owen's T is absolutely, not relatively exact: what matters where only the Gaussian's tail reaches the
    # kinks.
    in_tail = max(float(np.min(np.abs(level.h))) for level in levels.values()) > 4
    return maps, max(error, 1e-9) if in_tail else error


def _smooth(f: PiecewiseQuadratic, s_u: Array, s_v: Array, rho: Array) -> Array:
    """The polynomial parts with each other."""
    alpha, beta, gamma = f.base
    value = alpha**2 + beta**2 * s_u * s_v * rho
    if gamma:
        value += alpha * gamma * (s_u**2 + s_v**2) + gamma**2 * (s_u * s_v) ** 2 * (1 + 2 * rho**2)
    return value


def _mixed(
    f: PiecewiseQuadratic, j: int, level: _Threshold, root: Array, rho: Array, smooth: Array, broken: Array
) -> Array:
    """The polynomial part of the factors at `smooth` with the j-th broken part of those at `broken`."""
    alpha, beta, gamma = f.base
    # E[g], E[Z g] and E[Z² g] of the broken part g, for each variance.
    moments = np.zeros((3, len(root)))
    for r, part in enumerate(f.parts[j]):
        if part:
            scaled = part * root**r / (2 if r == 2 else 1)
            for power in range(3 if gamma else 2):
                moments[power] += scaled * level.moment(r, power)
    value = alpha * moments[0][broken] + beta * f.sides[j] * root[smooth] * rho * moments[1][broken]
    if gamma:
        # Given v, u² is q_u ((1 − ρ²) + ρ² z_v²) in the mean.
        value += gamma * root[smooth] ** 2 * ((1 - rho**2) * moments[0][broken] + rho**2 * moments[2][broken])
    return value


class _Threshold:
    """Moments of Z above thresholds h (one for each variance)."""

    def __init__(self, h: Array) -> None:
        # A threshold of exactly 0 belongs to neither half line; which one it is given to does not matter.
        self.h = np.where(h == 0, -1e-300, h)
        self.density = np.exp(-0.5 * h * h) / ROOT_2_PI
        self.tail = special.ndtr(-h)
        # E (Z − h)_+^r for r = 0 … 4
        self.excess = [self.tail, self.density - h * self.tail]
        for r in range(1, 4):
            self.excess.append(r * self.excess[r - 1] - h * self.excess[r])

    def moment(self, r: int, power: int) -> Array:
        """E Z^power (Z − h)_+^r."""
        if power == 0:
            return self.excess[r]
        if power == 1:
            return self.excess[r + 1] + self.h * self.excess[r]
        return self.excess[r + 2] + 2 * self.h * self.excess[r + 1] + self.h**2 * self.excess[r]


class _Cut:
    """Moments M_rs = E (z_1 − h)_+^r (z_2 − g)_+^s of standard normals of correlation rho, for all pairs."""

    def __init__(
        self, at: _Threshold, other: _Threshold, rows: Array, columns: Array, rho: Array, sine: Array
    ) -> None:
        h, g = at.h[rows], other.h[columns]
        with np.errstate(all="ignore"):
            above, beyond = (g - rho * h) / sine, (h - rho * g) / sine
            orthant = 0.5 * (at.tail[rows] + other.tail[columns])
            orthant -= special.owens_t(h, above / h) + special.owens_t(g, beyond / g)
            orthant -= np.where(h * g < 0, 0.5, 0.0)
        self.h, self.g, self.rho = h, g, rho
        self.edge_h = at.density[rows] * special.ndtr(-above)
        self.edge_g = other.density[columns] * special.ndtr(-beyond)
        self.density = sine * at.density[rows] * np.exp(-0.5 * above**2) / ROOT_2_PI
        self.known = {(0, 0): (orthant, np.abs(orthant))}

    def moment(self, r: int, s: int) -> tuple[Array, Array]:
        """M_rs and the magnitude of its terms, by Stein's lemma from those of lower order."""
        if (r, s) not in self.known:
            terms = self._terms(r, s)
            self.known[r, s] = sum(terms[1:], terms[0]), sum((np.abs(t) for t in terms[1:]), np.abs(terms[0]))
        return self.known[r, s]

    def _terms(self, r: int, s: int) -> list[Array]:
        h, g, rho, edge_h, edge_g = self.h, self.g, self.rho, self.edge_h, self.edge_g
        orthant = self.known[0, 0][0]
        if (r, s) == (1, 0):
            return [edge_h, rho * edge_g, -h * orthant]
        if (r, s) == (0, 1):
            return [edge_g, rho * edge_h, -g * orthant]
        if (r, s) == (1, 1):
            return [rho * orthant, h * g * orthant, -g * edge_h, -h * edge_g, self.density]
        if (r, s) == (2, 0):
            return [orthant, rho * self.density, rho * (rho * g - h) * edge_g, -h * self.moment(1, 0)[0]]
        if (r, s) == (0, 2):
            return [orthant, rho * self.density, rho * (rho * h - g) * edge_h, -g * self.moment(0, 1)[0]]
        if (r, s) == (1, 2):
            return [self.moment(1, 0)[0], rho * self.moment(0, 1)[0], -g * self.moment(1, 1)[0]]
        # (2, 1) and (2, 2)
        lower = self.moment(1, s - 1)[0]
        return [self.moment(0, s)[0], s * rho * lower, -h * self.moment(1, s)[0]]

    def add(
        self,
        value: Array,
        size: Array,
        first: tuple[float, float, float],
        second: tuple[float, float, float],
        s_u: Array,
        s_v: Array,
    ) -> None:
        """Add the product of two broken parts, and the magnitude of its terms."""
        for r, a in enumerate(first):
            for s, b in enumerate(second):
                if a and b:
                    factor = a * b * s_u**r * s_v**s / ((2 if r == 2 else 1) * (2 if s == 2 else 1))
                    moment, magnitude = self.moment(r, s)
                    value += factor * moment
                    size += np.abs(factor) * magnitude
