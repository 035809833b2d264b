"""The ranges of σ_b, σ_w or q in which an activation has critical points, for error messages."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..activations import Activation
from ..gaussian.tables import LOG_HIGH
from .critical_scan import Scan, bias_equation, direct, far_scan, root, scan

Array = NDArray[np.float64]

DIGITS = 6
NEAR = 10.0 ** (1 - DIGITS)
# A power law of log E[φ'²] against log q with a slope closer to 0 than this has come to an end.
FLAT = 1e-6
# So fast, at least, the slope of what has a limit falls off: as this power of q.
TO_A_LIMIT = 0.05


Range = tuple[float, float]


def ranges(act: Activation, name: str) -> list[Range]:
    """The ranges of a quantity over all critical points with σ_b > 0, increasing; 0 and inf where it has no
    end.

    Args:
        act: an activation that is not homogeneous and has such points.
        name: "sigma_b", "sigma_w" (without dropout) or "q".
    """
    parts = sorted(_stretch_range(curve, first, last, name) for curve, first, last in _stretches(act))
    merged = parts[:1]
    for low, high in parts[1:]:
        if low <= merged[-1][1] * (1.0 + NEAR):
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def shown(found: list[Range]) -> str:
    """Ranges in words, such as ">= 10.1493" or "between 0.2 and 3"; rounded so that all of it has points."""
    return " or ".join(_shown(low, high) for low, high in found)


def _shown(low: float, high: float) -> str:
    if math.isinf(high):
        return f">= {_rounded(low, ROUND_CEILING)}" if low > 0.0 else "> 0"
    if high - low <= NEAR * abs(high):
        return f"= {low:.{DIGITS}g}"
    return f"between {_rounded(low, ROUND_CEILING)} and {_rounded(high, ROUND_FLOOR)}"


def _rounded(value: float, direction: str) -> str:
    nearest = f"{value:.{DIGITS}g}"
    if abs(float(nearest) - value) <= 1e-3 * NEAR * abs(value):
        return nearest
    return f"{float(Context(prec=DIGITS, rounding=direction).create_decimal_from_float(value)):.{DIGITS}g}"


def _stretches(act: Activation) -> list[tuple[Scan, int, int]]:
    """Runs of computed points with σ_b² > 0 on the curve from the smallest variance to the largest."""
    near = scan(act)
    curve = near
    if len(near.q) and near.bias[-1] > 0.0:
        far = far_scan(act)
        # What the table ends with is met again at the start of the far points.
        new = far.q > near.q[-1] * (1.0 + 1e-9)
        if new.any():
            curve = near.extended(far, new)
    good = np.concatenate([[False], curve.bias > 0.0, [False]])
    ends = np.flatnonzero(good[1:] != good[:-1])
    return [(curve, int(first), int(last) - 1) for first, last in zip(ends[::2], ends[1::2], strict=True)]


def _stretch_range(curve: Scan, first: int, last: int, name: str) -> Range:
    """Smallest and largest value of a quantity on one run of points."""
    inside = slice(first, last + 1)
    values = {
        "q": curve.q[inside],
        "sigma_b": np.sqrt(curve.bias[inside]),
        "sigma_w": curve.dphi2[inside] ** -0.5,
    }[name]
    low, high = curve.log_q[first], curve.log_q[last]
    ends = []
    if first > 0 and curve.bias[first - 1] < 0.0:
        low = _zero(curve, first - 1, first)
        ends.append(_value(curve, low, name))
    else:
        ends.append(_limit(values[2::-1], curve.q[inside][2::-1]))
    if last + 1 < len(curve.q) and curve.bias[last + 1] < 0.0:
        high = _zero(curve, last, last + 1)
        ends.append(_value(curve, high, name))
    elif curve.table.activation.growth.kind == "polynomial":
        ends.append(_limit(values[-3:], curve.q[inside][-3:]))
    everything = [*ends, *values.tolist()]
    if name != "q":
        places = np.array([low, *curve.log_q[inside], high])
        known = np.array([_value(curve, low, name), *values, _value(curve, high, name)])
        everything += [_extreme(curve, places, known, name, sign) for sign in (1.0, -1.0)]
    return min(everything), max(everything)


def _limit(values: Array, q: Array) -> float:
    """Where a quantity goes beyond the last of the computed points, which are three or fewer."""
    if len(values) < 2:
        return float(values[-1])
    steps = np.abs(np.diff(np.log(q)))
    powers = np.diff(np.log(values)) / steps
    last = float(powers[-1])
    if abs(last) < FLAT:
        return float(values[-1])
    if len(values) == 3 and 0.0 < last / powers[0] < 1.0:
        # A limit that is approached as a power of q: the slope falls off as that power, and the rest is its
        # integral.
        falls_off = math.log(powers[0] / last) / (0.5 * steps.sum())
        if falls_off > TO_A_LIMIT:
            slope = last * math.exp(-0.5 * falls_off * steps[-1])
            return float(values[-1]) * math.exp(slope / falls_off)
    return math.inf if last > 0.0 else 0.0


def _zero(curve: Scan, left: int, right: int) -> float:
    """log q at which σ_b² passes 0 between two computed points."""
    ends = curve.log_q[left], curve.log_q[right]
    rising = bool(curve.bias[right] > curve.bias[left])
    return root(lambda u: bias_equation(curve.table, u, 0.0), *ends, 0.5 * (ends[0] + ends[1]), rising)


def _value(curve: Scan, log_q: float, name: str) -> float:
    if name == "q":
        return math.exp(log_q)
    found = direct(curve.table, log_q)
    if name == "sigma_w":
        return 1.0 / math.sqrt(found.dphi2)
    return math.sqrt(max(found.excess / found.dphi2, 0.0))


def _extreme(curve: Scan, places: Array, known: Array, name: str, sign: float) -> float:
    """The smallest (largest, for sign −1) value next to the computed points, inside the table."""
    i = int(np.argmin(sign * known))
    if not 0 < i < len(known) - 1 or places[i + 1] > LOG_HIGH:
        return float(known[i])
    from scipy import optimize  # takes longer to import than most answers

    found: Any = optimize.minimize_scalar(
        lambda u: sign * _tabled_value(curve, u, name),
        bounds=(places[i - 1], places[i + 1]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(sign * min(found.fun, sign * known[i]))


def _tabled_value(curve: Scan, log_q: float, name: str) -> float:
    dphi2 = curve.table.at_one_log(log_q, "dphi2")[0]
    if name == "sigma_w":
        return 1.0 / math.sqrt(dphi2)
    return math.sqrt(max(curve.table.at_one_log(log_q, "excess")[0] / dphi2, 0.0))
