"""The curve of critical points, parametrised by the variance, and the equations whose roots are asked for.

Above the table of moments the curve goes on by quadrature, to where its power laws are all that changes.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..activations import Activation
from ..errors import ConvergenceError
from ..gaussian import MomentTable, moment_table
from ..gaussian.tables import LAST_DECADE

Array = NDArray[np.float64]

# Relative error of the tables' values from rounding, measured against direct quadrature in the tests.
TABLE_ERROR = 2e-13
# Logarithms of moments beyond this are so large that their rounding is felt.
FAR_LOGARITHM = 5.0
# Above the table: a point each decade up to this power of ten, for built-in functions fewer.
FARTHEST_DECADE, TRUSTED_STEP = 80, 7.4


@dataclass(frozen=True)
class Scan:
    """The parametric curve at the computed points of the moment table, increasing q; noise set to 0.

    Attributes:
        noise: of points set to 0, how large σ_b² may be there; 0 of all others.
        loudest: the largest of these.
    """

    table: MomentTable
    q: Array
    dphi2: Array
    bias: Array
    noise: Array
    log_q: list[float]
    branches: tuple[tuple[int, list[float], bool], ...]
    loudest: float

    def extended(self, other: Scan, rows: NDArray[np.bool_]) -> Scan:
        """This curve and some of another's points behind it."""
        both = (
            (self.q, other.q),
            (self.dphi2, other.dphi2),
            (self.bias, other.bias),
            (self.noise, other.noise),
        )
        q, dphi2, bias, noise = (np.concatenate([mine, theirs[rows]]) for mine, theirs in both)
        return Scan(
            self.table, q, dphi2, bias, noise, np.log(q).tolist(), (), max(self.loudest, other.loudest)
        )

    def crossings(self, target: float) -> list[tuple[int, int]]:
        """Neighbouring points between which σ_b² passes a target; at target 0 zeros (noise) are skipped."""
        if target == 0.0:
            return list(crossings(self.bias))
        if self.loudest > target:
            # Points whose σ_b² may lie on either side of the target say nothing.
            return list(crossings(np.where(self.noise > target, 0.0, self.bias - target)))
        found = []
        for first, values, rising in self.branches:
            # Falling branches are kept negated, so that bisection serves both.
            i = bisect_right(values, target) if rising else bisect_left(values, -target)
            if 0 < i < len(values):
                found.append((first + i - 1, first + i))
        return found


@lru_cache(maxsize=128)
def scan(act: Activation) -> Scan:
    """The curve within the table's range."""
    table = moment_table(act)
    return _of(table, *table.samples("excess"), table.samples("dphi2")[1])


@lru_cache(maxsize=32)
def far_scan(act: Activation) -> Scan:
    """The curve above the table, from its end on."""
    # Built-in functions have no structure out there, where power laws are all that is left of them.
    step = TRUSTED_STEP if act.source is None else 1.0
    q = 10.0 ** np.arange(LAST_DECADE, FARTHEST_DECADE + 1.0, step)
    table = moment_table(act)
    found = table.direct(q, ("excess", "dphi2"))
    return _of(table, q, *found["excess"], found["dphi2"][0])


def curves(act: Activation, target: float) -> Iterator[Scan]:
    """The parts of the curve on which σ_b² may come to a target: the near one, and the far one if it may."""
    near = scan(act)
    yield near
    if act.source is None and len(near.q) > 1:
        # What a built-in function's σ_b² does at the end of the table it goes on to do.
        last, moving = near.bias[-1] - target, near.bias[-1] - near.bias[-2]
        if last * moving > 0.0:
            return
    yield far_scan(act)


def _of(table: MomentTable, q: Array, excess: Array, error: Array, dphi2: Array) -> Scan:
    with np.errstate(all="ignore"):
        lost = np.abs(excess) <= 3.0 * error
        bias, noise = np.where(lost, 0.0, excess) / dphi2, np.where(lost, 3.0 * error, 0.0) / dphi2
        usable = np.isfinite(bias) & (dphi2 > 0.0) & np.isfinite(error)
    q, bias, noise = q[usable], bias[usable], noise[usable]
    loudest = float(noise.max(initial=0.0))
    return Scan(table, q, dphi2[usable], bias, noise, np.log(q).tolist(), tuple(_branches(bias)), loudest)


def _branches(bias: Array) -> Iterator[tuple[int, list[float], bool]]:
    """Monotone stretches of the curve: first index, values (negated where they fall), whether they rise."""
    steps = np.sign(np.diff(bias))
    start = 0
    while start < len(bias) - 1:
        rest = steps[start:]
        moving = rest[rest != 0.0]
        direction = moving[0] if len(moving) else 1.0
        turns = np.flatnonzero(rest == -direction)
        end = start + int(turns[0]) if len(turns) else len(bias) - 1
        yield start, (direction * bias[start : end + 1]).tolist(), bool(direction > 0.0)
        start = end


