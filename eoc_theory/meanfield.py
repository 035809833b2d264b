"""Mean-field theory of one network: variance and correlation maps, fixed points, phase and depth scales.

Poole et al. 2016 (maps and phases), Schoenholz et al. 2017 (depth scales), Hayou, Doucet & Rousseau 2019
(any φ).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .activations import Activation
from .activations import activation as resolve
from .convergence import Convergence, convergence_law
from .correlation import correlation_table
from .duals import DualTable
from .errors import ArgumentError
from .gaussian import MomentTable, moment_table
from .gaussian.expectations import checked_variance
from .variance import SMALLEST, FixedPoint, fixed_points, homogeneous_gain, limits

Array = NDArray[np.float64]

# |χ − 1| below this counts as critical: correlations then live for more than 10⁵ layers.
CRITICAL_TOLERANCE = 1e-5
# Where the limit q → ∞ is judged; normalised slopes above 1 by less than LIMIT_TOLERANCE are on their way to
# 1.
LARGEST = 1e6
LIMIT_TOLERANCE = 0.05


class DepthScales(NamedTuple):
    """Depth scales in layers: of the variance's approach to q*, and of the correlation's to c*."""

    xi_q: float
    xi_c: float


@dataclass(frozen=True)
class MeanField:
    """An infinitely wide network with weights N(0, σ_w²/fan_in) and biases N(0, σ_b²).

    Variances start from normalised data's, 1: `q_star` is the fixed point that they reach from there.

    Args:
        activation: anything :func:`eoc_theory.activation` accepts.
        sigma_w: standard deviation of the weights times √fan_in, > 0.
        sigma_b: standard deviation of the biases, ≥ 0.

    Raises:
        ArgumentError: a standard deviation is out of range.
    """

    activation: Activation
    sigma_w: float
    sigma_b: float = 0.0

    def __init__(self, activation: Any, sigma_w: float, sigma_b: float = 0.0) -> None:
        object.__setattr__(self, "activation", resolve(activation))
        object.__setattr__(self, "sigma_w", checks.positive("sigma_w", sigma_w))
        object.__setattr__(self, "sigma_b", checks.non_negative("sigma_b", sigma_b))

    # --- variance ---

    def variance_map(self, q: ArrayLike) -> Array:
        """V(q) = σ_b² + σ_w² E[φ(√q Z)²] for variances q ≥ 0, of q's shape (inf stays inf)."""
        array = _variances(q)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = self.sigma_b**2 + self.sigma_w**2 * self._table.phi2(np.where(array > 0.0, array, 1.0))
        at_zero = self.sigma_b**2 + self.sigma_w**2 * float(self.activation(np.zeros(1))[0]) ** 2
        value = np.where(array == 0.0, at_zero, value)
        return np.where(np.isinf(array), np.inf, value)[()]

    def variance_slope(self, q: ArrayLike | None = None) -> Array:
        """V'(q) = σ_w² E[Z φ φ'(√q Z)]/√q, at q* when q is None; at 0 and inf the limit."""
        array = np.asarray(self.q_star) if q is None else _variances(q)
        return slopes(self.activation, array, np.full_like(array, self.sigma_w**2))[1][()]

    @cached_property
    def q_star(self) -> float:
        """The variance that the map reaches from 1: 0 where it dies out, inf where it grows without bound."""
        return float(limits(self.activation, np.array([self.sigma_w]), np.array([self.sigma_b]))[0, 0])

    @cached_property
    def fixed_points(self) -> tuple[FixedPoint, ...]:
        """All fixed points of the variance map and their stability, by increasing q."""
        return fixed_points(self.activation, self.sigma_w, self.sigma_b)

    def iterate_variance(self, q0: ArrayLike, depth: int) -> Array:
        """Variances of layers 0 to `depth` from q0, shape (depth + 1, *q0's shape)."""
        depth = checks.integer("depth", depth, 0)
        q = np.asarray(_variances(q0))
        rows = np.empty((depth + 1, *q.shape))
        rows[0] = q
        for i in range(depth):
            rows[i + 1] = self.variance_map(rows[i])
        return rows

    # --- correlation ---

    def chi(self, q: ArrayLike | None = None) -> Array:
        """χ(q) = σ_w² E[φ'(√q Z)²], at q* when q is None (its limit where that is 0 or inf); inf at jumps."""
        array = np.asarray(self.q_star) if q is None else _variances(q)
        return slopes(self.activation, array, np.full_like(array, self.sigma_w**2))[0][()]

    def correlation_map(self, c: ArrayLike, q: float | None = None) -> Array:
        """C(c) for two inputs of variance q (q* when None), of c's shape.

        Where q* is 0 or inf: the map that correlations follow on the way there.
        """
        c = np.asarray(c, dtype=np.float64)
        if not np.all(np.abs(c) <= 1.0):
            raise ArgumentError(f"c must lie in [-1, 1], got {c[~(np.abs(c) <= 1.0)].flat[0]:g}")
        return 1.0 - self.correlation_deficit(1.0 - c, q)

    def correlation_deficit(self, one_minus_c: ArrayLike, q: float | None = None) -> Array:
        """1 − C(c) from 1 − c, with its own relative accuracy; as :meth:`correlation_map`."""
        table, factor = self._correlation_table(q)
        gap = np.asarray(one_minus_c, dtype=np.float64)
        return np.asarray(factor * table.deficit(gap))[()]

    def iterate_correlation(self, one_minus_c0: ArrayLike, depth: int, q: float | None = None) -> Array:
        """1 − c of layers 0 to `depth` at constant variance q (q* when None), shape (depth + 1, *shape).

        What is iterated is 1 − c itself, so that after 10⁵ layers on the edge of chaos its digits are still
        there.
        """
        depth = checks.integer("depth", depth, 0)
        table, factor = self._correlation_table(q)
        start = np.asarray(one_minus_c0, dtype=np.float64)
        wrong = start[~((start >= 0.0) & (start <= 2.0))]
        if wrong.size:
            raise ArgumentError(f"one_minus_c0 must lie in [0, 2], got {wrong.flat[0]:g}")
        if start.size > 32:
            rows = np.empty((depth + 1, *start.shape))
            rows[0] = start
            for i in range(depth):
                rows[i + 1] = np.minimum(factor * table.deficit(rows[i]), 2.0)
            return rows
        columns = np.empty((depth + 1, start.size))
        for j, gap in enumerate(start.reshape(-1).tolist()):
            columns[0, j] = gap
            for i in range(depth):
                gap = min(factor * table.deficit(gap), 2.0)
                columns[i + 1, j] = gap
        return columns.reshape((depth + 1, *start.shape))

    @cached_property
    def c_star(self) -> float:
        """The stable fixed point of the correlation map: 1 unless the network is chaotic."""
        return self._correlation[0]

    # --- phase ---

    @property
    def phase(self) -> Literal["ordered", "critical", "chaotic"]:
        """The phase by χ at q*; "critical" where |χ − 1| ≤ 1e-5, which is a depth scale beyond 10⁵ layers."""
        chi = float(self.chi())
        if abs(chi - 1.0) <= CRITICAL_TOLERANCE:
            return "critical"
        return "ordered" if chi < 1.0 else "chaotic"

    @property
    def depth_scales(self) -> DepthScales:
        """(ξ_q, ξ_c) in layers.

        ξ_q = 1/|log |V'(q*)|| (of growth, where q* is inf); ξ_c = −1/log χ in the ordered phase, −1/log
        C'(c*) in the chaotic one, inf on the edge of chaos. Where q* = 0 they are the limits σ_b → 0+.
        """
        return DepthScales(
            float(scale(np.asarray(self.variance_slope()))), float(scale(self._correlation[1]))
        )

    @property
    def convergence(self) -> Convergence | None:
        """The law by which correlations approach 1 on the edge of chaos; None in the other phases."""
        if self.phase != "critical" or not np.isfinite(self.q_star):
            return None
        return convergence_law(self.activation, self.q_star, self.sigma_w)

    # --- shared ---

    @property
    def _table(self) -> MomentTable:
        return moment_table(self.activation)

    @cached_property
    def _correlation(self) -> tuple[float, Array]:
        q, weight = np.array([self.q_star]), np.array([self.sigma_w**2])
        c_star, slope = correlations(self.activation, q, weight, slopes(self.activation, q, weight)[0])
        return float(c_star[0]), slope[0]

    def _correlation_table(self, q: float | None) -> tuple[DualTable, float]:
        """The table of Φ at variance q, and σ_w²/V(q): what turns its deficit into that of correlations."""
        if q is not None:
            q = checks.positive("q", q)
            return DualTable(self.activation, q), self.sigma_w**2 / float(self.variance_map(q))
        q = self.q_star
        if homogeneous_gain(self.activation) is not None and not 0.0 < q < np.inf:
            q, limit = 1.0, True
        else:
            limit = not 0.0 < q < np.inf
            q = float(np.clip(q, SMALLEST, LARGEST))
        table = DualTable(self.activation, q)
        # In the limits 0 and inf biases are absent or negligible.
        return table, 1.0 / table.phi_at_one if limit else self.sigma_w**2 / q


