"""Duals of continuous or broken piecewise linear functions (hardtanh, ReLU6, softshrink …) for a whole batch.

φ = α + βx + Σ_k J_k 1[σ_k x > h_k] + Σ_k Δ_k (σ_k x − h_k)_+, so everything is moments of a bivariate
normal cut off at two thresholds (Rosenbaum 1961), which come down to its orthant probability and so to
Owen's T function (Owen 1956).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import special

from ..activations.core import Activation
from .pairs import Array

ROOT_2_PI = np.sqrt(2 * np.pi)


@dataclass(frozen=True)
class PiecewiseLinear:
    """intercept + slope · x + Σ steps · 1[side · x > threshold] + Σ bends · (side · x − threshold)_+.

    The straight part is that around 0; thresholds are >= 0 but for one at most, so that nothing cancels
    when the variance is too small to reach them.
    """

    intercept: float
    slope: float
    sides: tuple[float, ...]
    thresholds: tuple[float, ...]
    steps: tuple[float, ...]
    bends: tuple[float, ...]

    def derivative(self) -> PiecewiseLinear:
        """The derivative almost everywhere."""
        steps = tuple(side * bend for side, bend in zip(self.sides, self.bends, strict=True))
        return PiecewiseLinear(self.slope, 0.0, self.sides, self.thresholds, steps, (0.0,) * len(steps))


@lru_cache(maxsize=256)
def piecewise_linear(activation: Activation) -> PiecewiseLinear | None:
    """The activation in that form, or None when a piece of it is not linear."""
    kinks = activation.kinks
    if not kinks:
        return None
    inside = [kinks[0] - 1.0, *(0.5 * (a + b) for a, b in pairwise(kinks)), kinks[-1] + 1.0]
    for piece, x, width in zip(activation.pieces, inside, [4.0, *np.diff(kinks), 4.0], strict=True):
        some = x + width * np.linspace(-0.24, 0.24, 7)
        if np.any(np.abs(piece[2](some)) > 0) or np.ptp(piece[1](some)) > 0:
            return None
    middle = int(np.searchsorted(np.array(kinks), 0.0, side="right"))
    at = np.array([inside[middle]])
    slope = float(activation.pieces[middle][1](at)[0])
    sides = np.where(np.arange(len(kinks)) >= middle, 1.0, -1.0)
    return PiecewiseLinear(
        float(activation.pieces[middle][0](at)[0]) - slope * inside[middle],
        slope,
        tuple(sides.tolist()),
        tuple((sides * np.array(kinks)).tolist()),
        tuple((sides * activation.jumps(0)).tolist()),
        tuple(activation.jumps(1).tolist()),
    )


def piecewise_maps(fs: Sequence[PiecewiseLinear], q: Array, c: Array) -> tuple[list[Array], float]:
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
        values.append(f.intercept**2 + f.slope**2 * root[rows] * root[columns] * rho)
        sizes.append(np.abs(values[-1]))
    for j, h in enumerate(first.thresholds):
        for value, size, f in zip(values, sizes, fs, strict=True):
            _add_mixed(value, size, f, j, levels[h], root, rho, rows, columns)
        for k, g in enumerate(first.thresholds):
            # Symmetric functions come with equal thresholds on both sides, and so with equal cuts.
            key = (h, g, first.sides[j] * first.sides[k])
            if key not in cuts:
                cuts[key] = _Cut(levels[h], levels[g], rows, columns, key[2] * rho, sine)
            for value, size, f in zip(values, sizes, fs, strict=True):
                cuts[key].add(value, size, f, j, k, root[rows], root[columns])
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


def _add_mixed(
    value: Array,
    size: Array,
    f: PiecewiseLinear,
    j: int,
    level: _Threshold,
    root: Array,
    rho: Array,
    rows: Array,
    columns: Array,
) -> None:
    """The straight part of one factor with the j-th broken part of the other."""
    broken = f.steps[j] * level.tail + f.bends[j] * root * level.excess
    slope = f.steps[j] * level.density + f.bends[j] * root * level.tail
    for a, b in ((rows, columns), (columns, rows)):
        term = f.intercept * broken[b] + f.slope * f.sides[j] * root[a] * rho * slope[b]
        value += term
        size += np.abs(term)


class _Threshold:
    """Moments of Z above thresholds h (one for each variance)."""

    def __init__(self, h: Array) -> None:
        # A threshold of exactly 0 belongs to neither half line; which one it is given to does not matter.
        self.h = np.where(h == 0, -1e-300, h)
        self.density = np.exp(-0.5 * h * h) / ROOT_2_PI
        self.tail = special.ndtr(-h)
        self.excess = self.density - h * self.tail


class _Cut:
    """Moments of standard normals z_1 > h, z_2 > g of correlation rho, for all pairs."""

    def __init__(
        self, at: _Threshold, other: _Threshold, rows: Array, columns: Array, rho: Array, sine: Array
    ) -> None:
        h, g = at.h[rows], other.h[columns]
        with np.errstate(all="ignore"):
            above, beyond = (g - rho * h) / sine, (h - rho * g) / sine
            orthant = 0.5 * (at.tail[rows] + other.tail[columns])
            orthant -= special.owens_t(h, above / h) + special.owens_t(g, beyond / g)
            orthant -= np.where(h * g < 0, 0.5, 0.0)
        self.h, self.g, self.rho, self.orthant = h, g, rho, orthant
        self.edge_h = at.density[rows] * special.ndtr(-above)
        self.edge_g = other.density[columns] * special.ndtr(-beyond)
        self.density = sine * at.density[rows] * np.exp(-0.5 * above**2) / ROOT_2_PI

    def add(
        self, value: Array, size: Array, f: PiecewiseLinear, j: int, k: int, s_u: Array, s_v: Array
    ) -> None:
        """Add E of (J_j 1[u > h] + Δ_j (u − h)_+)(J_k 1[v > g] + Δ_k (v − g)_+), and its terms' magnitude."""
        h, g, rho, orthant, edge_h, edge_g = self.h, self.g, self.rho, self.orthant, self.edge_h, self.edge_g
        parts: list[tuple[Any, tuple[Array, ...]]] = []
        if f.steps[j] and f.steps[k]:
            parts.append((f.steps[j] * f.steps[k], (orthant,)))
        if f.bends[j] and f.steps[k]:
            parts.append((f.bends[j] * f.steps[k] * s_u, (edge_h, rho * edge_g, -h * orthant)))
        if f.steps[j] and f.bends[k]:
            parts.append((f.steps[j] * f.bends[k] * s_v, (edge_g, rho * edge_h, -g * orthant)))
        if f.bends[j] and f.bends[k]:
            terms = (rho * orthant, h * g * orthant, -g * edge_h, -h * edge_g, self.density)
            parts.append((f.bends[j] * f.bends[k] * s_u * s_v, terms))
        for factor, terms in parts:
            value += factor * sum(terms[1:], terms[0])
            size += np.abs(factor) * sum((np.abs(t) for t in terms[1:]), np.abs(terms[0]))
