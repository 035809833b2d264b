"""Mean-field theory of one network: variance and correlation maps, fixed points, phase and depth scales.

Poole et al. 2016 (maps and phases), Schoenholz et al. 2017 (depth scales, dropout), Hayou, Doucet &
Rousseau 2019 (any φ), Pretorius et al. 2018 (noise in rectifier networks).

Dropout of probability p multiplies every φ by noise of mean 1 and mean square 1/(1−p). Variances and squared
gradients carry the mean square: σ_w² becomes σ_w²/(1−p) in V and in χ. The covariance of two signals whose
masks are independent carries the means alone, so that C(1) < 1 and correlations never reach 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..activations import Activation
from ..activations import activation as resolve
from ..base import checks
from ..base.boundary import public
from ..base.result import Result
from ..base.tables import Table, facts, frame
from ..errors import ArgumentError, TooLargeError
from ..gaussian import MomentTable, moment_table
from ..gaussian.duals import DualTable
from ..gaussian.duals.slopes import slope_dual
from ..gaussian.expectations import checked_variance, jumps_of
from .convergence import Convergence, convergence_law
from .correlation import correlation_table, is_averaged_out, is_wave, rising_fixed_point, wave_fixed_points
from .variance import (
    SMALLEST,
    FixedPoint,
    fixed_points,
    homogeneous_gain,
    limits,
)

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

# |χ − 1| below this counts as critical: correlations then live for more than 10⁵ layers.
CRITICAL_TOLERANCE = 1e-5
# Where the limit q → ∞ is judged; normalised slopes above 1 by less than LIMIT_TOLERANCE are on their way to
# 1.
LARGEST = 1e6
#: Layers that a map is iterated over, at most: each takes some microseconds.
MOST_ITERATIONS = 10_000_000
LIMIT_TOLERANCE = 0.05

Phase = Literal["ordered", "critical", "chaotic", "vanishing", "stationary", "exploding"]
#: Where χ is below 1, at 1 and above 1: what correlations do, and under dropout what gradients do.
PHASES: tuple[Phase, Phase, Phase] = ("ordered", "critical", "chaotic")
DROPOUT_PHASES: tuple[Phase, Phase, Phase] = ("vanishing", "stationary", "exploding")


class DepthScales(NamedTuple):
    """Depth scales in layers: of the variance's approach to q*, and of the correlation's to c*."""

    xi_q: float
    xi_c: float


@public
@dataclass(frozen=True, repr=False, eq=False)
class MeanField(Result):
    """An infinitely wide network with weights N(0, σ_w²/fan_in) and biases N(0, σ_b²).

    Variances start from 1, that of normalised data; `q_star` is the fixed point that they reach from there.

    With dropout every activation is set to 0 with probability p, and divided by 1 − p otherwise. Correlations
    are those of two signals with separate masks: two inputs of a batch, or one input on two passes. (Two
    inputs under the same mask have the maps of the network without dropout and with σ_w/√(1−p).) They end
    at c* < 1 for every σ_w: there is no edge of chaos, and no depth scale is infinite.

    Args:
        activation: anything :func:`eoc_theory.activation` accepts.
        sigma_w: standard deviation of the weights times √fan_in, > 0.
        sigma_b: standard deviation of the biases, ≥ 0.
        dropout: probability p of dropping an activation, in [0, 1).

    Raises:
        ArgumentError: a standard deviation or the probability is out of range.
    """

    activation: Activation
    sigma_w: float
    sigma_b: float = 0.0
    dropout: float = 0.0

    def __init__(
        self, activation: Any, sigma_w: float, sigma_b: float = 0.0, *, dropout: float = 0.0
    ) -> None:
        object.__setattr__(self, "activation", resolve(activation))
        object.__setattr__(self, "sigma_w", checks.positive("sigma_w", sigma_w))
        object.__setattr__(self, "sigma_b", checks.non_negative("sigma_b", sigma_b))
        object.__setattr__(self, "dropout", checks.fraction("dropout", dropout))

    # --- variance ---

    def variance_map(self, q: ArrayLike) -> Array:
        """V(q) = σ_b² + σ_w² E[φ(√q Z)²]/(1−p) for variances q ≥ 0, of q's shape (inf stays inf)."""
        array = _variances(q)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = self.sigma_b**2 + self._weight * self._moments.phi2(np.where(array > 0.0, array, 1.0))
        at_zero = self.sigma_b**2 + self._weight * float(self.activation(np.zeros(1))[0]) ** 2
        value = np.where(array == 0.0, at_zero, value)
        return np.where(np.isinf(array), np.inf, value)[()]

    def variance_slope(self, q: ArrayLike | None = None) -> Array:
        """V'(q) = σ_w² E[Z φ φ'(√q Z)]/(√q (1−p)), at q* when q is None; at 0 and inf the limit."""
        array = np.asarray(self.q_star) if q is None else _variances(q)
        return slopes(self.activation, array, np.full_like(array, self._weight))[1][()]

    @cached_property
    def q_star(self) -> float:
        """The variance that the map reaches from 1: 0 where it dies out, inf where it grows without bound."""
        return float(limits(self.activation, np.array([self._scale]), np.array([self.sigma_b]))[0, 0])

    @cached_property
    def fixed_points(self) -> tuple[FixedPoint, ...]:
        """All fixed points of the variance map and their stability, by increasing q."""
        return fixed_points(self.activation, self._scale, self.sigma_b)

    def iterate_variance(self, q0: ArrayLike, depth: int) -> Array:
        """Variances of layers 0 to `depth` from q0, shape (depth + 1, *q0's shape)."""
        depth = checks.integer("depth", depth, 0)
        q = np.asarray(_variances(q0))
        _check_iterations(depth, q.size)
        rows = np.empty((depth + 1, *q.shape))
        rows[0] = q
        for i in range(depth):
            rows[i + 1] = self.variance_map(rows[i])
        return rows

    # --- correlation ---

    def chi(self, q: ArrayLike | None = None) -> Array:
        """χ(q) = σ_w² E[φ'(√q Z)²]/(1−p), by which a layer multiplies the mean squared gradient.

        At q* when q is None (its limit where that is 0 or inf); inf at jumps. Without dropout it is C'(1).
        """
        array = np.asarray(self.q_star) if q is None else _variances(q)
        return slopes(self.activation, array, np.full_like(array, self._weight))[0][()]

    def correlation_map(self, c: ArrayLike, q: float | None = None) -> Array:
        """C(c) for two inputs of variance q (q* when None), of c's shape.

        Under dropout C(c) = (σ_b² + σ_w² Φ(c))/V(q): masks are independent, and C(1) < 1.
        Where q* is 0 or inf: the map that correlations follow on the way there.
        """
        c = checks.numbers_of("c", c)
        if not np.all(np.abs(c) <= 1.0):
            raise ArgumentError(f"c must lie in [-1, 1], got {c[~(np.abs(c) <= 1.0)].flat[0]:g}")
        return 1.0 - self.correlation_deficit(1.0 - c, q)

    def correlation_deficit(self, one_minus_c: ArrayLike, q: float | None = None) -> Array:
        """1 − C(c) from 1 − c, with its own relative accuracy; as :meth:`correlation_map`."""
        table, factor, lost = self._correlation_table(q)
        gap = checks.numbers_of("one_minus_c", one_minus_c)
        return np.asarray(lost + factor * table.deficit(gap))[()]

    def iterate_correlation(self, one_minus_c0: ArrayLike, depth: int, q: float | None = None) -> Array:
        """1 − c of layers 0 to `depth` at constant variance q (q* when None), shape (depth + 1, *shape).

        What is iterated is 1 − c itself, so that after 10⁵ layers on the edge of chaos its digits are still
        there.
        """
        depth = checks.integer("depth", depth, 0)
        table, factor, lost = self._correlation_table(q)
        start = checks.numbers_of("one_minus_c0", one_minus_c0)
        _check_iterations(depth, start.size)
        wrong = start[~((start >= 0.0) & (start <= 2.0))]
        if wrong.size:
            raise ArgumentError(f"one_minus_c0 must lie in [0, 2], got {wrong.flat[0]:g}")
        if start.size > 32:
            rows = np.empty((depth + 1, *start.shape))
            rows[0] = start
            for i in range(depth):
                rows[i + 1] = np.minimum(lost + factor * table.deficit(rows[i]), 2.0)
            return rows
        columns = np.empty((depth + 1, start.size))
        for j, gap in enumerate(start.reshape(-1).tolist()):
            columns[0, j] = gap
            for i in range(depth):
                gap = min(lost + factor * table.deficit(gap), 2.0)
                columns[i + 1, j] = gap
        return columns.reshape((depth + 1, *start.shape))

    @cached_property
    def c_star(self) -> float:
        """The stable fixed point of the correlation map: 1 unless the network is chaotic or has dropout."""
        return self._correlation[0]

    # --- phase ---

    @property
    def phase(self) -> Phase:
        """The phase by χ at q*: "ordered" below 1, "critical" where |χ − 1| ≤ 1e-5, "chaotic" above.

        Critical is a depth scale beyond 10⁵ layers. Under dropout correlations have no phases, and the words
        say what becomes of gradients in the backward pass: "vanishing", "stationary" (the same 1e-5) or
        "exploding".
        """
        return cast(Phase, str(phases(np.asarray(self.chi()), self.dropout)))

    @property
    def depth_scales(self) -> DepthScales:
        """(ξ_q, ξ_c) in layers.

        ξ_q = 1/|log |V'(q*)|| (of growth, where q* is inf); ξ_c = −1/log χ in the ordered phase, −1/log
        C'(c*) in the chaotic one and under dropout, inf on the edge of chaos. Where q* = 0 they are the
        limits σ_b → 0+; under dropout ξ_c is that of the map without biases there, as c* is.
        """
        return DepthScales(
            float(scale(np.asarray(self.variance_slope()))), float(scale(self._correlation[1]))
        )

    @property
    def convergence(self) -> Convergence | None:
        """How correlations approach 1 on the edge of chaos; None elsewhere and under dropout."""
        if self.phase != "critical" or not np.isfinite(self.q_star):
            return None
        return convergence_law(self.activation, self.q_star, self.sigma_w)

    # --- shared ---

    def to_frame(self) -> pd.DataFrame:
        """One row with the scales, the fixed point, the phase and the depth scales."""
        return frame({key: [value] for key, value in self._values().items()})

    def _values(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in ("sigma_w", "sigma_b", "dropout")}
        return {"activation": self.activation.name, **given, **self._told()}

    def _told(self) -> dict[str, Any]:
        xi_q, xi_c = self.depth_scales
        return {
            "phase": self.phase,
            "q_star": self.q_star,
            "chi": float(self.chi()),
            "c_star": self.c_star,
            "xi_q": xi_q,
            "xi_c": xi_c,
        }

    def _headline(self) -> str:
        noise = f", dropout {self.dropout:g}" if self.dropout else ""
        return (
            f"{self.activation.name}, sigma_w = {self.sigma_w:.6g}, sigma_b = {self.sigma_b:.6g}{noise}: "
            f"{self.phase}, q* = {self.q_star:.6g}, chi = {float(self.chi()):.6g}"
        )

    def _table(self) -> Table:
        return facts(self._values())

    @property
    def _moments(self) -> MomentTable:
        return moment_table(self.activation)

    @property
    def _scale(self) -> float:
        """The σ_w that variances and gradients see."""
        return self.sigma_w / math.sqrt(1.0 - self.dropout)

    @property
    def _weight(self) -> float:
        return self._scale**2

    @cached_property
    def _correlation(self) -> tuple[float, ArrayLike]:
        if self.dropout:
            gap, slope = dropout_limit(self.activation, self.q_star, self.sigma_w, self.dropout)
            return 1.0 - gap, np.asarray(slope)
        q, weight = np.array([self.q_star]), np.array([self.sigma_w**2])
        chi = slopes(self.activation, q, weight)[0]
        chaotic = chi[0] > 1.0 + CRITICAL_TOLERANCE and 0.0 < self.q_star < np.inf
        if chaotic and self.activation.slopes is None:
            weights, variances = _tabled(self.activation, weight, q)
            found = rising_fixed_point(self.activation, float(variances[0]), float(weights[0]))
            if found is not None:
                return found
        c_star, slope = correlations(self.activation, q, weight, chi)
        return float(c_star[0]), slope[0]

    def _correlation_table(self, q: float | None) -> tuple[DualTable, float, float]:
        """The table of Φ at variance q, and what turns its deficit into that of correlations.

        These are σ_w²/V(q), a factor, and 1 − C(1), to be added.
        """
        if q is None:
            return correlation_terms(self.activation, self.q_star, self.sigma_w, self.dropout)
        q = checks.positive("q", q)
        table, variance = DualTable(self.activation, q), float(self.variance_map(q))
        lost = (self._weight - self.sigma_w**2) * table.phi_at_one / variance if self.dropout else 0.0
        return table, self.sigma_w**2 / variance, lost


