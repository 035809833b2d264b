"""Tables from which a browser computes the theory of one activation: moments over log q, duals over θ.

Three functions of the variance q, on panels of half a decade, are all that the variance and correlation maps,
the edge of chaos and the gradients of a chain need:

- log E[φ(√q Z)²] and log E[φ'(√q Z)²], as Chebyshev series in log q;
- the mean slope 1 − R(q, θ), R = (Φ(1) − Φ(c))/(q E[φ'²] (1 − c)), Φ(c) = E[φ(u)φ(v)], θ = arccos c, as a
  Chebyshev series in log q and x, θ = w sinh(x X) as in :class:`eoc_theory.mean_field.correlation.Stretch`.

With χ = σ_w² E[φ'²] the correlation map at the variances' fixed point is 1 − C(c) = χ R (1 − c) (Price), and
E[φ'(u)φ'(v)]/E[φ'²] = R + tan(θ/2) ∂R/∂θ.
"""

from __future__ import annotations

import base64
import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import special

from ...activations import Activation
from ...errors import ArgumentError, ConvergenceError
from ...gaussian import moment_table
from ...gaussian.duals.slopes import slope_dual
from ...gaussian.expectations import jumps_of, shortest_length
from ...gaussian.tables import FIRST_DECADE, LAST_DECADE
from ...mean_field.correlation import Stretch
from ...mean_field.edge_of_chaos import at_zero_variance
from ...mean_field.maps import limit_variance
from ...mean_field.variance import homogeneous_gain

Array = NDArray[np.float64]

#: Panels of log q in a decade; those of duals, and those of moments, which a chain follows further.
PANELS = 2
DUAL_PANELS = PANELS * (LAST_DECADE - FIRST_DECADE)
MOMENT_PANELS = DUAL_PANELS + 4 * PANELS
# Points tried on a panel: of log q for moments, of log q and of x for duals.
MOMENT_POINTS = (16, 24, 48, 80)
Q_POINTS, ANGLE_POINTS = (10, 14, 20, 28), (20, 28, 40, 56, 80, 112, 224)
# Coefficients below this are left out: absolute in logarithms of moments; in duals relative to a panel's
# largest and times the square of their order, by which they count in the slope. Below the last is noise.
MOMENT_LEFT_OUT, DUAL_LEFT_OUT, DUAL_NOISE = 1e-14, 1e-9, 1e-13
# Series that leave out more than this cannot be shown.
WORST_MOMENT, WORST_DUAL = 1e-9, 1e-7
# Values below this count as 0: in the dead zone of a function everything underflows.
SMALLEST = 1e-280
# Range of u in the table of P(|Z₁Z₂Z₃| ≤ e^u): beyond it the probability is 0 or 1 to 1e-9.
LOWEST_SCORE, HIGHEST_SCORE, SCORE_PANELS, SCORE_POINTS = -28.0, 5.0, 11, 24


@lru_cache(maxsize=64)
def activation_tables(act: Activation) -> dict[str, Any]:
    """The tables of an activation, as values of JSON; series as base64 of little-endian numbers.

    Raises:
        ArgumentError: φ jumps (then E[φ'²] is infinite), or is 0 everywhere. ConvergenceError: a polynomial
            does not follow φ's moments.
    """
    if jumps_of(act).value:
        raise ArgumentError(f"activation {act.name} jumps, so E[φ'²] and χ are infinite and cannot be shown")
    gain = homogeneous_gain(act)
    if gain == 0.0:
        raise ArgumentError(f"activation {act.name} is 0 everywhere, and there is nothing to show")
    moments = {name: _moments(act, name) for name in ("phi2", "dphi2")} if gain is None else None
    zero = at_zero_variance(act) if gain is None else []
    return {
        "name": act.name,
        "gain": gain,
        "parity": act.parity,
        "phi0": float(act(np.zeros(1))[0]) ** 2,
        "zero": [[point.sigma_w, point.is_stable] for point in zero],
        "largest": limit_variance(act),
        "length": shortest_length(act),
        "moments": moments,
        "dual": _duals(act),
    }


# --- moments ------------------------------------------------------------------------------------------------


def _points(n: int) -> Array:
    """Chebyshev points in [−1, 1]."""
    return -np.cos(np.pi * (np.arange(n) + 0.5) / n)


@lru_cache(maxsize=32)
def _to_coefficients(n: int) -> Array:
    """Matrix from values at the n points to Chebyshev coefficients."""
    matrix = chebyshev.chebvander(_points(n), n - 1).T * (2.0 / n)
    matrix[0] *= 0.5
    return matrix


def _variances(panel: int, n: int) -> Array:
    """q at the points of a panel, counted from the first."""
    return 10.0 ** (FIRST_DECADE + (panel + 0.5 * (_points(n) + 1.0)) / PANELS)


