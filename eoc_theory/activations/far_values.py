"""Values of a smooth branch where double precision does not give them: after an overflow, or cancellation.

A value in many digits takes a twentieth of a millisecond, and a table of moments asks for a hundred thousand.
So each stretch of a quarter of an octave gets a polynomial through values in many digits, of the function
itself or of its logarithm, or is halved a few times; what neither follows is computed point by point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from numpy.polynomial import chebyshev

from .branches import DIGITS, Exact
from .core import Array
from .local_fits import POINTS, TO_COEFFICIENTS

# Nearer to 0 values are computed one by one.
NEAREST = 2.0**-40
PER_OCTAVE = 4
# How often a stretch is halved that no polynomial follows.
HALVINGS = 4
FOLLOWS = 1e-13
# A polynomial's own rounding may take this share of the value, or of what x's rounding does to it.
ROUNDS = 1e-11
# Beyond exp of this, either way, there are no floats.
OVERFLOWS = 800.0
# What is smaller at a few points of a stretch is 0 on all of it.
VANISHES = 1e-300

CLEAN, MIXED, LOST = 1, 2, 3
# Points of a stretch at which it is looked at, and how many stretches there are on each side, out to 1e290.
SAMPLES = 128
MOST_STRETCHES = 4000

Stretch = Callable[[Array], Any]


def stretch_of(points: Array) -> Any:
    """Which stretch each point is in: counted from NEAREST outwards, negative on the left, 0 nearer to 0."""
    size = np.abs(points)
    near = ~(size >= NEAREST)
    keys = np.floor(PER_OCTAVE * np.log2(np.where(near, NEAREST, size) / NEAREST)).astype(int) + 1
    return np.where(near, 0, np.where(points < 0.0, -keys, keys))


def ends_of(key: int, exact: Exact) -> tuple[float, float]:
    """The ends of a stretch within the branch."""
    low, high = (NEAREST * 2.0 ** (k / PER_OCTAVE) for k in (abs(key) - 1, abs(key)))
    low, high = (low, high) if key > 0 else (-high, -low)
    return max(low, exact.low), min(high, exact.high)


class Doubts:
    """Where a formula's digits are lost: known of whole stretches, and looked for point by point in others.

    Args:
        doubtful: says so of points, of which it is given the share of a value that an error may be.
        exact: the branch.
        share: that share.
    """

    def __init__(self, doubtful: Callable[[Array, float], Any], exact: Exact, share: float) -> None:
        self._doubtful, self._exact, self._share = doubtful, exact, share
        # Of each stretch: 0 not looked at yet, CLEAN, MIXED or LOST.
        self._known = np.zeros(2 * MOST_STRETCHES + 1, dtype=np.int8)
        self._known[MOST_STRETCHES] = MIXED

    def __call__(self, points: Array) -> Any:
        """Which of the points are to be computed in another way."""
        keys = np.clip(stretch_of(points), -MOST_STRETCHES, MOST_STRETCHES) + MOST_STRETCHES
        if len(points) < SAMPLES:
            return self._doubtful(points, self._share)
        for key in np.unique(keys[self._known[keys] == 0]).tolist():
            self._known[key] = self._look(key - MOST_STRETCHES)
        found = self._known[keys]
        lost: Any = found == LOST
        mixed = found == MIXED
        if mixed.any():
            lost[mixed] = self._doubtful(points[mixed], self._share)
        return lost

    def _look(self, key: int) -> int:
        low, high = ends_of(key, self._exact)
        points = low + (high - low) * np.linspace(0.0, 1.0, SAMPLES)
        if not self._doubtful(points, 0.1 * self._share).any():
            return CLEAN
        return LOST if np.mean(self._doubtful(points, self._share)) > 0.5 else MIXED


class FarValues:
    """Values of the derivative of one order; stretches are made when they are first met and kept."""

    def __init__(self, exact: Exact, order: int) -> None:
        self._exact, self._order = exact, order
        self._stretches: dict[int, Stretch] = {}

    def __call__(self, points: Array) -> Array:
        """The values at a one-dimensional array of points; NaN where there is none."""
        if len(points) < len(POINTS):
            return self._one_by_one(points)
        values = np.empty_like(points)
        near = np.abs(points) < NEAREST
        values[near] = self._one_by_one(points[near])
        keys = stretch_of(points)
        for key in np.unique(keys[~near]).tolist():
            rows = keys == key
            stretch = self._stretches.get(key)
            if stretch is None and np.count_nonzero(rows) < len(POINTS):
                values[rows] = self._one_by_one(points[rows])
                continue
            if stretch is None:
                low, high = ends_of(key, self._exact)
                stretch = self._stretches[key] = self._stretch(low, high, HALVINGS)
            values[rows] = stretch(points[rows])
        return values

    def _one_by_one(self, points: Array) -> Array:
        distinct, where = np.unique(points, return_inverse=True)
        found = [self._exact.precise(self._order, float(p)) for p in distinct]
        return np.array([np.nan if v is None else float(v) for v in found])[where]

    def _stretch(self, low: float, high: float, halvings: int) -> Stretch:
        centre, half = 0.5 * (low + high), 0.5 * (high - low)
        if not half > 1e-12 * abs(centre):
            return self._one_by_one
        few = [self._exact.precise(self._order, centre + half * s) for s in (-0.97, 0.013, 0.93)]
        if all(v is not None and abs(v) < VANISHES for v in few):
            return np.zeros_like
        found = [self._exact.precise(self._order, centre + half * float(s)) for s in POINTS]
        if all(v is None for v in found):
            return lambda points: np.full_like(points, np.nan)  # beyond many digits throughout
        if all(v is not None for v in found):
            followed = _followed(found, centre, half)
            if followed is not None:
                return followed
        if not halvings:
            return self._one_by_one
        return self._halves(low, centre, high, halvings - 1)

    def _halves(self, low: float, centre: float, high: float, halvings: int) -> Stretch:
        """Both halves of a stretch, each made when it is first met."""
        made: dict[bool, Stretch] = {}

        def evaluate(points: Array) -> Array:
            values = np.empty_like(points)
            right = points > centre
            for side in (False, True):
                rows = right == side
                count = np.count_nonzero(rows)
                if side not in made and count < len(POINTS):
                    values[rows] = self._one_by_one(points[rows])
                    continue
                if side not in made:
                    made[side] = self._stretch(centre if side else low, high if side else centre, halvings)
                values[rows] = made[side](points[rows])
            return values

        return evaluate


def _followed(found: list[Any], centre: float, half: float) -> Stretch | None:
    """The function through values at the nodes, if a polynomial follows it or its logarithm to rounding."""
    plain = np.array([float(v) for v in found])
    if np.isfinite(plain).all() and _follows(plain) and _keeps_digits(plain, centre, half):
        return _polynomial(plain, centre, half)
    logarithm, sign = _logarithms(found)
    if sign and (logarithm.min() > OVERFLOWS or logarithm.max() < -OVERFLOWS):
        beyond = sign * (np.inf if logarithm.min() > 0.0 else 0.0)
        return lambda points: np.full_like(points, beyond)
    if sign and _follows(logarithm):
        exponent = _polynomial(logarithm, centre, half)
        return lambda points: sign * _exp(exponent(points))
    return None


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


def _keeps_digits(values: Array, centre: float, half: float) -> bool:
    """Whether rounding of the largest value is small for the smallest, or beside what x's rounding does."""
    slopes = chebyshev.chebval(POINTS, chebyshev.chebder(TO_COEFFICIENTS @ values)) / half
    sizes = np.abs(values) + np.abs((centre + half * POINTS) * slopes)
    return bool(np.abs(values).max() * 2e-16 <= ROUNDS * sizes.min())


def _polynomial(values: Array, centre: float, half: float) -> Stretch:
    coefficients: Any = TO_COEFFICIENTS @ values
    return lambda points: chebyshev.chebval((points - centre) / half, coefficients)
