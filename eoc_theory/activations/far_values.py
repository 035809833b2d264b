"""Values of a smooth branch far out, where its formula overflows in double precision on the way.

A value in many digits takes a twentieth of a millisecond, and a table of moments asks for a hundred thousand.
So each stretch of a quarter of an octave gets a polynomial through values in many digits, of the function
itself or of its logarithm; what neither follows is computed point by point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from numpy.polynomial import chebyshev

from .branches import DIGITS, Exact
from .core import Array
from .local_fits import POINTS, TO_COEFFICIENTS

# Nearer to 0 values are computed one by one.
NEAREST = 1.0
PER_OCTAVE = 4
FOLLOWS = 1e-13
# Beyond exp of this, either way, there are no floats.
OVERFLOWS = 800.0

Stretch = Callable[[Array], Any]


class FarValues:
    """Values of the derivative of one order; stretches are made when they are first met and kept."""

    def __init__(self, exact: Exact, order: int) -> None:
        self._exact, self._order = exact, order
        self._stretches: dict[int, Stretch] = {}

    def __call__(self, points: Array) -> Array:
        """The values at a one-dimensional array of points; NaN where there is none."""
        values = np.empty_like(points)
        near = np.abs(points) < NEAREST
        values[near] = self._one_by_one(points[near])
        # Stretches counted from NEAREST outwards, negative ones on the left.
        far = np.where(near, NEAREST, np.abs(points))
        keys = np.floor(PER_OCTAVE * np.log2(far / NEAREST)).astype(int) + 1
        keys = np.where(near, 0, np.where(points < 0.0, -keys, keys))
        for key in np.unique(keys[~near]).tolist():
            rows = keys == key
            stretch = self._stretches.get(key)
            if stretch is None:
                stretch = self._stretches[key] = self._stretch(key)
            values[rows] = stretch(points[rows])
        return values

    def _one_by_one(self, points: Array) -> Array:
        distinct, where = np.unique(points, return_inverse=True)
        found = [self._exact(self._order, float(p)) for p in distinct]
        return np.array([np.nan if v is None else float(v) for v in found])[where]

    def _stretch(self, key: int) -> Stretch:
        low, high = (NEAREST * 2.0 ** (k / PER_OCTAVE) for k in (abs(key) - 1, abs(key)))
        centre, half = math.copysign(0.5 * (low + high), key), 0.5 * (high - low)
        if not (self._exact.low <= centre - half and centre + half <= self._exact.high):
            return self._one_by_one
        found = [self._exact(self._order, centre + half * float(s)) for s in POINTS]
        if all(v is None for v in found):
            return lambda points: np.full_like(points, np.nan)  # beyond many digits throughout
        if any(v is None for v in found):
            return self._one_by_one
        plain = np.array([float(v) for v in found])
        if np.isfinite(plain).all() and _follows(plain):
            return _polynomial(plain, centre, half)
        logarithm, sign = _logarithms(found)
        if sign and (logarithm.min() > OVERFLOWS or logarithm.max() < -OVERFLOWS):
            beyond = sign * (np.inf if logarithm.min() > 0.0 else 0.0)
            return lambda points: np.full_like(points, beyond)
        if sign and _follows(logarithm):
            exponent = _polynomial(logarithm, centre, half)
            return lambda points: sign * _exp(exponent(points))
        return self._one_by_one


def _logarithms(values: list[Any]) -> tuple[Array, int]:
    """log|value| and the values' common sign; 0 where they have none."""
    signs = {int(mpmath.sign(v)) for v in values}
    if len(signs) > 1 or 0 in signs:
        return np.zeros(len(values)), 0
    with mpmath.workdps(DIGITS):
        # Far beyond floats either way the logarithm only has to be so as well.
        logs = [float(max(min(mpmath.log(abs(v)), mpmath.mpf(1e300)), mpmath.mpf(-1e300))) for v in values]
    return np.array(logs), signs.pop()


def _exp(values: Array) -> Array:
    """exp, which may overflow."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(values)


def _follows(values: Array) -> bool:
    """Whether a polynomial follows values at the nodes to rounding."""
    size = np.abs(TO_COEFFICIENTS @ values)
    return bool(size[-3:].max() <= FOLLOWS * max(size.max(), 1e-300))


def _polynomial(values: Array, centre: float, half: float) -> Stretch:
    coefficients: Any = TO_COEFFICIENTS @ values
    return lambda points: chebyshev.chebval((points - centre) / half, coefficients)
