"""Φ(1) − Φ(c) at equal variances with relative accuracy, however small 1 − c is.

Price's theorem gives d/dθ of it as q sin θ E[φ^(m+1)(u) φ^(m+1)(v)], θ = arccos c, a sum of positive terms
near θ = 0; integrating that from 0 cancels nothing. Where φ^(m) jumps, φ^(m+1) has point masses: their
products with the smooth part and with each other are added in closed form (the latter is the bivariate
normal density, which makes the deficit fall like θ instead of θ²).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...activations import activation as resolve
from ...activations.core import HIGHEST_ORDER, Activation
from ...errors import ArgumentError
from .. import Estimate
from ..rules import GAUSS_PANEL, KRONROD, NODES, TAIL
from .pairs import Array, make_pairs
from .quadrature import EPS, kronrod, second_moment
from .single import (
    EXPONENTS,
    SMALLEST,
    TERMS,
    derivative_order,
    one_pair,
    spectrum,
)

ACCURACY = 3e-13
MOST_HALVINGS = 40


def dual_deficit(activation: Any, q: ArrayLike, one_minus_c: ArrayLike, order: int = 0) -> Estimate:
    """Φ(1) − Φ(c) for Φ(c) = E[f(u) f(v)], f = φ^(order), u and v both of variance q and correlation c.

    The error is relative to the value: below 1e-12 of it for the built-in activations and c ≥ 0, down to
    1 − c = 1e-300. (For negative c an even f can make the true value vanish; then the error is relative to
    the larger values that it has on the way.) An iteration of 1 − c through many layers keeps its digits
    with it.

    Args:
        activation: anything :func:`eoc_theory.activation` accepts.
        q: variance ≥ 0, broadcast with one_minus_c.
        one_minus_c: 1 − c in [0, 2].
        order: 0, 1 or 2, of a derivative almost everywhere; its jumps count.

    Returns:
        Value and estimated absolute error, of the broadcast shape.

    Raises:
        ArgumentError: a parameter is outside its range.
    """
    act = resolve(activation)
    m = derivative_order("order", order)
    if m == HIGHEST_ORDER:
        raise ArgumentError(f"order must be 0 to {HIGHEST_ORDER - 1}, got {m}")
    pairs = make_pairs(q, q, None, one_minus_c)
    value, error = np.empty(pairs.c.shape), np.empty(pairs.c.shape)
    for i in np.ndindex(pairs.c.shape):
        value[i], error[i] = deficit(act, float(pairs.q_a[i]), float(pairs.one_minus_c[i]), m)
    return Estimate(value[()], error[()])


def deficit(act: Activation, q: float, one_minus_c: float, order: int) -> tuple[float, float]:
    """As :func:`dual_deficit` for floats in range."""
    if one_minus_c == 0.0 or q == 0.0:
        return 0.0, 0.0
    q = max(q, SMALLEST)
    if act.closed_form is None and not np.any(act.jumps(order)):
        a = spectrum(act, q, order + 1)
        if a.tail <= 1e-15 * a.square:
            # 1 − c^k = −expm1(k log c) for c near 1, and no cancellation for the rest.
            k = EXPONENTS + 1
            lost = (
                -np.expm1(k * math.log1p(-one_minus_c)) if one_minus_c < 0.5 else 1 - (1 - one_minus_c) ** k
            )
            terms = q * a.coefficients**2 / k * lost
            return float(terms.sum()), q * min(a.tail * one_minus_c, 2 * a.tail / TERMS) + 16 * EPS * float(
                np.abs(terms).sum()
            )
    top = second_moment(act, q, order)
    value, error = one_pair(act, q, q, one_minus_c, order, order)
    error += 4 * EPS * top
    if error <= ACCURACY * (top - value):
        return top - value, error
    return _integral(act, q, 2 * math.atan2(math.sqrt(one_minus_c), math.sqrt(2 - one_minus_c)), order)


def _integral(act: Activation, q: float, theta: float, order: int) -> tuple[float, float]:
    """∫_0^θ of the slope, by panels that are halved where they are not good enough."""
    # The deficit is smooth in θ on the scale of φ's structure in units of √q.
    width = structure_width(act, q)
    if theta <= 0.3 * width:
        value, _ = _gauss(act, q, theta, order, 8)
        rougher, error = _gauss(act, q, theta, order, 5)
        # The error of 5 points is far above that of 8: its 1.5th power still bounds it.
        return value, error + abs(value) * min(
            1.0, (200 * abs(value - rougher) / abs(value)) ** 1.5 if value else 0
        )
    panels = {(0.0, min(theta, width)): _panel(act, q, 0.0, min(theta, width), order)}
    if theta > width:
        panels[width, theta] = _panel(act, q, width, theta, order)
    for _ in range(MOST_HALVINGS):
        worst = max(panels, key=lambda ends: panels[ends][1])
        if sum(p[1] for p in panels.values()) <= ACCURACY * abs(sum(p[0] for p in panels.values())):
            break
        middle = 0.5 * (worst[0] + worst[1])
        del panels[worst]
        panels[worst[0], middle] = _panel(act, q, worst[0], middle, order)
        panels[middle, worst[1]] = _panel(act, q, middle, worst[1], order)
    return sum(p[0] for p in panels.values()), sum(p[1] for p in panels.values())


def _gauss(act: Activation, q: float, theta: float, order: int, points: int) -> tuple[float, float]:
    x, w = np.polynomial.legendre.leggauss(points)
    values = [slope(act, q, 0.5 * theta * (1 + float(t)), order) for t in x]
    return (
        0.5 * theta * sum(float(b) * v[0] for b, v in zip(w, values, strict=True)),
        0.5 * theta * sum(float(b) * v[1] for b, v in zip(w, values, strict=True)),
    )


def _panel(act: Activation, q: float, low: float, high: float, order: int) -> tuple[float, float]:
    half, middle = 0.5 * (high - low), 0.5 * (high + low)
    values = np.array([slope(act, q, middle + half * float(t), order) for t in NODES])
    value, error = kronrod(values[:, 0], np.array(half))
    return float(value), float(error + half * (values[:, 1] @ KRONROD))


def structure_width(act: Activation, q: float) -> float:
    """The angle over which Φ changes: φ's smallest length in units of √q."""
    lengths = [act.length_scale, *np.diff(act.kinks), *(abs(k) for k in act.kinks if k != 0)]
    if act.oscillation:
        lengths.append(1 / act.oscillation)
    return min(0.5, min(lengths) / math.sqrt(q))


