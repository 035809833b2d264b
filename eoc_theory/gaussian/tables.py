"""Tables of an activation's moments over q in [10⁻¹², 10⁶]: fast, vectorised, accurate to about 10⁻¹³.

In log q the moments are analytic (for tanh in a strip of half width π), so a Chebyshev interpolant on each
decade reaches rounding. For evaluation it is cut into eighths of a decade with polynomials of degree 9,
found by one index. Moments that vary by orders of magnitude within a decade are interpolated in their
logarithm.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from ..activations import Activation, activation, evaluations
from ..errors import DivergentExpectationError
from . import effort
from .expectations import Array, evaluate

FIRST_DECADE, LAST_DECADE = -12, 6
DECADES = LAST_DECADE - FIRST_DECADE
CELLS = 8  # per decade
DEGREE = 9
LOG_LOW, LOG_HIGH = FIRST_DECADE * math.log(10.0), LAST_DECADE * math.log(10.0)
TOP = 10.0**LAST_DECADE
CELL_WIDTH = math.log(10.0) / CELLS
# Quadrature above the tables takes as many nodes as φ makes radians within √q.
MOST_RADIANS = 1e5
# … and with so many of them a wave has averaged out.
AVERAGED_OUT = 1e3
MANY_PLACES = 200
# Where what polynomials leave out is above this, relative to the value, quadrature takes over.
LOOSE = 1e-11
NAMES = ("phi2", "dphi2", "ddphi2", "slope", "excess")


def _chebyshev_points(n: int) -> Array:
    return np.cos(np.pi * (np.arange(n) + 0.5) / n)[::-1]


@lru_cache(maxsize=8)
def _to_coefficients(n: int) -> Array:
    """Matrix from values at n Chebyshev points to Chebyshev coefficients."""
    matrix = chebyshev.chebvander(_chebyshev_points(n), n - 1).T * (2.0 / n)
    matrix[0] *= 0.5
    return matrix


@lru_cache(maxsize=8)
def _to_monomials() -> Array:
    """Matrix from values at the DEGREE + 1 points of a cell to monomial coefficients in t ∈ [−1, 1]."""
    change = np.zeros((DEGREE + 1, DEGREE + 1))
    for k in range(DEGREE + 1):
        unit = np.zeros(k + 1)
        unit[k] = 1.0
        change[: k + 1, k] = chebyshev.cheb2poly(unit)
    return change @ _to_coefficients(DEGREE + 1)


@lru_cache(maxsize=8)
def _resample(n: int) -> Array:
    """Matrix from values at a decade's n Chebyshev points to those at its cells' points."""
    t = _cell_points()
    return chebyshev.chebvander(t, n - 1) @ _to_coefficients(n)


def _cell_points() -> Array:
    """The points of the cells within a decade scaled to [−1, 1], shape (CELLS, DEGREE + 1)."""
    centres = (2.0 * np.arange(CELLS) + 1.0) / CELLS - 1.0
    return centres[:, None] + _chebyshev_points(DEGREE + 1) / CELLS


def _decade_variances(decade: int, t: Array) -> Array:
    """q at the points t ∈ [−1, 1] of a decade counted from the first."""
    return 10.0 ** (FIRST_DECADE + decade + 0.5 * (t + 1.0))


def _cell_of(log_q: Array) -> NDArray[np.intp]:
    """The cell in which each log q lies, the nearest one outside of the table."""
    return np.clip((log_q - LOG_LOW) / CELL_WIDTH, 0, DECADES * CELLS - 1).astype(np.intp)


class MomentTable:
    """E[φ²], E[φ'²], E[φ''²], dE[φ²]/dq and q E[φ'²] − E[φ²] of one activation as fast functions of q.

    Decades are filled when they are first asked for, each by itself and by one thread, so that what is in
    them does not depend on who asked for what before. Outside [10⁻¹², 10⁶] moments follow the power law they
    have at that end; above, :meth:`direct` computes them. Use :func:`moment_table`, which keeps one table for
    each activation.
    """

    def __init__(self, act: Activation) -> None:
        self.activation = act
        cells = DECADES * CELLS
        self._coefficients = {name: np.full((DEGREE + 1, cells), np.nan) for name in NAMES}
        self._logarithmic = {name: np.zeros(cells, dtype=bool) for name in NAMES}
        self._filled = {name: np.zeros(DECADES, dtype=bool) for name in NAMES}
        self._filling = threading.RLock()
        # Evaluations that each decade has taken.
        self._spent: dict[int, int] = {}
        # Error of a cell's values, relative where these are logarithms.
        self._errors = {name: np.zeros(cells) for name in NAMES}
        # What of it comes of the polynomials and not of the moments that they were fitted to.
        self._left_out = {name: np.zeros(cells) for name in NAMES}
        # The computed points themselves: (q, value, error) of each decade.
        self._samples: dict[str, dict[int, tuple[Array, Array, Array]]] = {name: {} for name in NAMES}
        self._complete: dict[str, bool] = {name: False for name in NAMES}
        # The same numbers as plain tuples: for one q Python is quicker than NumPy.
        self._rows: dict[str, dict[int, tuple[list[float], bool, float]]] = {name: {} for name in NAMES}

    def phi2(self, q: ArrayLike) -> Array:
        """E[φ(√q Z)²], of q's shape."""
        return self.values(np.asarray(q, dtype=np.float64), "phi2")

    def dphi2(self, q: ArrayLike) -> Array:
        """E[φ'(√q Z)²], of q's shape; inf where φ jumps."""
        return self.values(np.asarray(q, dtype=np.float64), "dphi2")

    def ddphi2(self, q: ArrayLike) -> Array:
        """E[φ''(√q Z)²], of q's shape; inf where φ' jumps."""
        return self.values(np.asarray(q, dtype=np.float64), "ddphi2")

    def slope(self, q: ArrayLike) -> Array:
        """dE[φ²]/dq = E[Z φ φ'(√q Z)]/√q, of q's shape."""
        return self.values(np.asarray(q, dtype=np.float64), "slope")

    def excess(self, q: ArrayLike) -> Array:
        """q E[φ'²] − E[φ²] without cancellation, of q's shape; inf where φ jumps."""
        return self.values(np.asarray(q, dtype=np.float64), "excess")

    def values(self, q: Array, name: str) -> Array:
        """The named moment at an array q > 0; by quadrature above the table's range, if within reach, and
        where the table's polynomials do not follow the moment.
        """
        value = self.at_log(np.log(q), name)[0]
        direct = (q > TOP) & np.isfinite(q)
        if np.max(self._left_out[name]) > LOOSE:
            left_out = self._of_cells(self._left_out[name], np.log(q), name, value)
            size = np.abs(value)
            if name == "slope":
                # Against q it is E[φ²] that a slope is small to.
                size = size + self.at_log(np.log(q), "phi2")[0] / q
            direct |= (left_out > LOOSE * size) & np.isfinite(value)
        if np.any(direct):
            value = np.array(value)
            found, _ = self.direct(q[direct], (name,))[name]
            value[direct] = np.where(np.isfinite(found), found, value[direct])
        return value

    def _of_cells(self, errors: Array, log_q: Array, name: str, value: Array) -> Array:
        """Absolute errors from those of the cells, which may be relative."""
        cell = _cell_of(log_q)
        with np.errstate(invalid="ignore"):
            return errors[cell] * np.where(self._logarithmic[name][cell], np.abs(value), 1.0)

    def direct(self, q: Array, names: Sequence[str]) -> dict[str, tuple[Array, Array]]:
        """The named moments and their errors at given variances by quadrature instead of the table; q (n,).

        NaN where that is out of reach: for an oscillation of many radians within √q, and for moments that do
        not exist or overflow.
        """
        found = {name: (np.full_like(q, np.nan), np.full_like(q, np.nan)) for name in names}
        near = np.flatnonzero(self.activation.oscillation * np.sqrt(q) <= MOST_RADIANS)
        groups = [near]
        while groups:
            rows = groups.pop()
            if not len(rows):
                continue
            try:
                for name, (value, error) in evaluate(self.activation, q[rows], names).items():
                    usable = np.isfinite(value) & np.isfinite(error)
                    for into, values in zip(found[name], (value, error), strict=True):
                        into[rows] = np.where(usable, values, np.nan)
            except DivergentExpectationError:
                if len(rows) > 1:
                    groups += [rows[i : i + 1] for i in range(len(rows))]
        return found

    def samples(self, name: str) -> tuple[Array, Array, Array]:
        """The computed points behind the table, over its whole range: q (increasing), values, errors.

        Raises:
            ConvergenceError: all decades together take too much work.
        """
        if not self._complete[name]:
            # Large variances first: what is refused is refused before the rest is computed.
            for decade in reversed(range(DECADES)):
                self._fill(name, np.array([decade * CELLS]))
                effort.check(self.activation, self._spent)
        parts = [self._samples[name][decade] for decade in range(DECADES)]
        q, value, error = (np.concatenate([part[i] for part in parts]) for i in range(3))
        return q, value, error

    def at_log(self, log_q: Array, name: str, derivative: bool = False) -> tuple[Array, Array]:
        """The named moment at log q and, if wanted, its derivative by log q (else the moment again)."""
        inside = np.clip(log_q, LOG_LOW, LOG_HIGH)
        position = (inside - LOG_LOW) / CELL_WIDTH
        cell = np.minimum(position.astype(np.intp), DECADES * CELLS - 1)
        self._fill(name, cell)
        t = 2.0 * (position - cell) - 1.0
        coefficients = self._coefficients[name]
        outside = inside != log_q
        beyond = bool(outside.any())
        value = coefficients[DEGREE].take(cell)
        slope = np.zeros_like(value)
        for k in range(DEGREE - 1, -1, -1):
            if derivative or beyond:
                slope *= t
                slope += value
            value *= t
            value += coefficients[k].take(cell)
        slope *= 2.0 / CELL_WIDTH
        logarithmic = self._logarithmic[name]
        if logarithmic.any():
            chosen = logarithmic[cell]
            with np.errstate(all="ignore"):
                value = np.where(chosen, np.exp(np.where(chosen, value, 0.0)), value)
                slope = np.where(chosen, slope * value, slope)
        if beyond:
            with np.errstate(all="ignore"):
                power = np.where(value != 0.0, slope / value, 0.0)
                factor = np.where(outside, np.exp(power * (log_q - inside)), 1.0)
            value, slope = value * factor, slope * factor
        return value, (slope if derivative else value)

    def at(self, q: float, name: str) -> tuple[float, float]:
        """The named moment at one q and its derivative with respect to log q."""
        return self.at_one_log(math.log(q), name)

    def at_one_log(self, log_q: float, name: str) -> tuple[float, float]:
        """As :meth:`at`, from log q."""
        if not LOG_LOW < log_q < LOG_HIGH:
            value, slope = self.at_log(np.array([log_q]), name, derivative=True)
            return float(value[0]), float(slope[0])
        position = (log_q - LOG_LOW) / CELL_WIDTH
        cell = min(int(position), DECADES * CELLS - 1)
        row = self._rows[name].get(cell) or self._row(name, cell)
        t = 2.0 * (position - cell) - 1.0
        value = slope = 0.0
        for c in row[0]:
            slope = slope * t + value
            value = value * t + c
        slope *= 2.0 / CELL_WIDTH
        if row[1]:
            value = math.exp(value)
            slope *= value
        return value, slope

    def error(self, q: float, name: str, value: float) -> float:
        """Estimated absolute error of the named moment's value at one q, without the rounding of log q."""
        cell = min(max(int((math.log(q) - LOG_LOW) / CELL_WIDTH), 0), DECADES * CELLS - 1)
        row = self._rows[name].get(cell) or self._row(name, cell)
        return row[2] * abs(value) if row[1] else row[2]

    def _row(self, name: str, cell: int) -> tuple[list[float], bool, float]:
        """A cell's coefficients, whether they are a logarithm's, and its error, as Python's numbers."""
        self._fill(name, np.array([cell]))
        row = (
            self._coefficients[name][::-1, cell].tolist(),
            bool(self._logarithmic[name][cell]),
            float(self._errors[name][cell]),
        )
        self._rows[name][cell] = row
        return row

    def _fill(self, name: str, cells: np.ndarray) -> None:
        if self._complete[name]:
            return
        filled = self._filled[name]
        wanted = np.unique(cells // CELLS)
        if not filled[wanted].all():
            # Neighbouring moments cost little once the nodes are there, and are wanted soon.
            together = ("phi2", "slope", "dphi2", "excess") if name != "ddphi2" else ("ddphi2",)
            with self._filling:
                for decade in wanted[~filled[wanted]].tolist():
                    self._work_on(decade, together)
                    # Last, since other threads read what is filled without waiting.
                    for one in together:
                        self._filled[one][decade] = True
        self._complete[name] = bool(filled.all())

    def _work_on(self, decade: int, names: Sequence[str]) -> None:
        """Build a decade within what it may take."""
        with evaluations.counting(effort.allowance(self.activation)) as work:
            if self._overflows(decade):
                self._samples_of_infinity(decade, names)
            else:
                self._build(decade, names, work)
        number = FIRST_DECADE + decade
        self._spent[number] = self._spent.get(number, 0) + work.spent

    def _build(self, decade: int, names: Sequence[str], work: evaluations.Work) -> None:
        fitted: set[str] = set()
        for n in self._degrees(decade):
            q = _decade_variances(decade, _chebyshev_points(n))
            before = work.spent
            found = self._sample(q, names)
            # Twice as many points take twice as much.
            last = work.spent + 2 * (work.spent - before) > work.limit
            for name, (value, error) in found.items():
                # Of one set of points for all names, so that samples of several can be combined.
                self._samples[name][decade] = (q, value, error)
                if name not in fitted and self._fit(decade, n, name, value, error, last):
                    fitted.add(name)
            if len(fitted) == len(names):
                return
        self._fit_cells(decade, names, fitted)

    def _overflows(self, decade: int) -> bool:
        """Whether all moments of a decade are beyond floats; not asked of built-in functions."""
        act = self.activation
        # E[exp(2 rate √q Z)] = exp(2 rate² q); the rate is no better known than to a few per cent.
        largest = 2.0 * act.growth.rate**2 * 10.0 ** (FIRST_DECADE + decade)
        return act.source is not None and act.growth.kind == "exponential" and largest > 2000.0

    def _samples_of_infinity(self, decade: int, names: Sequence[str]) -> None:
        q = _decade_variances(decade, _chebyshev_points(20))
        infinite = np.full_like(q, np.inf)
        for name in names:
            self._samples[name][decade] = (q, infinite, infinite)
            self._fit(decade, len(q), name, infinite, infinite)

    def _degrees(self, decade: int) -> tuple[int, ...]:
        """Numbers of points that are tried one after the other."""
        radians = self.activation.oscillation * 10.0 ** (0.5 * (FIRST_DECADE + decade + 1))
        # A wave that long averages out, and what is left of the moments is close to a power law. Structure in
        # very many places makes each point dear.
        dear = radians > AVERAGED_OUT or len(self.activation.scale_points) > MANY_PLACES
        few = self.activation.source is not None and dear
        return (10, 20, 40, 80) if few else (20, 40, 80)

    def _sample(self, q: Array, names: Sequence[str]) -> dict[str, tuple[Array, Array]]:
        """Moments and errors at the variances q."""
        try:
            return evaluate(self.activation, q, names)
        except DivergentExpectationError:
            rows = [self._one(float(v), names) for v in q]
            return {
                name: (np.array([row[name][0] for row in rows]), np.array([row[name][1] for row in rows]))
                for name in names
            }

    def _one(self, q: float, names: Sequence[str]) -> dict[str, tuple[float, float]]:
        try:
            found = evaluate(self.activation, np.array([q]), names)
        except DivergentExpectationError:
            return dict.fromkeys(names, (math.inf, math.inf))
        return {name: (float(found[name][0][0]), float(found[name][1][0])) for name in names}

    def _fit(self, decade: int, n: int, name: str, values: Array, errors: Array, last: bool = False) -> bool:
        """Store one moment over a decade from its values at n Chebyshev points if they resolve it, or if they
        are the `last` that there will be.
        """
        if np.all(np.isposinf(values)):
            no = np.zeros(CELLS, dtype=bool)
            self._store(decade, name, np.full((CELLS, DEGREE + 1), np.inf), no, np.zeros((2, CELLS)))
            return True
        if not np.all(np.isfinite(values)):
            return False
        floor = max(1e-14 * np.max(np.abs(values)), np.max(errors))
        # The representation with the smaller relative error at the decade's smallest value.
        logarithmic = bool(np.all(values > 10.0 * errors)) and bool(values.max() > 1e2 * values.min())
        logarithmic = logarithmic and bool(np.max(errors / values) < 1e-14 * values.max() / values.min())
        noise = float(np.max(errors))
        if logarithmic:
            noise = float(np.max(errors / values))
            values = np.log(values)
            floor = max(1e-14, noise, 1e-15 * np.max(np.abs(values)))
        tail = float(np.max(np.abs((_to_coefficients(n) @ values)[-3:])))
        if tail > floor and not last:
            return False
        same = np.full(CELLS, logarithmic)
        self._store(decade, name, _resample(n) @ values, same, np.outer((tail, noise), np.ones(CELLS)))
        return True

    def _fit_cells(self, decade: int, names: Sequence[str], fitted: Collection[str]) -> None:
        """Store a decade cell by cell: for functions that no polynomial follows over it."""
        points = _cell_points()
        q = _decade_variances(decade, points.reshape(-1))
        found = self._sample(q, names)
        transform = _to_coefficients(DEGREE + 1)
        for name in names:
            self._samples[name][decade] = (q, *found[name])
            if name in fitted:
                continue
            errors = found[name][1].reshape(points.shape).max(axis=1)
            values = found[name][0].reshape(points.shape)
            finite = np.all(np.isfinite(values), axis=1)
            with np.errstate(all="ignore"):
                logarithms = np.log(values)
                # Whichever of the two a polynomial follows better; not the logarithm next to a zero.
                tails = np.abs(values @ transform.T)[:, -2:].max(1) / np.abs(values).max(1)
                log_tails = np.abs(logarithms @ transform.T)[:, -2:].max(1)
                logarithmic = finite & (values.min(1) > 0.0) & (log_tails < tails)
                errors = np.where(logarithmic, errors / np.abs(values).min(1), errors)
                left_out = np.where(logarithmic, log_tails, tails * np.abs(values).max(1))
                values = np.where(logarithmic[:, None], logarithms, values)
            values[~finite] = np.inf
            self._store(decade, name, values, logarithmic, np.stack([left_out, errors]))

    def _store(self, decade: int, name: str, values: Array, logarithmic: np.ndarray, errors: Array) -> None:
        cells = slice(decade * CELLS, (decade + 1) * CELLS)
        infinite = ~np.isfinite(values[:, 0])
        coefficients = _to_monomials() @ np.where(infinite[:, None], 0.0, values).T
        coefficients[0, infinite] = np.inf
        self._coefficients[name][:, cells] = coefficients
        self._logarithmic[name][cells] = logarithmic
        errors = np.where(np.isfinite(errors), errors, 0.0)
        # A decade's polynomial may have a higher degree than a cell's.
        last = np.abs(np.where(infinite[:, None], 0.0, values) @ _to_coefficients(DEGREE + 1).T)[:, -2:]
        errors[0] = np.maximum(errors[0], last.max(axis=1))
        self._left_out[name][cells], self._errors[name][cells] = errors[0], errors.sum(axis=0)


@lru_cache(maxsize=128)
def _table(act: Activation) -> MomentTable:
    """The moments of an activation as tables over q."""
    return MomentTable(act)


def moment_table(spec: Any) -> MomentTable:
    """The table of an activation (anything :func:`eoc_theory.activation` accepts), made once."""
    return _table(activation(spec))
