"""How many terms Mehler's series needs, and what it misses beyond them."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ...activations.core import Activation
from .mehler import (
    LARGEST_KINKED,
    ORDERS,
    RANGES,
    Coefficients,
    batch_coefficients,
    kink_at_zero,
)
from .pairs import Array
from .remainders import half_power_weights, unexplained

# With fewer terms the remainder of a kink is not yet that of its half powers.
FEWEST_WITH_REMAINDER = 32


@lru_cache(maxsize=4096)
def plan(activation: Activation, order: int, q: float, reach: float, tolerance: float) -> tuple[int, float]:
    """(number of coefficients, half width of the grid) with which the series is good to `tolerance`.

    The remainder after n terms is at most |c|^n √(tail_a tail_b); it is asked for relative to E f² at
    variance `q` and |c| = `reach`. Without such an n the largest there is comes back: what it reaches is
    then reported by the tails themselves.
    """
    for half_width in RANGES:
        for n in ORDERS:
            if activation.kinks and n > LARGEST_KINKED:
                return LARGEST_KINKED, half_width
            c = batch_coefficients(activation, order, np.array([q]), n, half_width)
            if not np.isfinite(c.square[0]):
                break
            edge = _edge(activation, order, q, half_width)
            if edge > 0.1 * tolerance * max(c.square[0], 1e-300):
                break
            if (
                left_out(activation, order, np.array([q]), n, c)[0] * reach**n
                <= 0.5 * tolerance * c.square[0]
            ):
                return n, half_width
        else:
            return ORDERS[-1], half_width
    return ORDERS[-1], RANGES[-1]


def left_out(activation: Activation, order: int, q: Array, n: int, a: Coefficients) -> Array:
    """Bound on what the method misses at c = 1 behind n terms, shape (B,)."""
    missed = unexplained_by_kink(activation, order, q, n, a)
    return a.tail if missed is None else missed


def unexplained_by_kink(
    activation: Activation, order: int, q: Array, n: int, a: Coefficients
) -> Array | None:
    """What the half powers of a kink at 0 leave of the tails, shape (B,); None where they are no help.

    That is so without such a kink, with few terms, and at variances so large that these do not resolve the
    function next to the kink.
    """
    if not kink_at_zero(activation) or n < FEWEST_WITH_REMAINDER:
        return None
    # The half powers miss both the tail's size and, less, its shape.
    missed = 3 * unexplained(a, half_power_weights(activation, order, q), n)
    return missed if missed.max() <= a.tail.max() else None


def beyond(activation: Activation, order: int, q: Array, n: int, half_width: float, a: Coefficients) -> float:
    """Norm of what the coefficients miss of f beyond the ends of the grid, relative to √E f²; the largest.

    It is at most √E[f² 1(|Z| > half width)], and nothing for polynomials that are small there.
    """
    if 2.0 * math.sqrt(n) < half_width - 2.0:
        return 0.0
    worst = 0.0
    for i in (int(np.argmin(q)), int(np.argmax(q))):
        edge = _edge(activation, order, float(q[i]), half_width)
        mass = 2.0 * edge / (math.sqrt(2.0 * math.pi) * half_width)
        if a.square[i] > 0.0:
            worst = max(worst, math.sqrt(mass / float(a.square[i])))
    return worst


def _edge(activation: Activation, order: int, q: float, half_width: float) -> float:
    """What the integrand of E f² holds at the end of the grid."""
    ends = np.sqrt(q) * half_width * np.array([-1.0, 1.0])
    f = activation.derivative(order) if order else activation
    return float(np.max(f(ends) ** 2)) * float(np.exp(-0.5 * half_width**2))