def _check_iterations(depth: int, starts: int) -> None:
    if depth > MOST_ITERATIONS:
        raise TooLargeError(f"depth must be at most {MOST_ITERATIONS}, got {depth}")
    checks.memory(f"depth {depth} from {starts} starts", 8.0 * depth * starts, "fewer of one or the other")


def _variances(q: ArrayLike) -> Array:
    array = checks.numbers_of("q", q)
    checked_variance(np.where(np.isposinf(array), 0.0, array))
    return array


# --- for arrays of networks
# -----------------------------------------------------------------------------------


def slopes(act: Activation, q: Array, weight: Array) -> tuple[Array, Array]:
    """χ = C'(1) and V' at variances q (0 and inf: their limits) for σ_w² = weight."""
    gain = homogeneous_gain(act)
    if gain is not None:
        return weight * gain, weight * gain
    table = moment_table(act)
    at = np.where(np.isinf(q), LARGEST, np.maximum(q, SMALLEST))
    return weight * table.dphi2(at), weight * table.slope(at)


def phases(chi: Array, dropout: float = 0.0) -> NDArray[np.str_]:
    """The phase's name for each χ; see `MeanField.phase`."""
    low, middle, high = DROPOUT_PHASES if dropout else PHASES
    found = np.where(chi > 1.0 + CRITICAL_TOLERANCE, high, middle)
    return np.where(chi < 1.0 - CRITICAL_TOLERANCE, low, found)