def _variances(q: ArrayLike) -> Array:
    array = np.asarray(q, dtype=np.float64)
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
    log_q = np.log(np.clip(q, SMALLEST, LARGEST))
    return weight * table.at_log(log_q, "dphi2")[0], weight * table.at_log(log_q, "slope")[0]


def correlations(act: Activation, q: Array, weight: Array, chi: Array) -> tuple[Array, Array]:
    """c* and the slope of the correlation map there, for σ_w² = weight at the variances' fixed points q.

    Where variances die out or grow without bound, correlations follow the normalised map Φ(c)/Φ(1) of that
    limit, judged at q = 1e-12 and 1e6. Its slope at 1 is 1 unless φ grows faster or slower than linearly
    there.
    """
    c_star, slope = np.ones_like(q), np.where(np.abs(chi - 1.0) <= CRITICAL_TOLERANCE, 1.0, chi)
    if act.slopes is not None:
        return c_star, np.where(np.isinf(q), 1.0, slope)
    limit = (q == 0.0) | np.isinf(q)
    # An oscillation has long averaged out where √q spans a hundred radians.
    largest = min(LARGEST, (100.0 / act.oscillation) ** 2) if act.oscillation else LARGEST
    at = np.where(limit, np.clip(q, SMALLEST, largest), q)
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
