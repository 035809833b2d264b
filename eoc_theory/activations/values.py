"""Smooth branches as pieces in double precision that keep their digits, and where they are not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import sympy

from ..errors import ExpressionError
from . import effort
from .branches import DIGITS, Branch, Exact, singular_points, spread, structured_points, vectorised
from .core import Array, Function, Piece
from .derivatives import Derivatives
from .digits import constant
from .far_values import Doubts, FarValues
from .functions import polynomial
from .reading import x
from .rounding import UNIT, rounding_error
from .stable import rewrite

sp: Any = sympy  # its annotations know nothing of what an expression can do
# Errors above this share of a value are computed away; those that are looked for at first are smaller.
LOST, LOOKED_FOR = 1e-10, 1e-11
# Errors of derivatives that are smaller, beside what they are within NEAR, are seen by nobody.
NEGLIGIBLE, NEAR = 1e-14, 16.0
# Below this a value is as good as 0.
NO_SIZE = 1e-290
# Operations in double precision, at one point of many, for one in many digits.
DOUBLES = 100


def smooth(branch: Branch) -> tuple[Piece, Exact, tuple[float, ...], Piece]:
    """The branch as a piece, the same in many digits, and the estimated errors of its derivatives.

    Last comes the piece by its formulas alone where these have a value: quicker, for what needs no digits.
    """
    exact = Exact(branch.expression, branch.low, branch.high)
    if branch.expression.is_polynomial(x):
        known = [constant(c) for c in reversed(sp.Poly(branch.expression, x).all_coeffs())]
        coefficients = [np.nan if c is None else c for c in known]
        piece = polynomial(*coefficients)
        if branch.expression.is_Symbol or not _multiplied_out_cancels(coefficients, piece, branch):
            return piece, exact, (0.0,) * 4, piece
    derivatives = Derivatives(rewrite(branch.expression))
    fast = [vectorised(derivatives[order]) for order in range(4)]
    probes = np.concatenate([[0.0], np.logspace(-10, 0.5, 32)])
    probes = np.concatenate([-probes[:0:-1], probes])
    probes = probes[(probes >= branch.low) & (probes <= branch.high)]
    truth = [[exact(order, p) for p in probes] for order in range(4)]
    series = None
    if branch.low <= 0 <= branch.high and any(
        _losses(fast[n], truth[n], truth, n, probes).any() for n in range(4)
    ):
        series = _series(exact, truth, probes)
    guards = _guards(branch, fast, derivatives, exact, 0.0 if series is None else series[0])
    orders = [_careful(order, fast[order], series, exact, guards[order]) for order in range(4)]
    errors = tuple(_error(orders[n], truth[n], probes) for n in range(4))
    quick = [_careful(order, fast[order], series, exact, None) for order in range(4)]
    piece = (orders[0], orders[1], orders[2], orders[3])
    return piece, exact, errors, (quick[0], quick[1], quick[2], quick[3])


def _multiplied_out_cancels(coefficients: list[float], piece: Piece, branch: Branch) -> bool:
    """Whether a polynomial's terms cancel somewhere: those of (x + 3)**64 lose every digit at −2."""
    sizes = polynomial(*map(abs, coefficients))
    points = _probes(branch)
    with np.errstate(all="ignore"):
        values = [piece[order](points) for order in range(4)]
        errors = [2.0 * len(coefficients) * UNIT * sizes[order](np.abs(points)) for order in range(4)]
    return any(
        _doubtful(
            values,
            errors[order],
            order,
            points,
            LOOKED_FOR,
            _largest(values[order], points) if order else 0.0,
        ).any()
        for order in range(4)
    )


def _probes(branch: Branch) -> Array:
    """Some points of the branch at all magnitudes, around 0 and its ends."""
    steps = np.geomspace(1e-12, 1e5, 137)
    points = [[0.0], steps, -steps]
    for end in (branch.low, branch.high):
        if np.isfinite(end):
            near = np.geomspace(1e-10, 0.5, 40) * abs(end)
            points += [[end], end + near, end - near]
    every = np.unique(
        np.concatenate([*points, structured_points(branch.expression, branch.low, branch.high)])
    )
    return every[(every >= branch.low) & (every <= branch.high)]