def crossings(difference: Array) -> Iterator[tuple[int, int]]:
    """Neighbouring points (zeros skipped) between which the sign changes."""
    seen = np.flatnonzero(difference)
    positive = difference[seen] > 0.0
    for i in np.flatnonzero(positive[1:] != positive[:-1]):
        yield int(seen[i]), int(seen[i + 1])


def root(
    f: Callable[[float], tuple[float, float]], low: float, high: float, start: float, rising: bool
) -> float:
    """The root of f (value, derivative) between low and high: Newton's method kept inside the bracket."""
    u = start
    for _ in range(60):
        value, slope = f(u)
        if value == 0.0:
            return u
        if (value > 0.0) == rising:
            high = u
        else:
            low = u
        step = -value / slope if slope != 0.0 else math.inf
        new = u + step
        if not low < new < high:
            new = 0.5 * (low + high)
        # Twice the digits in the next step: from 10⁻⁸ there is nothing left to gain.
        if abs(new - u) <= 1e-8 * max(1.0, abs(u)) and new == u + step:
            return new
        if abs(new - u) < 1e-15 * max(1.0, abs(u)):
            return new
        u = new
    raise ConvergenceError(f"no root found between q = {math.exp(low):g} and {math.exp(high):g}")


def bias_equation(table: MomentTable, log_q: float, target: float) -> tuple[float, float]:
    """σ_b²(q) − target and its derivative by log q."""
    excess, d_excess = table.at_one_log(log_q, "excess")
    dphi2, d_dphi2 = table.at_one_log(log_q, "dphi2")
    if dphi2 == 0.0:
        raise ConvergenceError(
            f"E[φ'²] of {table.activation.name} is below the range of floats at q = {math.exp(log_q):g}, "
            "next to where the critical point is looked for"
        )
    bias = excess / dphi2
    return bias - target, (d_excess - bias * d_dphi2) / dphi2


def slope_equation(table: MomentTable, log_q: float, target: float) -> tuple[float, float]:
    """E[φ'²] − target and its derivative by log q."""
    value, derivative = table.at_one_log(log_q, "dphi2")
    return value - target, derivative


class PointMoments(NamedTuple):
    """q E[φ'²] − E[φ²], E[φ'²] and dE[φ²]/dq at one q with their errors, and derivatives by log q."""

    excess: float
    excess_error: float
    dphi2: float
    dphi2_error: float
    slope: float
    d_excess: float
    d_dphi2: float

    @property
    def bias_slope(self) -> float:
        """Derivative of σ_b² = excess/E[φ'²] by log q."""
        return (self.d_excess - self.excess / self.dphi2 * self.d_dphi2) / self.dphi2

    @property
    def finite(self) -> bool:
        """Whether there is a point of the curve."""
        return self.dphi2 > 0.0 and math.isfinite(self.dphi2) and math.isfinite(self.excess)


def tabled(table: MomentTable, log_q: float) -> PointMoments:
    """The moments by the table."""
    q = math.exp(log_q)
    excess, d_excess = table.at_one_log(log_q, "excess")
    dphi2, d_dphi2 = table.at_one_log(log_q, "dphi2")
    slope, _ = table.at_one_log(log_q, "slope")
    excess_error = table.error(q, "excess", excess) + _rounding(excess)
    dphi2_error = max(table.error(q, "dphi2", dphi2), _rounding(dphi2))
    return PointMoments(excess, excess_error, dphi2, dphi2_error, slope, d_excess, d_dphi2)


def _rounding(value: float) -> float:
    """What a table's arithmetic costs a value: of one far from 1 its logarithm is what has the digits."""
    size = abs(value)
    far = abs(math.log(size)) / FAR_LOGARITHM if size else 0.0
    return TABLE_ERROR * max(1.0, far) * size


def direct(table: MomentTable, log_q: float) -> PointMoments:
    """The moments by quadrature, with the table's derivatives; the table's where that is out of reach."""
    by_table = tabled(table, log_q)
    found = table.direct(np.array([math.exp(log_q)]), ("excess", "dphi2", "slope"))
    numbers = [(float(value[0]), float(error[0])) for value, error in found.values()]
    if not all(map(math.isfinite, np.ravel(numbers))):
        return by_table
    (excess, excess_error), (dphi2, dphi2_error), (slope, _) = numbers
    return PointMoments(excess, excess_error, dphi2, dphi2_error, slope, by_table.d_excess, by_table.d_dphi2)