def _moments(act: Activation, name: str) -> dict[str, Any]:
    """The logarithm of a moment on the panels from `first` on, on which it is positive and finite.

    Before `first` the moment is 0, behind the last panel inf, unless that is where the tables end.
    """
    table = moment_table(act)
    series: list[Array] = []
    first = 0
    for panel in range(MOMENT_PANELS):
        found, missed = _moment_panel(lambda q: getattr(table, name)(q), panel)
        if missed > WORST_MOMENT:
            raise ConvergenceError(f"activation {act.name} is too irregular for tables of its moments")
        if found is not None:
            series.append(found)
        elif series:
            break
        else:
            first = panel + 1
    if not series:
        raise ArgumentError(f"activation {act.name} has no moments in the range that is shown")
    values = np.concatenate(series).astype("<f8")
    return {"first": first, "terms": [len(one) for one in series], "values": _packed(values)}


def _moment_panel(values_at: Any, panel: int) -> tuple[Array | None, float]:
    """Coefficients, None where the moment is 0 or infinite, and the size of the last ones of all."""
    coefficients, missed = np.zeros(1), 0.0
    for n in MOMENT_POINTS:
        with np.errstate(all="ignore"):
            values = values_at(_variances(panel, n))
            if not np.all(np.isfinite(values) & (values > SMALLEST)):
                return None, 0.0
            coefficients = _to_coefficients(n) @ np.log(values)
        missed = float(np.abs(coefficients[-3:]).max())
        if missed <= 10 * MOMENT_LEFT_OUT * max(1.0, abs(float(coefficients[0]))):
            break
    kept = np.flatnonzero(np.abs(coefficients) > MOMENT_LEFT_OUT)
    return (coefficients[: kept[-1] + 1] if len(kept) else coefficients[:1]), missed


# --- duals --------------------------------------------------------------------------------------------------


def _duals(act: Activation) -> dict[str, Any]:
    """1 − R on θ ≤ π/2, and unless symmetry gives it on θ ≥ π/2, where θ = π − w sinh(x X)."""
    sides = 1 if act.parity is not None else 2
    panels = 1 if act.slopes is not None else DUAL_PANELS
    shapes: list[list[int]] = []
    scales: list[list[float]] = []
    values: list[Array] = []
    effort = (0, 0)
    for panel in range(panels):
        found, effort = _dual_panel(act, panel, sides, effort)
        for coefficients in found:
            scale, decay = _unit(coefficients)
            units = scale * decay ** np.arange(coefficients.shape[1]) / (2**31 - 1)
            shapes.append(list(coefficients.shape))
            scales.append([scale / (2**31 - 1), decay])
            values.append(np.rint(coefficients / units).reshape(-1))
    packed = np.concatenate(values).astype("<i4")
    return {"sides": sides, "panels": panels, "shapes": shapes, "scales": scales, "values": _packed(packed)}


def _unit(coefficients: Array) -> tuple[float, float]:
    """A scale and a decay with |c_ij| ≤ scale · decay^j, so that integers keep the digits of small ones too.

    The decay with the least rounding of the series' slope at its ends, which is a sum of j² c_ij.
    """
    columns = np.abs(coefficients).max(axis=0)
    order = np.arange(len(columns))
    decay = np.linspace(0.5, 1.0, 51)[:, None] ** order
    scale = (columns / decay).max(axis=1)
    best = int(np.argmin(scale * (decay * (1.0 + order**2)).sum(axis=1)))
    return float(scale[best]) or 1.0, float(np.linspace(0.5, 1.0, 51)[best])


def _dual_panel(
    act: Activation, panel: int, sides: int, effort: tuple[int, int]
) -> tuple[list[Array], tuple[int, int]]:
    """Coefficients in (log q, x) of the sides of one panel, and with how many points the next one may begin.

    These are positions in `Q_POINTS` and `ANGLE_POINTS`, as `effort` is.
    """
    i, j = effort
    while True:
        n, m = Q_POINTS[i], ANGLE_POINTS[j]
        q = _variances(panel, n) if act.slopes is None else np.ones(1)
        if act.slopes is None and float(moment_table(act).dphi2(q).min()) < SMALLEST:
            return [np.zeros((1, 1))] * sides, (0, 0)  # no correlations in a dead zone
        to_q = _to_coefficients(len(q))
        full = [to_q @ (1.0 - side) @ _to_coefficients(m).T for side in mean_slopes(act, q, m, sides)]
        counting = [_counting(one) for one in full]
        more_q = len(q) > 2 and any(large[-2:].any() for large in counting) and i + 1 < len(Q_POINTS)
        more_angles = any(large[:, -2:].any() for large in counting) and j + 1 < len(ANGLE_POINTS)
        if not (more_q or more_angles):
            break
        i, j = i + more_q, j + more_angles
    missed = max(float(max(np.abs(one[-2:]).max() * (len(q) > 2), np.abs(one[:, -2:]).max())) for one in full)
    if missed > WORST_DUAL:
        raise ConvergenceError(f"activation {act.name} is too irregular for tables of its correlation map")
    found = [_trimmed(one, large) for one, large in zip(full, counting, strict=True)]
    rows, columns = (max(one.shape[axis] for one in found) + 2 for axis in (0, 1))
    first = next((k for k, n in enumerate(Q_POINTS) if n >= rows), i)
    return found, (first, next((k for k, m in enumerate(ANGLE_POINTS) if m >= columns), j))