def slope(act: Activation, q: float, theta: float, order: int) -> tuple[float, float]:
    """d/dθ of Φ(1) − Φ(cos θ), with its error."""
    sine = math.sin(theta)
    value, error = one_pair(act, q, q, 2 * math.sin(0.5 * theta) ** 2, order + 1, order + 1)
    jumps = act.jumps(order)
    value, error = q * sine * value, q * sine * error
    if np.any(jumps):
        more = point_masses(act, q, theta, order, jumps)
        value, error = value + more, error + 16 * EPS * abs(more)
    return value, error


def point_masses(act: Activation, q: float, theta: float, order: int, jumps: Array) -> float:
    """q sin θ times what the point masses J_k δ(x − x_k) of φ^(order+1) contribute to its dual."""
    sine, cosine, root = math.sin(theta), math.cos(theta), math.sqrt(q)
    total = float(jump_products(act, jumps, q, np.array(theta)))
    for x, jump in zip(act.kinks, jumps, strict=True):
        if jump:
            density = math.exp(-0.5 * x * x / q) / math.sqrt(2 * math.pi * q)
            total += 2 * q * sine * jump * density * _given(act, order + 1, x * cosine, root * sine)
    return total


def jump_products(act: Activation, jumps: Array, q: float | Array, theta: Array) -> Array:
    """Σ_jk J_j J_k q sin θ p(x_j, x_k) over kinks, p the density at variance q and correlation cos θ."""
    sine2, cosine2 = np.sin(theta) ** 2, np.cos(0.5 * theta) ** 2
    total = np.zeros_like(theta)
    for x, jump in zip(act.kinks, jumps, strict=True):
        for y, other in zip(act.kinks, jumps, strict=True):
            if not (jump and other):
                continue
            # (x² + y² − 2xy cos θ)/sin² θ, written so that neither x = y nor x = −y cancels.
            exponent = ((x - y) ** 2 / sine2 + x * y / cosine2) / (2.0 * q)
            if x * y < 0.0:
                mirrored = ((x + y) ** 2 / sine2 - x * y / np.sin(0.5 * theta) ** 2) / (2.0 * q)
                exponent = np.where(theta > 0.5 * math.pi, mirrored, exponent)
            total += jump * other / (2.0 * math.pi) * np.exp(-exponent)
    return total


def _given(act: Activation, order: int, mean: float, deviation: float) -> float:
    """E φ^(order)(mean + deviation · Z)."""
    breaks = [(k - mean) / deviation for k in act.kinks]
    edges = {-TAIL, TAIL, *(b for b in breaks if abs(b) < TAIL)}
    width = act.length_scale / deviation
    for centre in (*act.kinks, *act.scale_points):
        offset = width
        while offset < GAUSS_PANEL:
            at = (centre - mean) / deviation
            edges |= {e for e in (at - offset, at + offset) if abs(e) < TAIL}
            offset *= 2
    ends = np.array(sorted(edges | set(np.linspace(-TAIL, TAIL, 9))))
    half = 0.5 * np.diff(ends)
    z = half[:, None] * NODES + 0.5 * (ends[1:] + ends[:-1])[:, None]
    values = act.derivative(order)(mean + deviation * z) * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return float((values @ KRONROD) @ half)
