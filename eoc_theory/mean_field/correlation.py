"""Fixed points c* < 1 of the correlation map, in the chaotic phase and under dropout, for many networks.

At variance q the map is C(c) = 1 − σ_w² (Φ(1) − Φ(c))/q, and Φ' = q T(c) with T(c) = E[φ'(u)φ'(v)] (Price).
With S(c) = 1/(1−c) ∫_c^1 T, the mean of T, a fixed point c* ≠ 1 has σ_w² S(c*) = 1 and the slope C'(c*) =
σ_w² T(c*). Both depend on q and c alone: one table of T in (log q, θ = arccos c) serves every network with
that activation.

Under dropout with a mask of its own for each input C(c) = 1 − d − σ_w² (1 − c) S(c), d = 1 − C(1) > 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from ..activations import Activation
from ..activations.evaluations import counting
from ..errors import ConvergenceError
from ..gaussian import effort
from ..gaussian.duals import dual
from ..gaussian.duals.slopes import slope_dual
from ..gaussian.expectations import jumps_of, shortest_length
from ..gaussian.tables import FIRST_DECADE, LAST_DECADE

Array = NDArray[np.float64]

# Points per panel of q (half a decade) and over the angles from 0 to π/2, doubled where the interpolant's
# last terms say so.
PANELS = 2
Q_POINTS = 12
ANGLE_POINTS = 28
RESOLVED = 1e-9
MOST_Q_POINTS, MOST_ANGLE_POINTS = 48, 448
# Below this c* is known to rounding by quadrature at a few points, which may take so many evaluations.
ALONE, MOST_WORK = 0.999, 20_000_000
# Squared radians of a wave within √q from which T is solved for by its closed form.
AVERAGED_OUT = 1e4


def _points(n: int) -> Array:
    """Chebyshev points in [0, 1], increasing."""
    return 0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n)


@lru_cache(maxsize=4)
def _coefficients(n: int) -> Array:
    """Matrix from values at the n points to Chebyshev coefficients on [0, 1]."""
    matrix = chebyshev.chebvander(2.0 * _points(n) - 1.0, n - 1).T * (2.0 / n)
    matrix[0] *= 0.5
    return matrix


@dataclass(frozen=True)
class Stretch:
    """Angles θ = w sinh(x X), x in [0, 1] ↔ θ in [0, π/2]: fine near 0, where T changes over w."""

    width: Array
    span: Array

    @classmethod
    def at(cls, act: Activation, q: Array) -> Stretch:
        """The map for variances q."""
        width = 1.0 / np.sqrt(1.0 + q / shortest_length(act) ** 2)
        return cls(width, np.arcsinh(0.5 * np.pi / width))

    def angle(self, x: Array) -> Array:
        """θ at x."""
        return self.width * np.sinh(x * self.span)

    def rate(self, x: Array) -> Array:
        """dθ/dx."""
        return self.width * self.span * np.cosh(x * self.span)

    def at_angle(self, theta: Array) -> Array:
        """x at θ."""
        return np.arcsinh(theta / self.width) / self.span

    def of(self, rows: NDArray[np.bool_]) -> Stretch:
        """The map for some of the variances."""
        return Stretch(self.width[rows], self.span[rows])


class CorrelationTable:
    """T and S over (log q, θ) for one activation, filled panel by panel of q when asked for."""

    def __init__(self, act: Activation) -> None:
        self.activation = act
        # Where φ jumps T and S grow like 1/θ towards θ = 0: then the tables hold T sin θ and S θ.
        self._jumps = jumps_of(act).value
        # Chebyshev coefficients in (log q, x) of T and of log S.
        self._panels: dict[int, tuple[Array, Array]] = {}

    def fixed_points(self, q: Array, sigma_w2: Array) -> tuple[Array, Array]:
        """c* < 1 and the slope C'(c*) for networks in the chaotic phase.

        Args:
            q: fixed points of the variance map, finite and > 0, shape (n,).
            sigma_w2: σ_w² > 1/E[φ'²] at that q, shape (n,).

        Returns:
            1 − c* (n,), in (0, 1]: exactly 1 (c* = 0) where C(0) = 0; and the slope (n,).
        """
        epsilon, slope = np.empty_like(q), np.empty_like(q)
        panel = _panel_of(q)
        for p in np.unique(panel):
            rows = panel == p
            epsilon[rows], slope[rows] = self._solve(int(p), q[rows], sigma_w2[rows])
        return epsilon, slope

    def noisy_fixed_points(self, q: Array, sigma_w2: Array, offset: Array) -> tuple[Array, Array]:
        """c* and C'(c*) of C(c) = 1 − offset − σ_w² (1 − c) S(c), whose only fixed point in [0, 1] c* is.

        Args:
            q: variances, finite and > 0, shape (n,).
            sigma_w2: σ_w² > 0, shape (n,).
            offset: 1 − C(1), in (0, 1], shape (n,).

        Returns:
            1 − c* (n,), in [offset, 1], and the slope (n,), in [0, 1).
        """
        gap, slope = np.ones_like(q), np.zeros_like(q)
        panel = _panel_of(q)
        for p in np.unique(panel):
            rows = np.flatnonzero(panel == p)
            slopes, means = self._panel(int(p))
            basis = chebyshev.chebvander(2.0 * (PANELS * np.log10(q[rows]) - p) - 1.0, len(means) - 1)
            mean, local = (basis @ means).T.copy(), (basis @ slopes).T.copy()
            stretch = Stretch.at(self.activation, q[rows])
            for _ in range(100):
                old, weight = gap[rows], sigma_w2[rows]
                theta = 2.0 * np.arcsin(np.sqrt(0.5 * old))
                x = stretch.at_angle(theta)
                s, t = np.exp(_clenshaw(mean, x)[0]), _clenshaw(local, x)[0]
                if self._jumps:
                    s, t = s / theta, t / np.sin(theta)
                slope[rows] = weight * t
                # C is convex with C(0) ≥ 0 (Mehler): Newton's steps from c = 0 rise to c* and never pass it.
                new = old - (old * (1.0 - weight * s) - offset[rows]) / (1.0 - slope[rows])
                gap[rows] = np.clip(new, offset[rows], old)
                moving = gap[rows] < old * (1.0 - 1e-9)
                if not moving.any():
                    break
                rows, mean, local, stretch = (
                    rows[moving],
                    mean[:, moving],
                    local[:, moving],
                    stretch.of(moving),
                )
        return gap, slope

    def _panel(self, p: int) -> tuple[Array, Array]:
        """Chebyshev coefficients in (log q, x) of T and of log S for one panel of q."""
        if p not in self._panels:
            n, m = Q_POINTS, ANGLE_POINTS
            # Each angle of a closed form is cheap; by quadrature it takes memory and time.
            most = MOST_ANGLE_POINTS if self.activation.closed_form is not None else 2 * ANGLE_POINTS
            for _ in range(7):
                found = self._sample(p, n, m)
                sizes = [max(float(np.abs(c).max()), 1e-300) for c in found]
                in_q = (
                    max(np.abs(c[-2:]).max() / size for c, size in zip(found, sizes, strict=True)) > RESOLVED
                )
                in_angle = (
                    max(np.abs(c[:, -2:]).max() / size for c, size in zip(found, sizes, strict=True))
                    > RESOLVED
                )
                more_q, more_angles = in_q and n < MOST_Q_POINTS, in_angle and m < most
                if not (more_q or more_angles):
                    break
                n, m = (2 * n if more_q else n), (2 * m if more_angles else m)
            self._panels[p] = found
        return self._panels[p]

    def _sample(self, p: int, n: int, m: int) -> tuple[Array, Array]:
        q = 10.0 ** ((p + _points(n)) / PANELS)
        stretch = Stretch.at(self.activation, q[:, None])
        x = _points(m)
        along = slope_dual(self.activation, q, stretch.angle(x)) @ _coefficients(m).T
        # In the dead zone of a shrinking function everything underflows.
        mean = np.maximum(_mean_from_zero(along, stretch, x, self._jumps), 1e-300)
        to_q = _coefficients(n)
        return to_q @ along, to_q @ np.log(mean) @ _coefficients(m).T

    def _solve(self, p: int, q: Array, sigma_w2: Array) -> tuple[Array, Array]:
        slopes, means = self._panel(p)
        basis = chebyshev.chebvander(2.0 * (PANELS * np.log10(q) - p) - 1.0, len(means) - 1)
        mean = (basis @ means).T.copy()
        # log σ_w² S falls from log χ > 0 at x = 0; C(0) ≥ 0 keeps it ≤ 0 at x = 1.
        grid = np.linspace(0.0, 1.0, 17)
        coarse = chebyshev.chebvander(2.0 * grid - 1.0, len(mean) - 1) @ mean + np.log(sigma_w2)
        stretch = Stretch.at(self.activation, q)
        if self._jumps:
            with np.errstate(divide="ignore"):
                coarse = coarse - np.log(stretch.angle(grid[:, None]))
        cell = np.clip((coarse[1:-1] > 0.0).sum(axis=0), 0, len(grid) - 2)
        at = np.arange(len(q))
        low, high = coarse[cell, at], coarse[cell + 1, at]
        with np.errstate(all="ignore"):
            share = np.where(np.isfinite(low), low / (low - high), 0.5)
        x = grid[cell] + np.clip(share, 0.0, 1.0) * (grid[1] - grid[0])
        left, right = grid[cell].copy(), grid[cell + 1].copy()
        active, target = at, np.log(sigma_w2)
        for _ in range(30):
            value, derivative = _clenshaw(mean[:, active] if len(active) < len(at) else mean, x[active])
            value = value + target[active]
            if self._jumps:
                some = Stretch(stretch.width[active], stretch.span[active])
                theta = some.angle(x[active])
                value, derivative = value - np.log(theta), derivative - some.rate(x[active]) / theta
            above = value > 0.0
            left[active] = np.where(above, x[active], left[active])
            right[active] = np.where(above, right[active], x[active])
            with np.errstate(all="ignore"):
                new = x[active] - value / derivative
            inside = (new >= left[active]) & (new <= right[active])
            new = np.where(inside, new, 0.5 * (left[active] + right[active]))
            moved = np.abs(new - x[active])
            x[active] = new
            active = active[moved > 1e-6]
            if len(active) == 0:
                break
        theta = stretch.angle(x)
        slope = sigma_w2 * _clenshaw((basis @ slopes).T, x)[0]
        if self._jumps:
            slope = slope / np.sin(theta)
        return np.minimum(2.0 * np.sin(0.5 * theta) ** 2, 1.0), slope


def rising_fixed_point(act: Activation, q: float, sigma_w2: float) -> tuple[float, float] | None:
    """c* and C'(c*) of one chaotic network without dropout, by quadrature of the dual alone.

    C is convex on [0, 1], and Newton's steps from c = 0 rise to c*. None above `ALONE`, where Φ(1) − Φ(c)
    would lose digits that tables keep; where φ jumps; and where it takes too much work.
    """
    if jumps_of(act).value:
        return None
    c, share = 0.0, sigma_w2 / q
    try:
        with counting(effort.allowance(act, MOST_WORK)) as work:
            whole = dual(act, q, q, 1.0)
            while c < ALONE and work.spent <= work.limit:
                part, slope = dual(act, q, q, c), sigma_w2 * float(dual(act, q, q, c, order=1).value)
                missed = 1.0 - c - share * float(whole.value - part.value)
                if missed <= share * float(whole.error + part.error) + 4e-16:
                    return c, slope
                c += missed / max(1.0 - slope, 1e-300)
    except ConvergenceError:
        pass
    return None


def is_wave(act: Activation) -> bool:
    """Whether φ is nothing but a wave, sin or cos."""
    return act.closed_form is not None and act.oscillation > 0.0


def is_averaged_out(act: Activation, q: Array) -> NDArray[np.bool_]:
    """Of which variances, of any shape, a wave makes so many radians that tables are too coarse for T."""
    return np.isfinite(q) & (
        act.oscillation**2 * q > AVERAGED_OUT if is_wave(act) else np.zeros(q.shape, bool)
    )


def wave_fixed_points(act: Activation, q: Array, sigma_w2: Array, offset: Array) -> tuple[Array, Array]:
    """As `CorrelationTable.noisy_fixed_points` for a wave at large variances, by its closed form.

    Without an offset they are those below c = 1 of networks in the chaotic phase. Newton's steps from c = 0
    rise to them, as there; and at once, since T is 0 but next to c = 1.
    """
    gap = np.ones_like(q)
    whole = dual(act, q, q, 1.0).value
    for _ in range(100):
        old, share = gap, sigma_w2 / q
        covered = whole - dual(act, q, q, one_minus_c=old).value
        slope = sigma_w2 * dual(act, q, q, one_minus_c=old, order=1).value
        gap = np.clip(old - (old - offset - share * covered) / (1.0 - slope), offset, old)
        if not np.any(gap < old * (1.0 - 1e-15)):
            break
    return gap, slope


def _panel_of(q: Array) -> NDArray[np.intp]:
    """The number of the panel of each q."""
    panel = np.floor(PANELS * np.log10(q)).astype(np.intp)
    return np.clip(panel, PANELS * FIRST_DECADE, PANELS * LAST_DECADE - 1)


def _mean_from_zero(along: Array, stretch: Stretch, x: Array, jumps: bool) -> Array:
    """S (S θ where φ jumps) at the points x from Chebyshev coefficients of T (T sin θ), a row for each q."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    ends = np.concatenate([[0.0], x])
    half = 0.5 * np.diff(ends)
    inner = (half[:, None] * nodes + 0.5 * (ends[1:] + ends[:-1])[:, None]).reshape(-1)
    values = along @ chebyshev.chebvander(2.0 * inner - 1.0, along.shape[1] - 1).T
    values *= stretch.rate(inner)
    if not jumps:
        values *= np.sin(stretch.angle(inner))
    pieces = (values.reshape(len(along), len(x), -1) @ weights) * half
    theta = stretch.angle(x)
    mean = np.cumsum(pieces, axis=1) / (2.0 * np.sin(0.5 * theta) ** 2)
    return mean * theta if jumps else mean


def _clenshaw(coefficients: Array, x: Array) -> tuple[Array, Array]:
    """Σ_k c_k T_k(2x − 1) and its derivative; coefficients (k, n), x (n,)."""
    t = 2.0 * (2.0 * x - 1.0)
    b1, b2 = np.zeros_like(x), np.zeros_like(x)
    d1, d2 = np.zeros_like(x), np.zeros_like(x)
    for k in range(len(coefficients) - 1, 0, -1):
        d1, d2 = t * d1 + 2.0 * b1 - d2, d1
        b1, b2 = t * b1 + coefficients[k] - b2, b1
    half = 0.5 * t
    return coefficients[0] + half * b1 - b2, 2.0 * (b1 + half * d1 - d2)


@lru_cache(maxsize=64)
def correlation_table(act: Activation) -> CorrelationTable:
    """The table of an activation, made once."""
    return CorrelationTable(act)
