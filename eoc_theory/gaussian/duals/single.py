"""The dual of an activation, E[φ^(m)(u) φ^(n)(v)], one pair at a time to full accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...activations import activation as resolve
from ...activations.core import HIGHEST_ORDER, Activation
from ...base import checks
from ...errors import ArgumentError, DivergentExpectationError
from .. import Estimate, hermite_coefficients
from .closed_forms import closed_dual
from .pairs import Array, Pairs, make_pairs
from .quadrature import EPS, dual_quadrature, inherited_error, second_moment

# Below this the limit q → 0 has been reached to the last digit; √ and products of it are still normal
# numbers.
SMALLEST = 1e-200
# Mehler's series is used where this many of its terms are enough.
TERMS = 96
EXPONENTS = np.arange(TERMS)
# Rounding errors of a closed form relative to its terms' magnitudes: a dozen operations.
CLOSED_ROUNDING = 12 * EPS


def dual(
    activation: Any,
    q_a: ArrayLike,
    q_b: ArrayLike,
    c: ArrayLike | None = None,
    *,
    one_minus_c: ArrayLike | None = None,
    order: int = 0,
    order_b: int | None = None,
) -> Estimate:
    """E[φ^(m)(u) φ^(n)(v)] for centred Gaussians u, v of variances q_a, q_b and correlation c.

    Closed forms where they are known, Mehler's series where it converges at once, otherwise adaptive
    two-dimensional quadrature. The error is below 1e-12 √(E f² E g²) for the built-in activations.

    Args:
        activation: anything :func:`eoc_theory.activation` accepts.
        q_a, q_b: variances ≥ 0, broadcast with the correlation (0: the limit q → 0+).
        c: correlation in [−1, 1].
        one_minus_c: 1 − c instead of c, for correlations that are too close to 1 for c to hold.
        order: derivative m of the first factor, 0 to 3.
        order_b: derivative n of the second factor; the first one's when None. Derivatives are those almost
            everywhere: the point mass of a jump is left out (φ' of a step is 0), as in backpropagation.

    Returns:
        Value and estimated absolute error, of the broadcast shape.

    Raises:
        ArgumentError: a parameter is outside its range.
        DivergentExpectationError: the expectation does not exist or exceeds the range of floats.
        ConvergenceError: an oscillation is too fast to be integrated.
    """
    act = resolve(activation)
    m = derivative_order("order", order)
    n = m if order_b is None else derivative_order("order_b", order_b)
    pairs = make_pairs(q_a, q_b, c, one_minus_c)
    closed = closed_dual(act, pairs, m, n)
    if closed is not None:
        value, error = closed[0], CLOSED_ROUNDING * closed[1]
        if not np.all(np.isfinite(value)):
            raise DivergentExpectationError(f"{act.name}: the expectation exceeds the range of floats")
        return Estimate(value[()], error[()])
    value, error = np.empty(pairs.c.shape), np.empty(pairs.c.shape)
    for i in np.ndindex(pairs.c.shape):
        value[i], error[i] = _one(
            act, float(pairs.q_a[i]), float(pairs.q_b[i]), float(pairs.one_minus_c[i]), m, n
        )
    return Estimate(value[()], error[()])


def derivative_order(name: str, order: Any) -> int:
    """An order of derivative that activations have."""
    number = checks.integer(name, order, 0)
    if number > HIGHEST_ORDER:
        raise ArgumentError(f"{name} must be 0 to {HIGHEST_ORDER}, got {number}")
    return number


def one_pair(
    act: Activation, q_a: float, q_b: float, one_minus_c: float, m: int, n: int
) -> tuple[float, float]:
    """As :func:`dual` for floats that are known to be in range."""
    fields = (np.array(v) for v in (q_a, q_b, 1 - one_minus_c, one_minus_c, 2 - one_minus_c))
    pairs = Pairs(*fields)
    closed = closed_dual(act, pairs, m, n)
    if closed is not None:
        return float(closed[0]), CLOSED_ROUNDING * float(closed[1])
    return _one(act, q_a, q_b, one_minus_c, m, n)


def _one(act: Activation, q_a: float, q_b: float, one_minus_c: float, m: int, n: int) -> tuple[float, float]:
    q_a, q_b = max(q_a, SMALLEST), max(q_b, SMALLEST)
    c, s = 1 - one_minus_c, math.sqrt(one_minus_c * (2 - one_minus_c))
    a = spectrum(act, q_a, m)
    b = a if (q_b, n) == (q_a, m) else spectrum(act, q_b, n)
    scale = math.sqrt(a.square) * math.sqrt(b.square)
    remainder = abs(c) ** TERMS * math.sqrt(a.tail) * math.sqrt(b.tail)
    if remainder <= 1e-15 * scale:
        powers = c**EXPONENTS if one_minus_c > 1e-3 else np.exp(EXPONENTS * math.log1p(-one_minus_c))
        value, error = float(np.sum(a.coefficients * b.coefficients * powers)), remainder + 16 * EPS * scale
    else:
        value, error = dual_quadrature(act, q_a, q_b, c, s, m, n)
    return value, error + scale * (inherited_error(act, q_a, m) + inherited_error(act, q_b, n))


@dataclass(frozen=True)
class Spectrum:
    """The first Hermite coefficients of φ^(order)(√q ·), its second moment and what they leave of it."""

    coefficients: Array
    square: float
    tail: float


@lru_cache(maxsize=1024)
def spectrum(act: Activation, q: float, order: int) -> Spectrum:
    """Coefficients 0 to TERMS − 1 with their remainder; rounding hides a remainder below 1e-15 of the
    whole.
    """
    a = hermite_coefficients(act, q, TERMS, order)[0]
    a.setflags(write=False)
    square = second_moment(act, q, order)
    # Coefficients of converged series fall geometrically, so the last ones show what rounding hides.
    tail = max(square - float(a @ a), float(np.sum(a[-TERMS // 4 :] ** 2)))
    return Spectrum(a, square, tail if tail > 8 * EPS * square else float(np.sum(a[-TERMS // 4 :] ** 2)))