def correlation_terms(
    act: Activation, q: float, sigma_w: float, dropout: float
) -> tuple[DualTable, float, float]:
    """Φ, factor and lost of 1 − C(c) = lost + factor (Φ(1) − Φ(c)), at a fixed point q of the variances."""
    limit = not 0.0 < q < np.inf
    largest = math.inf if is_wave(act) and not limit else LARGEST
    at = 1.0 if limit and act.slopes is not None else float(np.clip(q, SMALLEST, largest))
    table = DualTable(act, at)
    if limit:
        # There biases are absent or negligible.
        return table, (1.0 - dropout) / table.phi_at_one, dropout
    weight, q = (float(values[0]) for values in _tabled(act, np.array([sigma_w**2]), np.array([q])))
    return table, weight / q, dropout / (1.0 - dropout) * weight * table.phi_at_one / q


def _tabled(act: Activation, weight: Array, q: Array) -> tuple[Array, Array]:
    """σ_w² and q, where q is finite and outside of the tables those at their end with the same σ_w² E[φ²]/q.

    Φ(c)/Φ(1) hardly changes any more out there, but of a wave, whose closed form needs no table.
    """
    if is_wave(act):
        return weight, q
    at = np.where((q > 0.0) & np.isfinite(q), np.clip(q, SMALLEST, LARGEST), q)
    far = at != q
    if not far.any():
        return weight, q
    phi2, weight = moment_table(act).phi2, weight.copy()
    weight[far] *= phi2(q[far]) / phi2(at[far]) * (at[far] / q[far])
    return weight, at