def _doubtful(
    values: list[Array], error: Array, order: int, points: Array, share: float, largest: float = 0.0
) -> Any:
    """Where the error of a derivative is above a share of its size, and not negligible beside its largest.

    Its size is its own and what rounding x does to it. At a root of the third derivative the second stands
    for what is not known of the fourth.
    """
    with np.errstate(all="ignore"):
        size = np.abs(values[order])
        if order < 3:
            size = size + np.abs(points * values[order + 1])
        else:
            share *= 100.0
            size = size + np.abs(values[2])
        return np.isfinite(values[order]) & ~(error <= share * size + NEGLIGIBLE * largest + NO_SIZE)


def _largest(values: Array, points: Array) -> float:
    """The largest of a derivative's values where most variances that are met look."""
    near: Any = np.isfinite(values) & (np.abs(points) <= NEAR)
    return float(np.max(np.abs(values[near]), initial=0.0))


def _losses(
    function: Callable[[Array], Array], truth: list[Any], all_truth: Any, order: int, probes: Array
) -> Array:
    """Where more than rounding is lost: an error above what rounding x itself would do."""
    values = function(probes)
    lost = np.zeros(len(probes), dtype=bool)
    for i, (value, exact) in enumerate(zip(values, truth, strict=True)):
        if exact is None:
            continue
        slope = all_truth[order + 1][i] if order < 3 else None
        size = abs(exact) + (abs(probes[i] * slope) if slope is not None else 0)
        lost[i] = not np.isfinite(value) or abs(value - exact) > 2e-14 * size
    return lost


def _error(function: Callable[[Array], Array], truth: list[Any], probes: Array) -> float:
    """Largest error at the probes relative to the largest value there; 0 where it is rounding alone."""
    values = function(probes)
    pairs = [(v, float(t)) for v, t in zip(values, truth, strict=True) if t is not None]
    largest = max((abs(t) for _, t in pairs), default=0.0)
    if largest == 0.0:
        return 0.0
    error = max(abs(v - t) for v, t in pairs) / largest
    return 0.0 if error < 1e-13 else float(error)


def _series(exact: Exact, truth: list[list[Any]], probes: Array) -> tuple[float, Piece] | None:
    """Taylor's series around 0 with the radius within which it is better than the formula.

    The coefficients come from Cauchy's integral on a circle, which does not mind a removable 0/0 at the
    centre.
    """
    count, kept = 96, 36
    for radius in (0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 1e-4):
        with mpmath.workdps(60):
            circle = [radius * mpmath.expjpi(mpmath.mpf(2 * k + 1) / count) for k in range(count)]
            values = [exact.raw(0, point) for point in circle]
            if any(value is None for value in values):
                continue
            turns = [mpmath.expjpi(-mpmath.mpf(k) / count) for k in range(2 * count)]
            scaled = [
                mpmath.re(sum(v * turns[(2 * k + 1) * n % (2 * count)] for k, v in enumerate(values))) / count
                for n in range(kept)
            ]
            largest = max(abs(c) for c in scaled)
            coefficients = [
                float(c / radius**n) if abs(c) > 1e-25 * largest else 0.0 for n, c in enumerate(scaled)
            ]
        # What the series leaves out at half the radius, where it is used up to, is of its last terms' size.
        left_out = float(max(abs(c) for c in scaled[-4:])) * 0.5 ** (kept - 4)
        largest_here = max(
            (abs(t) for t, p in zip(truth[0], probes, strict=True) if t and abs(p) <= radius), default=0
        )
        if not np.isfinite(coefficients).all() or left_out > 1e-17 * largest_here:
            continue
        piece = polynomial(*coefficients)
        inside = np.abs(probes) <= radius / 2
        worst = 0.0
        for order in range(4):
            values = piece[order](probes[inside])
            rows = [t for t, use in zip(truth[order], inside, strict=True) if use]
            for value, true in zip(values, rows, strict=True):
                if true is not None:
                    worst = max(worst, float(abs(value - true) / (abs(true) + 1e-16 * largest + 1e-290)))
        if worst < 1e-11:
            return radius / 2, piece
    return None


