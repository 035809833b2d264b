"""The edge of chaos of any activation: χ = 1 at a stable fixed point of the variance map.

For every variance q > 0 the pair σ_w² = 1/E[φ'²], σ_b² = q − E[φ²]/E[φ'²] (expectations at √q Z) has χ = 1
and the fixed point q (Hayou, Doucet & Rousseau 2019, "On the impact of the activation function on deep
neural networks training", section 3). The edge of chaos is this curve where σ_b² ≥ 0 and q is stable; no
nested iteration is needed.

Dropout of probability p replaces σ_w by σ_w/√(1−p) in the variance map and in χ, so that the same q and σ_b
keep variances and gradients at √(1−p) times the σ_w. It does not keep correlations: with noise of its own on
each signal none of them reach 1, and there is no edge of chaos (Schoenholz et al. 2017, section 5; for
rectifiers Pretorius et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..activations import Activation, activation
from ..base import checks
from ..base.boundary import public
from ..base.result import Drawable, Result
from ..base.tables import Table, cell, facts, frame
from ..errors import (
    ArgumentError,
    ConvergenceError,
    NoCriticalPointError,
    TooLargeError,
)
from ..gaussian import MomentTable, moment_table
from ..gaussian.expectations import evaluate, jumps_of
from ..gaussian.tables import LOG_HIGH
from .convergence import Convergence, convergence_law
from .critical_ranges import ranges, shown
from .critical_scan import (
    PointMoments,
    Scan,
    bias_equation,
    crossings,
    curves,
    direct,
    far_scan,
    root,
    scan,
    slope_equation,
    tabled,
)

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

# Variances are normalised data's: where several critical points answer a question, the one nearest to it is
# chosen.
DATA_VARIANCE = 1.0
#: Points of a critical curve: some 20 µs each.
MOST_POINTS = 1_000_000
# The slope V' may exceed 1 by rounding only (homogeneous activations and softshrink have V' = 1 exactly).
SLOPE_TOLERANCE = 1e-11
# A point from the tables with a larger error than this, relative to 1 + σ_w, is computed by quadrature.
ACCURATE = 1e-11
# A larger error than this, relative to what is asked for, is no answer.
WORST = 1e-3


@public
@dataclass(frozen=True, repr=False, eq=False)
class CriticalPoint(Result):
    """A point (σ_w, σ_b) with χ = 1 and its variance q.

    Attributes:
        activation: the activation function.
        sigma_w: standard deviation of the weights times √fan_in.
        sigma_b: standard deviation of the biases.
        q: fixed point of the variance map. For homogeneous activations every q is one; then it is 1,
            that of normalised data.
        chi: σ_w² E[φ'(√q Z)²], 1 up to `error`.
        variance_slope: V'(q); the fixed point is stable where it lies in (−1, 1).
        error: estimated absolute error of sigma_w (of sigma_b where sigma_w was given).
        others: further solutions of the same question, stable or not, in the order of their q.
        dropout: probability p of dropping an activation. Unless it is 0 the point keeps variances and mean
            squared gradients through all layers (χ includes the factor 1/(1−p)), but not correlations.
    """

    activation: Activation
    sigma_w: float
    sigma_b: float
    q: float
    chi: float
    variance_slope: float
    error: float
    others: tuple[CriticalPoint, ...] = field(default=(), repr=False)
    dropout: float = 0.0

    @property
    def is_stable(self) -> bool:
        """Whether the variance map stays at q when iterated; V' = 1, as of homogeneous ones, counts."""
        return -1.0 < self.variance_slope <= 1.0 + SLOPE_TOLERANCE

    @property
    def note(self) -> str:
        """A warning about the point, in one line; empty if there is none."""
        notes = []
        if not self.is_stable:
            notes.append(
                f"{self.activation.name} has no stable point there: at q = {self.q:.6g} the variance "
                f"map's slope is {self.variance_slope:.6g}, and variances drift away by that factor per layer"
            )
        if self.dropout:
            notes.append(
                "with dropout there is no edge of chaos: variances and gradients keep their size here, but "
                f"correlations go to c* = {self.c_star:.4g}, over a depth of {self.depth_scale:.3g} layers"
            )
        return "; ".join(notes)

    @property
    def convergence(self) -> Convergence:
        """How correlations approach 1, or c* under dropout, with depth."""
        if self.dropout:
            return Convergence("exponential", 0, math.nan)
        return convergence_law(self.activation, self.q, self.sigma_w)

    @property
    def c_star(self) -> float:
        """The limit of the correlation of two signals with separate masks; 1 without dropout."""
        return 1.0 - self._limit()[0]

    @property
    def depth_scale(self) -> float:
        """ξ_c, the layers over which correlations approach c* by a factor e; inf without dropout."""
        slope = self._limit()[1]
        return math.inf if slope == 1.0 else -1.0 / math.log(slope) if slope > 0.0 else 0.0

    def to_frame(self) -> pd.DataFrame:
        """One row for the point, and one for each of its `others`."""
        names = ("sigma_w", "sigma_b", "q", "chi", "variance_slope", "is_stable", "error")
        points = (self, *self.others)
        columns = {name: [getattr(point, name) for point in points] for name in names}
        return frame({"activation": self.activation.name, **columns, "dropout": self.dropout})

    def _headline(self) -> str:
        what = "stationary" if self.dropout else "edge of chaos"
        noise = f" under dropout {self.dropout:g}" if self.dropout else ""
        return (
            f"{self.activation.name}, {what}{noise}: sigma_w = {self.sigma_w:.10g}, "
            f"sigma_b = {self.sigma_b:.6g}, q = {self.q:.6g}{'' if self.is_stable else ' (unstable)'}"
        )

    def _told(self) -> dict[str, Any]:
        law = self.convergence
        return {
            "is_stable": self.is_stable,
            "note": self.note,
            "c_star": self.c_star,
            "depth_scale": self.depth_scale,
            "convergence": {"kind": law.kind, "exponent": law.exponent, "constant": law.constant},
        }

    def _notes(self) -> tuple[str, ...]:
        return (self.note,) if self.note else ()

    def _table(self) -> Table:
        names = ("sigma_w", "sigma_b", "q", "chi", "variance_slope", "is_stable", "error")
        if not self.others:
            return facts({name: getattr(self, name) for name in names})
        points = (self, *self.others)
        heads = ("", "chosen", *("other" for _ in self.others))
        rows = tuple((name, *(cell(getattr(point, name), 10) for point in points)) for name in names)
        return Table(heads, rows)

    def _limit(self) -> tuple[float, float]:
        """1 − c* and the slope of the correlation map there."""
        if not self.dropout:
            return 0.0, 1.0
        from .maps import dropout_limit

        return dropout_limit(self.activation, self.q, self.sigma_w, self.dropout)


@public
def edge_of_chaos(
    activation: Any,
    *,
    sigma_b: float | None = None,
    sigma_w: float | None = None,
    q: float | None = None,
    dropout: float = 0.0,
) -> CriticalPoint:
    """Compute the edge-of-chaos initialisation of an activation for a given σ_b, σ_w or variance q.

    A network with dropout has no edge of chaos. The point is then the one that keeps variances and mean
    squared gradients from layer to layer: χ = σ_w² E[φ'²]/(1−p) = 1 at a stable fixed point of the variance
    map with the masks' noise in it. Its σ_w is √(1−p) times that without dropout, at the same σ_b and q;
    ReLU: σ_w² = 2(1−p) (Pretorius et al. 2018). How far information travels there is the point's
    `depth_scale`, which no σ_w makes infinite. For the built-in activations the best σ_w at the same σ_b
    makes it longer by a few per cent, at most by a fifth.

    Args:
        activation: anything :func:`eoc_theory.activation` accepts.
        sigma_b: standard deviation of the biases, ≥ 0. Give this, `sigma_w` or `q`; without any it is 0.
        sigma_w: standard deviation of the weights times √fan_in, > 0.
        q: variance of the pre-activations, > 0.
        dropout: probability p of dropping an activation, the others divided by 1 − p, in [0, 1).

    Returns:
        The stable critical point. If there are several, the one whose q is nearest to 1 (normalised data) in
        log q; the rest are its `others`. Where χ = 1 is only met at unstable fixed points (GELU and SiLU with
        small σ_b: V' = 1.1) the nearest of those, whose `is_stable` is False and whose `note` says so.
        Positively homogeneous activations have the single point σ_b = 0, for every q. For σ_b = 0 the limit
        q → 0 counts as a solution where φ(0) = 0 (tanh: σ_w = 1/|φ'(0)|).

    Raises:
        NoCriticalPointError: χ = 1 is not met at any fixed point; the message says why, and which points
            exist.
        ConvergenceError: the point cannot be computed to three digits.
        ArgumentError: an argument is out of range, or more than one of the three is given.
        DivergentExpectationError: E[φ²] does not exist at the given q.
    """
    act = _resolve(activation)
    arguments = {"sigma_b": sigma_b, "sigma_w": sigma_w, "q": q}
    given = [name for name, value in arguments.items() if value is not None]
    if len(given) > 1:
        raise ArgumentError(f"give one of sigma_b, sigma_w and q, got {' and '.join(given)}")
    _require_slope(act)
    dropout = checks.fraction("dropout", dropout)
    if sigma_w is not None:
        sigma_w = checks.positive("sigma_w", sigma_w)
        if not 1e-150 < sigma_w < 1e150:  # its square is no float like others
            raise ArgumentError(f"sigma_w must lie between 1e-150 and 1e150, got {sigma_w:g}")
        seen = sigma_w / math.sqrt(1.0 - dropout) if dropout else sigma_w
        return _choose(act, _with_sigma_w(act, seen), "sigma_w", sigma_w, dropout)
    if q is not None:
        q = checks.positive("q", q)
        return _choose(act, _with_variance(act, q), "q", q, dropout)
    sigma_b = checks.non_negative("sigma_b", 0.0 if sigma_b is None else sigma_b)
    return _choose(act, _with_sigma_b(act, sigma_b), "sigma_b", sigma_b, dropout)


def _resolve(spec: Any) -> Activation:
    if isinstance(spec, str):
        return _named(spec)
    return spec if isinstance(spec, Activation) else activation(spec)


@lru_cache(maxsize=256)
def _named(text: str) -> Activation:
    """The activation that a text names."""
    # Reading a name takes longer than the answer.
    return activation(text)


def _require_slope(act: Activation) -> None:
    if jumps_of(act).value:
        raise NoCriticalPointError(f"{act.name} jumps, so E[φ'²] and χ are infinite: it has no edge of chaos")


def _choose(
    act: Activation, points: list[CriticalPoint], name: str, value: float, dropout: float
) -> CriticalPoint:
    """The stable point nearest to the data's variance, with the others attached; unstable if need be."""
    if not points:
        raise NoCriticalPointError(_why_none(act, name, value, dropout))
    if dropout:
        points = [_under_dropout(point, name, dropout) for point in points]
    known = [point for point in points if _is_known(point, name)]
    best = min(known or points, key=_preference)
    if not known:
        raise ConvergenceError(
            f"the critical point of {act.name} with {name} = {value:g} is known to ± {best.error:.1g} "
            f"only, at q = {best.q:.4g}: the activation is too irregular there"
        )
    return replace(best, others=tuple(p for p in known if p is not best))


def _preference(point: CriticalPoint) -> tuple[bool, float]:
    """Smallest for stable points, and of those for the one nearest to the data's variance."""
    return not point.is_stable, abs(math.log(max(point.q, 1e-300) / DATA_VARIANCE))


def _is_known(point: CriticalPoint, name: str) -> bool:
    """Whether a point was computed to a useful accuracy."""
    return point.error <= WORST * (point.sigma_w + (point.sigma_b if name == "sigma_w" else 0.0))


def _under_dropout(point: CriticalPoint, name: str, dropout: float) -> CriticalPoint:
    """What was solved for the σ_w that variances and gradients see, in terms of the weights' own."""
    share = math.sqrt(1.0 - dropout)
    sigma_w = share * point.sigma_w
    error = point.error if name == "sigma_w" else share * point.error + 2e-16 * sigma_w
    return replace(point, sigma_w=sigma_w, error=error, dropout=dropout)


def _why_none(act: Activation, name: str, value: float, dropout: float) -> str:
    asked = f"{name} = {value:g}"
    head = f"{act.name} has no critical point with {asked}" + (f" and dropout {dropout:g}" if dropout else "")
    share = math.sqrt(1.0 - dropout)
    if act.slopes is not None:
        if not any(act.slopes):
            return f"{act.name} is 0 everywhere and has no critical point"
        only = share * _homogeneous_sigma_w(act)
        return f"{head}: being homogeneous it has only sigma_b = 0, sigma_w = {only:.10g}"
    if not any(np.any(curve.bias > 0.0) for curve in curves(act, 0.0)):
        return f"{head}: σ_b² = q − E[φ²]/E[φ'²] would be negative for every variance q"
    factor = share if name == "sigma_w" else 1.0
    found = [(factor * low, factor * high) for low, high in ranges(act, name)]
    if act.growth.kind == "polynomial" and any(low < value < high for low, high in found):
        raise ConvergenceError(
            f"the critical point of {act.name} with {asked} lies at a variance beyond what can be computed"
        )
    return f"{head}: there are some for {name} {shown(found)} only"


# --- one given quantity -------------------------------------------------------------------------------------


def _homogeneous_sigma_w(act: Activation) -> float:
    assert act.slopes is not None
    left, right = act.slopes
    square = left * left + right * right
    if not 1e-300 < square < 1e300:
        raise ConvergenceError(
            f"the critical sigma_w of {act.name} is not between 1e-150 and 1e150: its slopes are {left:g} "
            f"and {right:g}"
        )
    return math.sqrt(2.0 / square)


def _homogeneous(act: Activation, q: float = DATA_VARIANCE) -> CriticalPoint:
    """χ = V' = 1 for every q: V(q) = σ_w² (a² + b²)/2 · q."""
    sigma_w = _homogeneous_sigma_w(act)
    return CriticalPoint(act, sigma_w, 0.0, q, 1.0, 1.0, 2e-16 * sigma_w)


def _with_sigma_b(act: Activation, sigma_b: float) -> list[CriticalPoint]:
    if act.slopes is not None:
        return [_homogeneous(act)] if sigma_b == 0.0 and any(act.slopes) else []
    points = [] if sigma_b > 0.0 else at_zero_variance(act)
    for curve in curves(act, sigma_b * sigma_b):
        for low, high in curve.crossings(sigma_b * sigma_b):
            point = _solve_sigma_b(curve, sigma_b, low, high)
            if point is not None:
                points.append(point)
        if points:
            break
    return points or _below_the_table(act, sigma_b)


def _below_the_table(act: Activation, sigma_b: float) -> list[CriticalPoint]:
    """The point at a variance below the table: that of the limit q → 0, at the q to which the power law of
    σ_b² in the table's first decade leads.
    """
    curve, target, at_zero = scan(act), sigma_b * sigma_b, at_zero_variance(act)
    if not at_zero or not (len(curve.q) > 1 and 0.0 < target < curve.bias[0] < curve.bias[1]):
        return []
    limit, first = at_zero[0], curve.log_q[0]
    power = math.log(float(curve.bias[1] / curve.bias[0])) / (curve.log_q[1] - first)
    below = math.log(target / float(curve.bias[0])) / power
    if first + below < -700.0:
        return []  # no float is that small
    # φ' nears its value at 0 like √q at least, once its jump there is accounted for.
    error = abs(float(curve.dphi2[0]) ** -0.5 - limit.sigma_w) * math.exp(0.5 * below) + limit.error
    return [replace(limit, sigma_b=sigma_b, q=math.exp(first + below), error=error)]


def _with_sigma_w(act: Activation, sigma_w: float) -> list[CriticalPoint]:
    if act.slopes is not None:
        return [_homogeneous(act)] if abs(sigma_w / _homogeneous_sigma_w(act) - 1.0) < 1e-8 else []
    points = []
    target = 1.0 / (sigma_w * sigma_w)
    at_zero = at_zero_variance(act)
    if at_zero and abs(at_zero[0].sigma_w / sigma_w - 1.0) < 1e-15:
        points += at_zero
    for curve in (scan, far_scan):
        points += _solve_sigma_w(curve(act), target)
        if points:
            break
    return points


def _solve_sigma_w(curve: Scan, target: float) -> list[CriticalPoint]:
    """The points of the curve with E[φ'²] = target."""
    difference = curve.dphi2 - target
    difference[np.abs(difference) < 1e-14 * target] = 0.0
    points = []
    for low, high in crossings(difference):
        left, right = curve.log_q[low], curve.log_q[high]
        log_q = root(
            lambda u: slope_equation(curve.table, u, target),
            left,
            right,
            0.5 * (left + right),
            bool(difference[low] < 0.0),
        )
        point = _point_at_root(
            curve.table, log_q, (left, right), lambda m: (m.dphi2 - target, m.d_dphi2), fixed="sigma_w"
        )
        if point is not None:
            points.append(replace(point, sigma_w=1.0 / math.sqrt(target)))
    return points


def _with_variance(act: Activation, q: float) -> list[CriticalPoint]:
    if act.slopes is not None:
        return [_homogeneous(act, q)] if any(act.slopes) else []
    point = _at_variance(moment_table(act), q, fixed="q")
    return [] if point is None else [point]


def at_zero_variance(act: Activation) -> list[CriticalPoint]:
    """σ_b = 0 and q → 0: φ is its own tangent there. Empty where φ(0) ≠ 0 or φ'(0) = 0."""
    slope2 = _slope_at_zero(act)
    if slope2 is None:
        return []
    sigma_w = 1.0 / math.sqrt(slope2)
    return [CriticalPoint(act, sigma_w, 0.0, 0.0, 1.0, _slope_towards_zero(act, slope2), 4e-16 * sigma_w)]


@lru_cache(maxsize=512)
def _slope_at_zero(act: Activation) -> float | None:
    """lim E[φ'(√q Z)²] for q → 0, or None where φ(0) ≠ 0 or the limit is 0."""
    zero = np.zeros(1)
    if abs(float(act(zero)[0])) > 4e-16:
        return None
    left, right = (float(act.pieces[_piece_at_zero(act, side)][1](zero)[0]) for side in (-1, 1))
    slope2 = 0.5 * (left * left + right * right)
    return slope2 if slope2 > 0.0 else None


def _piece_at_zero(act: Activation, side: int) -> int:
    """Index of the smooth piece just left (−1) or right (1) of 0."""
    return int(np.searchsorted(np.array(act.kinks), 0.0, side="left" if side < 0 else "right"))


@lru_cache(maxsize=512)
def _slope_towards_zero(act: Activation, slope2: float) -> float:
    """V'(0+) of the critical map at q → 0 is 1; whether variances shrink to 0 under it is in the next order.

    Returns 1 where they do (or where V(q) = q to rounding), and the smallest slope above 1 that says no
    otherwise.
    """
    q = np.array([1e-8, 1e-6, 1e-4, 1e-2, 1.0])
    phi2 = evaluate(act, q, ("phi2",))["phi2"][0]
    growth = phi2 / (slope2 * q) - 1.0
    seen = growth[np.abs(growth) > 1e-12]
    return 1.0 if len(seen) == 0 or seen[0] < 0.0 else 1.0 + 10 * SLOPE_TOLERANCE


# --- points of the curve -----------------------------------------------------------------------------------


def _solve_sigma_b(curve: Scan, sigma_b: float, low: int, high: int) -> CriticalPoint | None:
    target = sigma_b * sigma_b
    left, right = curve.log_q[low], curve.log_q[high]
    at_left, at_right = float(curve.bias[low]), float(curve.bias[high])
    start = left + (target - at_left) / (at_right - at_left) * (right - left)
    log_q = root(lambda u: bias_equation(curve.table, u, target), left, right, start, at_left < target)

    def equation(found: PointMoments) -> tuple[float, float]:
        return found.excess / found.dphi2 - target, found.bias_slope

    return _point_at_root(curve.table, log_q, (left, right), equation, fixed="sigma_b", sigma_b=sigma_b)


def _point_at_root(
    table: MomentTable,
    log_q: float,
    bracket: tuple[float, float],
    equation: Callable[[PointMoments], tuple[float, float]],
    *,
    fixed: str,
    sigma_b: float | None = None,
) -> CriticalPoint | None:
    """The point at a root that the table has; where that is not accurate, at the root by quadrature.

    `equation` gives what vanishes at the root, and its derivative by log q.
    """
    point = _at(table, log_q, tabled(table, log_q), fixed, sigma_b)
    if point is not None and log_q <= LOG_HIGH and point.error <= ACCURATE * (1.0 + point.sigma_w):
        return point
    # Some points are looked at more than once.
    moments_at = lru_cache(maxsize=None)(partial(direct, table))
    there = _at(table, log_q, moments_at(log_q), fixed, sigma_b)
    if there is not None and not there.error <= WORST * (there.sigma_w + there.sigma_b):
        return there  # quadrature knows no more than that the point is not known
    found = _by_quadrature(moments_at, log_q, bracket, equation)
    return None if found is None else _at(table, *found, fixed, sigma_b)


def _by_quadrature(
    moments_at: Callable[[float], PointMoments],
    log_q: float,
    bracket: tuple[float, float],
    equation: Callable[[PointMoments], tuple[float, float]],
) -> tuple[float, PointMoments] | None:
    """The root next to log_q and the moments there; None where the table's polynomials alone have one.

    Newton's steps take their slope from the table. Where its polynomials do not follow the moments, they lead
    nowhere, and the bracket is closed from both sides.
    """
    ends: list[tuple[float, float]] = []
    for _ in range(8):
        found = moments_at(log_q)
        value, slope = equation(found) if found.finite else (0.0, 0.0)
        step = -value / slope if slope else 0.0
        if not math.isfinite(step) or abs(step) <= 1e-14 * max(1.0, abs(log_q)):
            break
        ends.append((log_q, value))
        before, log_q = log_q, min(max(log_q + step, bracket[0]), bracket[1])
        if log_q == before:
            break  # the slope leads out of the bracket
    found = moments_at(log_q)
    if not found.finite or not _misses(found, equation):
        return log_q, found
    for end in bracket:
        at_end = moments_at(end)
        if at_end.finite:
            ends.append((end, equation(at_end)[0]))
    below = max((one for one in ends if one[1] < 0.0), key=lambda one: one[1], default=None)
    above = min((one for one in ends if one[1] > 0.0), key=lambda one: one[1], default=None)
    if below is None or above is None:
        return None
    return _closed_in(moments_at, below, above, equation)


def _misses(found: PointMoments, equation: Callable[[PointMoments], tuple[float, float]]) -> bool:
    """Whether what is to vanish does not, by more than the moments' own errors explain."""
    share = max(found.dphi2_error / found.dphi2, 1e-12)
    explained = found.excess_error / found.dphi2 + found.dphi2_error
    explained += share * (abs(found.excess) / found.dphi2 + found.dphi2)
    return abs(equation(found)[0]) > 10.0 * explained


def _closed_in(
    moments_at: Callable[[float], PointMoments],
    below: tuple[float, float],
    above: tuple[float, float],
    equation: Callable[[PointMoments], tuple[float, float]],
) -> tuple[float, PointMoments] | None:
    """The root between (log q, value < 0) and (log q, value > 0), by quadrature alone."""
    from scipy import optimize  # built-in functions need none of it

    def value(log_q: float) -> float:
        found = moments_at(log_q)
        if not found.finite:
            raise ConvergenceError(f"the moments at q = {math.exp(log_q):.4g} are not finite")
        return equation(found)[0]

    log_q: Any = optimize.brentq(value, below[0], above[0], xtol=1e-14, maxiter=60, disp=False)
    found = moments_at(log_q)
    return None if _misses(found, equation) else (log_q, found)


def _at_variance(table: MomentTable, q: float, *, fixed: str) -> CriticalPoint | None:
    """The point of the curve at q, or None where σ_b² < 0."""
    log_q = math.log(q)
    point = _at(table, log_q, tabled(table, log_q), fixed, None)
    if log_q > LOG_HIGH or (point is not None and point.error > ACCURATE * (1.0 + point.sigma_w)):
        point = _at(table, log_q, direct(table, log_q), fixed, None)
    return None if point is None else replace(point, q=q)


def _at(
    table: MomentTable, log_q: float, found: PointMoments, fixed: str, sigma_b: float | None
) -> CriticalPoint | None:
    """The point of the curve with given moments, or None where σ_b² < 0.

    `fixed` names what does not move when q is a little off, `sigma_b` its value when it is that.
    """
    if not found.finite:
        return None
    dphi2 = found.dphi2
    bias, relative = found.excess / dphi2, found.dphi2_error / dphi2
    bias_error = found.excess_error / dphi2 + relative * abs(bias)
    if sigma_b is None:
        if bias < 0.0:
            if bias < -bias_error:
                return None
            bias = 0.0
        sigma_b = math.sqrt(bias)
    sigma_w = 1.0 / math.sqrt(dphi2)
    error, d_bias = 0.5 * sigma_w * relative, found.bias_slope
    if fixed == "sigma_b":
        moved = bias_error / abs(d_bias) if d_bias else math.inf
        error += 0.5 * sigma_w * abs(found.d_dphi2 / dphi2) * moved
    elif fixed == "sigma_w":
        moved = found.dphi2_error / abs(found.d_dphi2) if found.d_dphi2 else math.inf
        error = 0.5 * (bias_error + abs(d_bias) * moved) / max(sigma_b, 1e-300)
    elif not bias_error <= WORST * math.exp(log_q):
        error = math.inf  # σ_b itself is not known
    slope = found.slope / dphi2
    return CriticalPoint(table.activation, sigma_w, sigma_b, math.exp(log_q), 1.0, slope, error)


# --- the whole curve ----------------------------------------------------------------------------------------


@public
@dataclass(frozen=True, repr=False, eq=False)
class CriticalCurve(Drawable):
    """The edge of chaos as a curve.

    Attributes:
        activation: the activation function.
        sigma_b: the values asked for.
        sigma_w: critical σ_w for each; nan where there is no critical point, or none that can be computed.
        q: fixed points of the variance map; nan likewise.
        stable: whether the variance map stays there; False where there is no critical point.
        dropout: probability of dropping an activation; `CriticalPoint` says what the points keep then.
    """

    activation: Activation
    sigma_w: Array
    sigma_b: Array
    q: Array
    stable: NDArray[np.bool_]
    dropout: float = 0.0

    def to_frame(self) -> pd.DataFrame:
        """One row a σ_b."""
        names = ("sigma_b", "sigma_w", "q", "stable")
        return frame({name: np.ravel(getattr(self, name)) for name in names})

    def _headline(self) -> str:
        known = self.sigma_w[np.isfinite(self.sigma_w)]
        noise = f" under dropout {self.dropout:g}" if self.dropout else ""
        return (
            f"{self.activation.name}, critical curve{noise}: {known.size} of {self.sigma_w.size} points, "
            f"sigma_w {known.min(initial=np.inf):.6g} to {known.max(initial=-np.inf):.6g}"
        )


@public
def critical_curve(activation: Any, *, sigma_b: ArrayLike, dropout: float = 0.0) -> CriticalCurve:
    """Compute the edge of chaos for an array of σ_b ≥ 0, for each as :func:`edge_of_chaos` chooses it.

    Raises:
        NoCriticalPointError: there is no critical point for any of the σ_b.
        ArgumentError: a σ_b is negative or not finite, or `dropout` is not in [0, 1).
    """
    act = _resolve(activation)
    values = checks.numbers_of("sigma_b", sigma_b)
    if values.size > MOST_POINTS:
        raise TooLargeError(f"sigma_b must be at most {MOST_POINTS} numbers, got {values.size}")
    wrong = values[~(np.isfinite(values) & (values >= 0.0))]
    if len(wrong):
        raise ArgumentError(f"sigma_b must be finite and >= 0, got {wrong.flat[0]:g}")
    _require_slope(act)
    dropout = checks.fraction("dropout", dropout)
    flat = values.reshape(-1)
    sigma_w, q = np.full_like(flat, np.nan), np.full_like(flat, np.nan)
    stable = np.zeros(len(flat), dtype=bool)
    reason: NoCriticalPointError | ConvergenceError | None = None
    for i, value in enumerate(flat):
        try:
            point = edge_of_chaos(act, sigma_b=float(value), dropout=dropout)
        except (NoCriticalPointError, ConvergenceError) as error:
            reason = error
            continue
        sigma_w[i], q[i], stable[i] = point.sigma_w, point.q, point.is_stable
    if reason is not None and not np.any(np.isfinite(q)):
        raise reason
    shape = values.shape
    return CriticalCurve(
        act, sigma_w.reshape(shape), values, q.reshape(shape), stable.reshape(shape), float(dropout)
    )