def dropout_limit(act: Activation, q: float, sigma_w: float, dropout: float) -> tuple[float, float]:
    """1 − c* and C'(c*) of the correlation map under dropout, at a fixed point q of the variances.

    C is convex on [0, 1] (Mehler's series has no negative terms) with C(0) ≥ 0 and C(1) < 1: one fixed point
    lies there, and Newton's steps from c = 0 rise to it without passing it.
    """
    if act.slopes is None and (not 0.0 < q < np.inf or is_averaged_out(act, np.array(q))):
        c_star, slope = noisy_correlations(act, np.array([q]), np.array([sigma_w**2]), dropout)
        return 1.0 - float(c_star[0]), float(slope[0])
    table, factor, lost = correlation_terms(act, q, sigma_w, dropout)
    jumps = bool(jumps_of(act).value)

    def slope_at(gap: float) -> float:
        if not jumps:
            return factor * table.q * table.dphi(one_minus_c=gap)
        # The table leaves out the point masses of φ'.
        theta = 2.0 * math.asin(math.sqrt(0.5 * gap))
        dual = float(slope_dual(act, np.array([table.q]), np.array([[theta]]))[0, 0])
        return factor * table.q * dual / math.sin(theta)

    gap = 1.0
    for _ in range(100):
        miss = gap - lost - factor * table.deficit(gap)
        new = min(max(gap - miss / (1.0 - slope_at(gap)), lost), gap)
        if new >= gap * (1.0 - 1e-14):
            break
        gap = new
    return gap, slope_at(gap)


