"""What Mehler's series leaves out for a kink at 0, in closed form.

Behind n terms the coefficients of φ(√q ·) are those of Σ_r Δ_r (√q z)_+^r/r!, Δ_r the jump of φ^(r) at 0,
up to relative order 1/n. The dual of the half powers is an arc-cosine kernel (Cho & Saul 2009), so their
remainder is that
kernel less its own first n terms: a function of c alone, tabulated once for each n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import factorial

import numpy as np

from ...activations.core import HIGHEST_ORDER, Activation
from .mehler import Coefficients, split_grid
from .pairs import Array

POINTS = 8192
# Half powers of unequal parity have no common coefficients behind the first few.
POWERS = ((0, 0), (0, 2), (2, 2), (1, 1), (1, 3), (3, 3))


def half_power_kernel(r: int, s: int, theta: Array) -> Array:
    """E[(z_1)_+^r (z_2)_+^s] at correlation cos θ."""
    sine, cosine, rest = np.sin(theta), np.cos(theta), np.pi - theta
    forms = {
        (0, 0): lambda: rest,
        (1, 1): lambda: sine + rest * cosine,
        (2, 2): lambda: 3 * sine * cosine + rest * (1 + 2 * cosine**2),
        (3, 3): lambda: sine * (4 + 11 * cosine**2) + rest * (9 * cosine + 6 * cosine**3),
        (0, 2): lambda: rest + sine * cosine,
        (1, 3): lambda: 3 * rest * cosine + sine * (2 + cosine**2),
    }
    return forms[r, s]() / (2 * np.pi)


@dataclass(frozen=True)
class Remainders:
    """Remainders behind n terms for each pair of powers, on equidistant θ in [0, reach], zero beyond.

    Attributes:
        n: number of terms.
        reach: largest θ, where c^n is below rounding.
        values: (r, s) → array (POINTS + 1,).
    """

    n: int
    reach: float
    values: dict[tuple[int, int], Array]


@lru_cache(maxsize=16)
def remainders(n: int) -> Remainders:
    """The tables for n terms."""
    reach = min(0.5 * np.pi, float(np.sqrt(2 * 30 / n)))
    theta = np.linspace(0.0, reach, POINTS + 1)
    c = np.cos(theta)
    g = split_grid(n, 13.0, 0)
    values = {}
    for r, s in POWERS:
        # z_+^r is half its even and half its odd part; behind k = r only one of them goes on.
        matrix, odd = (g.even, False) if r % 2 else (g.odd, True)
        product = (0.5 * g.nodes**r @ matrix) * (0.5 * g.nodes**s @ matrix)
        series = np.zeros_like(c)
        for a in product[::-1]:
            series = series * c * c + a
        kernel = half_power_kernel(r, s, theta)
        mirrored = half_power_kernel(r, s, np.pi - theta)
        # The kernel's part of that parity in c.
        values[r, s] = 0.5 * (kernel - mirrored) - c * series if odd else 0.5 * (kernel + mirrored) - series
    return Remainders(n, reach, values)


def half_power_weights(activation: Activation, order: int, q: Array) -> Array:
    """Δ_r √q^r/r! of φ^(order) for r = 0 … 3, shape (4, B); powers beyond the known derivatives are 0."""
    weights = np.zeros((4, len(q)))
    for r in range(HIGHEST_ORDER - order + 1):
        weights[r] = activation.jumps(order + r)[0] * np.sqrt(q) ** r / factorial(r)
    return weights


def add_remainder(values: Array, c: Array, weights: Array, n: int) -> None:
    """Add to the series' `values` (B, B) what lies behind its first n terms."""
    table = remainders(n)
    rows, columns = np.nonzero(np.abs(c) > np.cos(table.reach))
    if not len(rows):
        return
    some = c[rows, columns]
    position = np.arccos(np.abs(some)) * (POINTS / table.reach)
    left = np.minimum(position.astype(np.intp), POINTS - 1)
    share = position - left
    total = np.zeros_like(some)
    sign = np.sign(some)
    for (r, s), row in table.values.items():
        if not (weights[r].any() and weights[s].any()):
            continue
        factor = weights[r][rows] * weights[s][columns]
        if r != s:
            factor = factor + weights[s][rows] * weights[r][columns]
        between = row[left] + share * (row[left + 1] - row[left])
        total += factor * between * (1.0 if r % 2 else sign)
    values[rows, columns] += total


def unexplained(a: Coefficients, weights: Array, n: int) -> Array:
    """How much of each variance's tail the half powers do not account for, shape (B,)."""
    table = remainders(n).values
    left = np.zeros(weights.shape[1])
    for tail, powers in ((a.odd_tail, ((0, 0), (0, 2), (2, 2))), (a.even_tail, ((1, 1), (1, 3), (3, 3)))):
        known = sum(
            (weights[r] * weights[s] * (1.0 if r == s else 2.0) * float(table[r, s][0]) for r, s in powers),
            np.zeros(weights.shape[1]),
        )
        left += np.abs(tail - known)
    return left