def _guards(
    branch: Branch, fast: list[Function], derivatives: Derivatives, exact: Exact, radius: float
) -> list[Doubts | None]:
    """For each order what tells where its formula loses digits; None where it nowhere does.

    Within `radius` of 0 a series is used instead.
    """
    points = _probes(branch)
    points = points[np.abs(points) > radius] if radius else points
    values = [function(points) for function in fast]

    def guard(order: int) -> Doubts | None:
        stable = rewrite(derivatives[order])
        effort.spend(len(points) * derivatives.size(order) // DOUBLES)
        largest = _largest(values[order], points) * (0.0, 1.0, 1.0, 100.0)[order]
        error = rounding_error(stable, x, points)
        if not _doubtful(values, error, order, points, LOOKED_FOR, largest).any():
            return None

        def doubtful(at: Array, share: float) -> Any:
            needed = {0, order, min(order + 1, 3), 2 if order == 3 else 0}
            known = {n: fast[n](at) for n in needed}
            others = [known.get(n, at) for n in range(4)]
            return _doubtful(others, rounding_error(stable, x, at), order, at, share, largest)

        return Doubts(doubtful, exact, LOST)

    return [guard(order) for order in range(4)]


def _careful(
    order: int, fast: Function, series: tuple[float, Piece] | None, exact: Exact, guard: Doubts | None
) -> Function:
    """The formula; Taylor's series around 0 where that is better; many digits where doubles do not do."""
    far = FarValues(exact, order)

    def evaluate(points: Array) -> Array:
        values = fast(points)
        beyond = ~np.isfinite(values) & np.isfinite(points)
        if guard is not None:
            flat = points.ravel()
            beyond |= np.reshape(guard(flat), points.shape) & np.isfinite(points)
        if series is not None:
            radius, piece = series
            inside = np.abs(points) <= radius
            values = np.where(inside, piece[order](np.clip(points, -radius, radius)), values)
            beyond &= ~inside | ~np.isfinite(values)
        if not beyond.any():
            return values
        values = np.array(values)
        # Beyond what many digits reach, an overflow is an overflow.
        given, known = values[beyond], far(points[beyond])
        values[beyond] = np.where(np.isnan(known) & ~np.isnan(given), given, known)
        return values

    return evaluate


# --- checks ---


def check_finite(branch: Branch, piece: Piece, exact: Exact, shown: str) -> None:
    """Raise where the branch or one of its first two derivatives is not a finite real number."""
    ends = {end for end in (branch.low, branch.high) if np.isfinite(end)}
    suspects = sorted(
        {*singular_points(branch.expression, branch.low, branch.high, shown, True), *ends}, key=abs
    )
    points = spread(branch.low, branch.high)
    names = (shown, f"the first derivative of {shown}", f"the second derivative of {shown}")
    for order, name in enumerate(names):
        for at in suspects:
            sides = [s for s in (1, -1) if at != (branch.low if s < 0 else branch.high)]
            limits = [_limit_at(exact, order, at, side) for side in sides]
            if any(limit is None for limit in limits):
                raise ExpressionError(f"{name} is not a finite real number at x = {at:.6g}")
            if abs(limits[0] - limits[-1]) > 1e-9 * (1 + abs(limits[0])):
                raise ExpressionError(f"{name} jumps at x = {at:.6g}, where the expression is not defined")
        # Plain overflow is infinite but real; only what has no value is an error.
        for at in sorted(points[np.isnan(piece[order](points))], key=abs):
            if exact(order, float(at)) is None:
                raise ExpressionError(f"{name} is not a finite real number at x = {at:.6g}")


def _limit_at(exact: Exact, order: int, at: float, side: int) -> Any:
    """The one-sided value, or None where it grows without bound.

    The float `at` misses a pole other than 0 by its rounding, so the growth towards it is what tells. What is
    finite, such as sqrt(abs(x - 1) + 1e-12), stops growing before it comes as near as that.
    """
    value = exact(order, at, side)
    if value is None or at == 0.0:
        return value
    with mpmath.workdps(DIGITS):
        near, nearer = (exact.raw(order, at + side * d * (1 + abs(at))) for d in (1e-9, 1e-12))
    if near is None or nearer is None:
        return None
    growing = abs(nearer) > 30 * (1 + abs(near)) and abs(value) > 8 * (1 + abs(nearer))
    return None if growing else value
