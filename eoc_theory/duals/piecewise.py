"""Duals of continuous or broken piecewise linear functions (hardtanh, ReLU6, softshrink …) for a whole batch.

φ = α + βx + Σ_k J_k 1[σ_k x > h_k] + Σ_k Δ_k (σ_k x − h_k)_+, so everything is moments of a bivariate normal cut off at two
thresholds (Rosenbaum 1961), which come down to its orthant probability and so to Owen's T function (Owen 1956).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from ..activations.core import Activation
from .pairs import Array

ROOT_2_PI = np.sqrt(2 * np.pi)


@dataclass(frozen=True)
class PiecewiseLinear:
    """intercept + slope · x + Σ steps · 1[side · x > threshold] + Σ bends · (side · x − threshold)_+.

    The straight part is that around 0; thresholds are >= 0 but for one at most, so that nothing cancels when the
    variance is too small to reach them.
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
    inside = [kinks[0] - 1.0, *(0.5 * (a + b) for a, b in zip(kinks[:-1], kinks[1:], strict=True)), kinks[-1] + 1.0]
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


def piecewise_map(f: PiecewiseLinear, q: Array, c: Array) -> tuple[Array, float]:
    """E[f(u_i) f(u_j)], shape (B, B), and its rounding error relative to √(E f_i² E f_j²)."""
    rows, columns = np.tril_indices(len(q))
    rho = c[rows, columns]
    sine = np.sqrt(np.maximum((1 - rho) * (1 + rho), 0.0))
    np.maximum(sine, 1e-30, out=sine)
    root = np.sqrt(np.maximum(q, 1e-200))
    value = f.intercept**2 + f.slope**2 * root[rows] * root[columns] * rho
    size = np.abs(value)
    one = [_Threshold(threshold / root) for threshold in f.thresholds]
    for j, at in enumerate(one):
        # The straight part of one factor with the broken part of the other.
        step = f.steps[j] * at.tail
        bend = f.bends[j] * root * at.excess
        for a, b in ((rows, columns), (columns, rows)):
            mixed = f.slope * f.sides[j] * root[a] * rho * (f.steps[j] * at.density + f.bends[j] * root * at.tail)[b]
            term = f.intercept * (step + bend)[b] + mixed
            value += term
            size += np.abs(term)
        for k, other in enumerate(one):
            a, b = (at, rows), (other, columns)
            term, part = _cut_moments(f, j, k, a, b, root, f.sides[j] * f.sides[k] * rho, sine)
            value += term
            size += part
    out = np.empty_like(c)
    out[rows, columns] = value
    out[columns, rows] = value
    scale = np.sqrt(np.diagonal(out))
    pairs = scale[rows] * scale[columns]
    with np.errstate(all="ignore"):
        error = np.where(pairs > 0, 8 * np.finfo(float).eps * size / pairs, 0.0)
    return out, float(error.max())


class _Threshold:
    """Moments of Z above thresholds h (one for each variance)."""

    def __init__(self, h: Array) -> None:
        # A threshold of exactly 0 belongs to neither half line; which one it is given to does not matter.
        self.h = np.where(h == 0, -1e-300, h)
        self.density = np.exp(-0.5 * h * h) / ROOT_2_PI
        self.tail = special.ndtr(-h)
        self.excess = self.density - h * self.tail


def _cut_moments(
    f: PiecewiseLinear,
    j: int,
    k: int,
    first: tuple[_Threshold, Array],
    second: tuple[_Threshold, Array],
    root: Array,
    rho: Array,
    sine: Array,
) -> tuple[Array, Array]:
    """E of (J_j 1[u > h_j] + Δ_j (u − h_j)_+)(J_k 1[v > h_k] + Δ_k (v − h_k)_+), and its terms' magnitude."""
    (at, rows), (other, columns) = first, second
    h, g = at.h[rows], other.h[columns]
    with np.errstate(all="ignore"):
        above, beyond = (g - rho * h) / sine, (h - rho * g) / sine
        orthant = 0.5 * (at.tail[rows] + other.tail[columns])
        orthant -= special.owens_t(h, above / h) + special.owens_t(g, beyond / g)
        orthant -= np.where(h * g < 0, 0.5, 0.0)
    edge_h = at.density[rows] * special.ndtr(-above)
    edge_g = other.density[columns] * special.ndtr(-beyond)
    value, size = np.zeros_like(rho), np.zeros_like(rho)
    s_u, s_v = root[rows], root[columns]
    parts = []
    if f.steps[j] and f.steps[k]:
        parts.append((f.steps[j] * f.steps[k], (orthant,)))
    if f.bends[j] and f.steps[k]:
        parts.append((f.bends[j] * f.steps[k] * s_u, (edge_h, rho * edge_g, -h * orthant)))
    if f.steps[j] and f.bends[k]:
        parts.append((f.steps[j] * f.bends[k] * s_v, (edge_g, rho * edge_h, -g * orthant)))
    if f.bends[j] and f.bends[k]:
        density = sine * at.density[rows] * np.exp(-0.5 * above**2) / ROOT_2_PI
        terms = (rho * orthant, h * g * orthant, -g * edge_h, -h * edge_g, density)
        parts.append((f.bends[j] * f.bends[k] * s_u * s_v, terms))
    for factor, terms in parts:
        value = value + factor * sum(terms[1:], terms[0])
        size = size + np.abs(factor) * sum((np.abs(t) for t in terms[1:]), np.abs(terms[0]))
    return value, size