def _counting(coefficients: Array) -> NDArray[np.bool_]:
    """Which of the coefficients count."""
    size = np.abs(coefficients)
    order = 1.0 + np.arange(coefficients.shape[1])
    return (size * order**2 > DUAL_LEFT_OUT * float(size.max())) & (size > DUAL_NOISE)


def _trimmed(coefficients: Array, large: NDArray[np.bool_]) -> Array:
    """Without the last rows and columns in which none counts."""
    rows, columns = np.flatnonzero(large.any(axis=1)), np.flatnonzero(large.any(axis=0))
    last_row, last_column = (int(index[-1]) if len(index) else 0 for index in (rows, columns))
    return np.where(large, coefficients, 0.0)[: last_row + 1, : last_column + 1]


def mean_slopes(act: Activation, q: Array, m: int, sides: int) -> list[Array]:
    """R at variances q and the m points of each side, each of shape (len(q), m), in the order of x."""
    stretch = Stretch.at(act, q[:, None])
    x = 0.5 * (_points(m) + 1.0)
    angle = stretch.angle(x)
    # By rounding the largest angle may pass π/2, beyond which a symmetric function's other half lies.
    near = slope_dual(act, q, angle)
    # E[φ'²] from the same numbers, as the limit θ → 0, would lose digits; the table has it.
    size = np.full(len(q), homogeneous_gain(act)) if act.slopes is not None else moment_table(act).dphi2(q)
    pieces, whole = _integrals(near, stretch, x, lambda theta: np.sin(theta))
    result = [pieces / (size[:, None] * _gap(angle))]
    if sides == 2:
        far = slope_dual(act, q, np.pi - angle)
        # ∫ from π/2 to π − θ is what ∫ from 0 to π/2 leaves of that from 0 to θ, in the angle from π.
        parts, all_ = _integrals(far, stretch, x, lambda theta: np.sin(theta))
        result.append((whole + all_ - parts) / (size[:, None] * _gap(np.pi - angle)))
    return result


def _gap(theta: Array) -> Array:
    """1 − cos θ."""
    return 2.0 * np.sin(0.5 * theta) ** 2


def _integrals(values: Array, stretch: Stretch, x: Array, weight: Any) -> tuple[Array, Array]:
    """∫ T w dθ from x = 0 to each point, and to x = 1 as a column, T by its series in x."""
    along = values @ _to_coefficients(len(x)).T
    nodes, weights = np.polynomial.legendre.leggauss(12)
    ends = np.concatenate([[0.0], x, [1.0]])
    half = 0.5 * np.diff(ends)
    inner = (half[:, None] * nodes + 0.5 * (ends[1:] + ends[:-1])[:, None]).reshape(-1)
    integrand = along @ chebyshev.chebvander(2.0 * inner - 1.0, along.shape[1] - 1).T
    integrand = integrand * weight(stretch.angle(inner)) * stretch.rate(inner)
    pieces = (integrand.reshape(len(along), len(half), -1) @ weights) * half
    total = np.cumsum(pieces, axis=1)
    return total[:, :-1], total[:, -1:]


# --- scores -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def score_table() -> dict[str, Any]:
    """P(|Z₁Z₂Z₃| ≤ e^u) for independent standard normals, as Chebyshev series on panels of u.

    The SNIP score of a weight is |W δ h|: at infinite width, for a single input, a product of a normal
    weight, a gradient and a signal, each taken for normal. log|Z| has the density 2 e^u p(e^u), p that of Z;
    the trapezoidal rule sums its convolutions to rounding, since they are analytic and die out.
    """
    step = 0.03
    u = np.arange(-38.0, 3.0, step)
    density = 2.0 * np.exp(u - 0.5 * np.exp(2.0 * u)) / math.sqrt(2.0 * math.pi)
    two = np.convolve(density, density) * step
    at_two = 2.0 * u[0] + step * np.arange(len(two))
    width = (HIGHEST_SCORE - LOWEST_SCORE) / SCORE_PANELS
    series = []
    for panel in range(SCORE_PANELS):
        at = LOWEST_SCORE + width * (panel + 0.5 * (_points(SCORE_POINTS) + 1.0))
        with np.errstate(over="ignore"):
            below = special.erf(np.exp(np.minimum(at[:, None] - at_two, 300.0)) / math.sqrt(2.0)) @ two * step
        series.append(_to_coefficients(SCORE_POINTS) @ below)
    return {
        "low": LOWEST_SCORE,
        "high": HIGHEST_SCORE,
        "panels": SCORE_PANELS,
        "values": _packed(np.concatenate(series).astype("<f8")),
    }


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")
