"""Fixed points of the variance map V(q) = σ_b² + σ_w² E[φ(√q Z)²], for one network or for a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..activations import Activation
from ..gaussian import MomentTable, moment_table
from ..gaussian.tables import CELL_WIDTH, LOG_HIGH, LOG_LOW

Array = NDArray[np.float64]

# Where iterations of the map start: the variance of normalised data.
START = 1.0
# Beyond the tables' range moments follow power laws; fixed points above this count as infinite.
LARGEST = 1e30
# End of the tables, and how far beyond it the power law may miss a fixed point.
TABLED = math.exp(LOG_HIGH)
NEAR = 0.1
# A fixed point by the table whose E[φ²] has a larger relative error than this is computed by quadrature.
ACCURATE = 1e-11
# Relative error of the tables' values from rounding, and of the sum that the map is.
TABLE_ERROR, ROUNDING = 2e-13, 4e-16
# Without biases a variance below this has died out.
SMALLEST = 1e-12


@dataclass(frozen=True)
class FixedPoint:
    """A fixed point of the variance map.

    Attributes:
        q: the variance; 0 and inf are possible.
        slope: V'(q). At inf: the factor by which variances grow there; inf when they grow faster than that.
        stable: whether iterations from nearby converge to it (from both sides of it, or from its only side).
        error: estimated absolute error of q; 0 at 0 and inf.
    """

    q: float
    slope: float
    stable: bool
    error: float = 0.0


def homogeneous_gain(act: Activation) -> float | None:
    """E[φ(√q Z)²]/q, which is E[φ'²] too, for a positively homogeneous activation; None for others."""
    if act.slopes is None:
        return None
    left, right = act.slopes
    return 0.5 * (left * left + right * right)


def limits(act: Activation, sigma_w: Array, sigma_b: Array) -> Array:
    """Where the variance goes from 1 under every combination of a σ_w and a σ_b: the q* of a phase diagram.

    The fixed point that the map meets first on its way from q = 1, upwards where V(1) > 1 and downwards where
    V(1) < 1. It is the limit of the iteration wherever V is increasing, which it is between 1 and q* for all
    built-in activations but cos; there V' lies in (−1, 0) and the fixed point is unique.

    Args:
        act: the activation.
        sigma_w: shape (n,).
        sigma_b: shape (m,).

    Returns:
        q* of shape (n, m); 0 where the variance dies out, inf where it grows without bound.
    """
    weight, bias = sigma_w**2, sigma_b**2
    gain = homogeneous_gain(act)
    if gain is not None:
        return _homogeneous_limits(weight * gain, bias)
    table = moment_table(act)
    log_q = _grid(float(bias[bias > 0.0].min()) if np.any(bias > 0.0) else 1.0)
    with np.errstate(over="ignore"):
        phi2 = table.at_log(log_q, "phi2")[0]
    q = np.exp(log_q)
    start = int(np.searchsorted(log_q, 0.0))
    lowest = int(np.searchsorted(log_q, LOG_LOW))
    low, high = (
        np.empty((len(weight), len(bias)), dtype=np.intp),
        np.empty((len(weight), len(bias)), dtype=np.intp),
    )
    for i, w in enumerate(weight):
        with np.errstate(invalid="ignore"):
            # A fixed point has q − σ_w² E[φ²] = σ_b²: V > q exactly where the left side is smaller.
            room = np.where(np.isfinite(phi2), q - w * phi2, -np.inf)
        upwards = np.maximum.accumulate(room[start:])
        downwards = np.minimum.accumulate(room[start::-1])
        high[i] = start + np.searchsorted(upwards, bias, side="left")
        low[i] = start - np.searchsorted(-downwards, -bias, side="left")
    rises = high > start
    low = np.where(rises, high - 1, low)
    high = np.where(rises, high, np.minimum(low + 1, start))
    dead = (~rises & (low < np.where(bias > 0.0, 0, lowest)[None, :])) | (low < 0)
    infinite = rises & (high >= len(q))
    result = np.where(dead, 0.0, np.inf)
    finite = ~(dead | infinite)
    rows, columns = np.nonzero(finite)
    result[finite] = _refine(table, weight[rows], bias[columns], log_q[low[finite]], log_q[high[finite]])
    far = finite & (result > TABLED)
    if far.any():
        rows, columns = np.nonzero(far)
        result[far] = _polished(table, weight[rows], bias[columns], result[far])
    return result


def _homogeneous_limits(factor: Array, bias: Array) -> Array:
    """V(q) = σ_b² + factor · q."""
    factor = np.where(np.abs(factor - 1.0) < 1e-12, 1.0, factor)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        result = np.where(factor < 1.0, bias / (1.0 - factor), np.inf)
        without = np.where(factor < 1.0, 0.0, np.where(factor > 1.0, np.inf, START))
    return np.where(bias > 0.0, result, without)


def _grid(smallest_bias: float) -> Array:
    """log q from below every fixed point to LARGEST: fine within the tables, a point per factor e outside."""
    inside = LOG_LOW + 0.5 * CELL_WIDTH * np.arange(round(2 * (LOG_HIGH - LOG_LOW) / CELL_WIDTH) + 1)
    # The start must be met exactly.
    inside[np.argmin(np.abs(inside))] = 0.0
    below = np.arange(math.floor(min(math.log(smallest_bias) - 2.0, LOG_LOW)), LOG_LOW)
    above = np.arange(math.ceil(LOG_HIGH), math.log(LARGEST))
    return np.concatenate([below[below < LOG_LOW - 0.1], inside, above[above > LOG_HIGH + 0.1]])


def _refine(table: MomentTable, weight: Array, bias: Array, low: Array, high: Array) -> Array:
    """Roots of log V(q) − log q between log q = low and high, where it is > 0 at low and ≤ 0 at high."""
    u = 0.5 * (low + high)
    active = np.arange(len(u))
    low, high = low.copy(), high.copy()
    for _ in range(60):
        if len(active) == 0:
            break
        at, w, b = u[active], weight[active], bias[active]
        phi2, slope = table.at_log(at, "phi2", derivative=True)
        v = b + w * phi2
        with np.errstate(all="ignore"):
            value = np.log(v) - at
            new = at - value / (w * slope / v - 1.0)
        above = value > 0.0
        low[active] = np.where(above, at, low[active])
        high[active] = np.where(above, high[active], at)
        inside = (new >= low[active]) & (new <= high[active])
        new = np.where(inside, new, 0.5 * (low[active] + high[active]))
        u[active] = new
        # The next step would be smaller by as much again.
        done = inside & (np.abs(new - at) < 1e-8)
        done |= high[active] - low[active] < 1e-14 * np.maximum(1.0, np.abs(at))
        active = active[~done]
    return np.exp(u)


def _polished(table: MomentTable, weight: Array, bias: Array, start: Array) -> Array:
    """Fixed points by quadrature, (n,), from those by the tables and the power laws that these end on."""
    q, open_ = start.copy(), np.arange(len(start))
    for _ in range(20):
        at, w = q[open_], weight[open_]
        found = table.direct(at, ("phi2", "slope"))
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (bias[open_] + w * found["phi2"][0] - at) / (1.0 - w * found["slope"][0])
            # The power law is nearly right; what leads away from it is the root of another crossing.
            near = np.abs(at + step - start[open_]) < NEAR * start[open_]
        q[open_] = np.where(near, at + step, start[open_])
        open_ = open_[near & (np.abs(step) > 4e-16 * at)]
        if not len(open_):
            break
    return q


def fixed_points(act: Activation, sigma_w: float, sigma_b: float) -> tuple[FixedPoint, ...]:
    """All fixed points of the variance map with their stability, by increasing q; 0 and inf where they are
    some.

    Every variance is a fixed point of a homogeneous activation's critical map; the start, 1, stands for them
    all.
    """
    weight, bias = sigma_w**2, sigma_b**2
    gain = homogeneous_gain(act)
    if gain is not None:
        return _homogeneous_points(weight * gain, bias)
    table = moment_table(act)
    log_q = _grid(bias if bias > 0.0 else 1.0)
    if bias == 0.0:
        log_q = log_q[log_q >= LOG_LOW]
    with np.errstate(all="ignore"):
        value = np.log(bias + weight * table.at_log(log_q, "phi2")[0]) - log_q
    # What rounding makes of V(q) = q is no crossing.
    value = np.where(np.abs(value) < 1e-13, 0.0, value)
    seen = np.flatnonzero(~np.isnan(value) & (value != 0.0))
    points = []
    if bias == 0.0 and float(act(np.zeros(1))[0]) == 0.0:
        grows = bool(len(seen) and value[seen[0]] > 0.0)
        points.append(FixedPoint(0.0, weight * float(table.slope(np.array([SMALLEST]))[0]), not grows))
    for a, b in pairwise(seen):
        if (value[a] > 0.0) == (value[b] > 0.0):
            continue
        falls = bool(value[a] > 0.0)
        points.append(_at(table, weight, bias, (log_q[a], log_q[b]), falls))
    overflows = bool(np.any(np.isposinf(value)))
    if overflows or (len(seen) and value[seen[-1]] > 0.0):
        _, derivative = table.at_log(log_q[-1:], "phi2", derivative=True)
        with np.errstate(all="ignore"):
            slope = float(weight * derivative[0] / math.exp(log_q[-1])) if not overflows else math.inf
        points.append(FixedPoint(math.inf, slope, True))
    return tuple(points)


def _at(
    table: MomentTable, weight: float, bias: float, bracket: tuple[float, float], falls: bool
) -> FixedPoint:
    """The fixed point between two log q, by quadrature where the table is not accurate."""
    q = _crossing(table, weight, bias, *bracket, falls)
    slope = weight * table.at(q, "slope")[0]
    phi2, power = table.at(q, "phi2")
    missed = table.error(q, "phi2", phi2) + TABLE_ERROR * phi2
    if q > TABLED or missed > ACCURATE * phi2:
        start = q
        q = float(_polished(table, *(np.array([one]) for one in (weight, bias, q)))[0])
        found = {name: (float(v[0]), float(e[0])) for name, (v, e) in _direct(table, q).items()}
        if all(math.isfinite(number) for pair in found.values() for number in pair):
            (phi2, missed), (own, _) = found["phi2"], found["slope"]
            slope = weight * own
        elif start > TABLED:
            # Out of reach of quadrature: the power law that the table ends on may not last.
            missed += abs(power) * (math.log(start) - LOG_HIGH)
    error = _moved(weight * missed, q, slope)
    return FixedPoint(q, slope, falls and slope > -1.0, error)


def _direct(table: MomentTable, q: float) -> dict[str, tuple[Array, Array]]:
    return table.direct(np.array([q]), ("phi2", "slope"))


def _moved(missed: float, q: float, slope: float) -> float:
    """By how much a fixed point q of that slope moves when V is off by some amount, or by rounding."""
    missed += ROUNDING * q
    return missed / abs(1.0 - slope) if slope != 1.0 else math.inf


def _homogeneous_points(factor: float, bias: float) -> tuple[FixedPoint, ...]:
    critical = abs(factor - 1.0) < 1e-12
    if bias == 0.0:
        if critical:
            return (FixedPoint(START, 1.0, True),)
        ends = (FixedPoint(0.0, factor, factor < 1.0), FixedPoint(math.inf, factor, factor > 1.0))
        return ends if factor > 1.0 else ends[:1]
    if factor < 1.0 and not critical:
        q = bias / (1.0 - factor)
        return (FixedPoint(q, factor, True, _moved(0.0, q, factor)),)
    return (FixedPoint(math.inf, 1.0 if critical else factor, True),)


def _crossing(table: MomentTable, weight: float, bias: float, low: float, high: float, falls: bool) -> float:
    """The root of log V(q) − log q between log q = low and high, at which it falls or rises through 0."""
    u = 0.5 * (low + high)
    for _ in range(80):
        phi2, slope = table.at(math.exp(u), "phi2")
        v = bias + weight * phi2
        value = math.log(v) - u if v > 0.0 else -math.inf
        if (value > 0.0) == falls:
            low = u
        else:
            high = u
        derivative = weight * slope / v - 1.0 if v > 0.0 else 0.0
        new = u - value / derivative if derivative != 0.0 else math.inf
        if not low <= new <= high:
            new = 0.5 * (low + high)
        elif abs(new - u) < 1e-9:
            return math.exp(new)
        if high - low < 1e-15 * max(1.0, abs(u)):
            break
        u = new
    return math.exp(u)