def noisy_correlations(act: Activation, q: Array, weight: Array, dropout: float) -> tuple[Array, Array]:
    """`correlations` under dropout, for the σ_w² = weight of the weights themselves."""
    weight, q = _tabled(act, weight, q)
    limit = (q == 0.0) | np.isinf(q)
    stand_in = np.ones_like(q) if act.slopes is not None else np.clip(q, SMALLEST, limit_variance(act))
    at = np.where(limit, stand_in, q)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        phi2 = moment_table(act).phi2(at)
        weight = np.where(limit, (1.0 - dropout) * at / phi2, weight)
        lost = np.where(limit, dropout, dropout / (1.0 - dropout) * weight * phi2 / at)
    # Where E[φ²] overflows φ grows so fast that signals that differ at all have nothing in common.
    gap, slope = np.ones_like(at), np.zeros_like(at)
    usable = np.isfinite(phi2) & np.isfinite(weight) & (weight > 0.0)
    out = usable & is_averaged_out(act, at)
    gap[out], slope[out] = wave_fixed_points(act, at[out], weight[out], lost[out])
    usable &= ~out
    gap[usable], slope[usable] = correlation_table(act).noisy_fixed_points(
        at[usable], weight[usable], lost[usable]
    )
    return 1.0 - gap, slope


def limit_variance(act: Activation) -> float:
    """Where the limit q → ∞ is judged: an oscillation has long averaged out at a hundred radians."""
    return min(LARGEST, (100.0 / act.oscillation) ** 2) if act.oscillation else LARGEST


def correlations(act: Activation, q: Array, weight: Array, chi: Array) -> tuple[Array, Array]:
    """c* and the slope of the correlation map there, for σ_w² = weight at the variances' fixed points q.

    Where variances die out or grow without bound, correlations follow the normalised map Φ(c)/Φ(1) of that
    limit, judged at q = 1e-12 and 1e6. Its slope at 1 is 1 unless φ grows faster or slower than linearly
    there.
    """
    c_star, slope = np.ones_like(q), np.where(np.abs(chi - 1.0) <= CRITICAL_TOLERANCE, 1.0, chi)
    if act.slopes is not None:
        return c_star, np.where(np.isinf(q), 1.0, slope)
    own = weight
    weight, q = _tabled(act, own, q)
    if np.any(weight != own):
        # Whether it is chaotic must be judged where the tables are read.
        chi = np.where(weight != own, weight * moment_table(act).dphi2(np.where(q > 0.0, q, 1.0)), chi)
    limit = (q == 0.0) | np.isinf(q)
    at = np.where(limit, np.clip(q, SMALLEST, limit_variance(act)), q)
    if limit.any():
        table = moment_table(act)
        with np.errstate(divide="ignore", invalid="ignore"):
            normalised = at[limit] / table.phi2(at[limit])
            relative = normalised * table.dphi2(at[limit])
        weight, chi = weight.copy(), chi.copy()
        weight[limit] = normalised
        chi[limit] = np.where(relative > 1.0 + LIMIT_TOLERANCE, relative, 1.0)
        slope = np.where(np.isinf(q), 1.0, slope)
    chaotic = (chi > 1.0 + CRITICAL_TOLERANCE) & np.isfinite(weight)
    out = chaotic & is_averaged_out(act, at)
    if out.any():
        gap, slope[out] = wave_fixed_points(act, at[out], weight[out], np.zeros(int(out.sum())))
        c_star[out] = 1.0 - gap
    chaotic &= ~out
    if chaotic.any():
        gap, slope[chaotic] = correlation_table(act).fixed_points(at[chaotic], weight[chaotic])
        c_star[chaotic] = 1.0 - gap
    return c_star, slope


def scale(slope: ArrayLike) -> Array:
    """The depth scale 1/|log |slope|| of a fixed point with that slope; inf for 1, 0 for 0."""
    size = np.abs(slope)
    # A slope of 1 to rounding is 1: 2 · (√½)² is not.
    size = np.where(np.abs(size - 1.0) < 1e-14, 1.0, size)
    with np.errstate(divide="ignore"):
        return 1.0 / np.abs(np.log(size))
