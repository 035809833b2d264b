"""Derivatives of a NumPy callable, of polynomials fitted to its values, with their errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from .core import Array, Function, Growth, Piece
from .functions import polynomial
from .local_fits import POINTS, TO_COEFFICIENTS
from .survey import Mesh, followed

# Half widths of fits that are tried, as shares of the width on which a polynomial of the same degree follows
# the function; on each panel the one at which the derivative changes least is taken.
SHARES: Any = 0.45 * 0.75 ** np.arange(10)
# How often the panels that were not halved are doubled to see how wide they could be.
DOUBLINGS = 12
# No fit is wider than this, or than |x| further out.
WIDEST = 16.0
# Beyond the mesh of a function that does not oscillate a fit is as wide as this share of |x|.
BEYOND = 0.2
PROBES = np.array([0.011, 0.18, 0.5, 0.79, 0.993])
SAFETY = 4.0
# What a polynomial through fits may leave out of a derivative, as a share of its estimated error.
LEFT_OUT = 0.3
_UNKNOWN, _FOLLOWED, _NOT_FOLLOWED = range(3)


@dataclass(frozen=True)
class NumericalPiece:
    """A function between two kinks, its derivatives and what is known of their errors.

    Attributes:
        piece: φ and its first three derivatives.
        panels: where they were examined.
        doubt: estimated absolute error of the derivative of each order on each panel, shape (4, panels).
        errors: largest of them for each order.
        sizes: largest value seen of each derivative.
    """

    piece: Piece
    panels: Mesh
    doubt: Array
    errors: tuple[float, ...]
    sizes: tuple[float, ...]


def numerical_piece(
    call: Function, panels: Mesh, low: float, high: float, oscillation: float
) -> NumericalPiece:
    """The function on [low, high] with derivatives by local fits, each within one panel of the mesh."""
    own = panels.within(low, high)
    inner = _one_sided(call, low, high)
    line = _line(inner, low, high, own)
    if line is not None:
        zero = np.zeros((4, len(own.low)))
        return NumericalPiece(polynomial(*line), own, zero, (0.0,) * 4, (0.0, abs(line[1]), 0.0, 0.0))
    room = _Room.of(inner, own, low, high, 0.0 if oscillation else BEYOND)
    orders: list[Function] = [inner]
    doubt, sizes = np.zeros((4, len(own.low))), [0.0]
    points = own.low[:, None] + (own.high - own.low)[:, None] * PROBES
    # Growth and structure far out are no measure of what happens near 0.
    near = np.abs(points[:, 2]) <= 64.0
    # Of each share all orders at once: they come of the same values.
    tried = [_derivatives(inner, (1, 2, 3), room, np.full(len(own.low), s), points) for s in SHARES]
    for order in (1, 2, 3):
        with np.errstate(all="ignore"):
            values = [found[order - 1] for found in tried]
            changes = np.array([np.max(np.abs(b - a), axis=1) for a, b in itertools.pairwise(values)])
            sizes.append(float(np.nanmax(np.abs(values[-1][near]), initial=0.0)))
        # Two changes in a row: one alone may be small by luck.
        changes = np.nan_to_num(np.maximum(changes[:-1], changes[1:]), nan=np.inf)
        best = np.argmin(changes, axis=0)
        doubt[order] = SAFETY * changes[best, np.arange(len(best))]
        orders.append(_Tabulated(_derivative(inner, order, room, SHARES[best + 1]), room.edges, doubt[order]))
    errors = tuple(float(np.max(row[near], initial=0.0)) for row in doubt)
    return NumericalPiece((orders[0], orders[1], orders[2], orders[3]), own, doubt, errors, tuple(sizes))


def uncertainty_of(
    made: list[NumericalPiece], call: Function, growth: Growth
) -> Callable[[int, Array], Array]:
    """The estimated absolute error of the derivative of an order, as a function of the order and of x.

    Beyond the panels a function that grows faster than polynomials is followed by none: nothing is known of
    its derivatives there, and their error is as large as they may be.
    """
    low = np.concatenate([one.panels.low for one in made])
    doubt = np.concatenate([one.doubt for one in made], axis=1)
    first, last = float(low[0]), float(made[-1].panels.high[-1])

    def uncertainty(order: int, x: Array) -> Array:
        found = doubt[order][np.clip(np.searchsorted(low, x, side="right") - 1, 0, len(low) - 1)]
        if growth.kind == "polynomial":
            return found
        beyond = (x < first) | (x > last)
        if beyond.any():
            far = np.abs(x[beyond])
            rate = growth.rate if growth.kind == "exponential" else 2.0 * growth.rate * far
            found[beyond] = np.maximum(found[beyond], np.abs(call(x[beyond])) * (1.0 + rate) ** order)
        return found

    return uncertainty


@dataclass(frozen=True)
class _Room:
    """How far around a point a polynomial follows the function.

    Attributes:
        edges: ends of the panels, shape (panels + 1,).
        width: width of the resolved interval around each, shape (panels + 1,). It changes by no more than
            the distance between two points, so that a fit of less than half of it stays off what is narrow.
        low, high: ends of the piece.
        growth: room beyond the panels as a share of |x|; 0 where it stays that of the last panel.
    """

    edges: Array
    width: Array
    low: float
    high: float
    growth: float

    @classmethod
    def of(cls, call: Function, panels: Mesh, low: float, high: float, growth: float) -> _Room:
        """The room of a function in [low, high] from its panels there."""
        width, middle = panels.high - panels.low, 0.5 * (panels.low + panels.high)
        open_ = np.flatnonzero(~panels.halved)
        for _ in range(DOUBLINGS):
            left, right = np.maximum(middle - width, low)[open_], np.minimum(middle + width, high)[open_]
            open_ = open_[followed(call, left, right)]
            width[open_] *= 2.0
        width = np.minimum(width, np.minimum(high - low, WIDEST * np.maximum(1.0, np.abs(middle) / WIDEST)))
        edges = np.append(panels.low, panels.high[-1])
        wide = np.append(width, np.inf)
        wide[1:] = np.minimum(wide[1:], width)
        wide = np.minimum.accumulate(wide - edges) + edges
        wide = np.minimum.accumulate((wide + edges)[::-1])[::-1] - edges
        return cls(edges, wide, low, high, growth)

    def __call__(self, x: Array) -> Array:
        """The room at each x."""
        inside = np.interp(x, self.edges, self.width)
        beyond = (x < self.edges[0]) | (x > self.edges[-1])
        return np.where(beyond, np.maximum(inside, self.growth * np.abs(x)), inside)


def _derivative(call: Function, order: int, room: _Room, shares: Array) -> Function:
    """The derivative of an order as a function of x; see :func:`_derivatives`."""
    return lambda x: _derivatives(call, (order,), room, shares, x)[0]


def _derivatives(
    call: Function, orders: tuple[int, ...], room: _Room, shares: Array, x: Array
) -> list[Array]:
    """The derivatives at x by fits whose half width is a share, one for each panel, of the room around x."""
    x = np.asarray(x, dtype=np.float64)
    flat = x.ravel()
    results = [np.empty_like(flat) for _ in orders]
    for start in range(0, len(flat), 8192):  # bounds the memory of the stencils
        part = flat[start : start + 8192]
        panel = np.clip(np.searchsorted(room.edges, part, side="right") - 1, 0, len(shares) - 1)
        h = np.minimum(shares[panel] * room(part), 0.5 * (room.high - room.low))
        centre = np.clip(part, room.low + h, room.high - h)
        with np.errstate(all="ignore"):
            coefficients = TO_COEFFICIENTS @ call(centre[:, None] + h[:, None] * POINTS).T
            for order, result in zip(orders, results, strict=True):
                series = chebyshev.chebder(coefficients, order, axis=0)
                found = chebyshev.chebval((part - centre) / h, series, tensor=False)
                result[start : start + 8192] = found / h**order
    return [result.reshape(x.shape) for result in results]


class _Tabulated:
    """A derivative as polynomials on halves of the panels, each made of fits at its nodes when it is met.

    A fit takes as many values of the function as a polynomial has nodes, and moments ask for a derivative at
    some thousand points a panel. Halves that no polynomial follows are fitted point by point, as is what lies
    beyond the panels.
    """

    def __init__(self, fitted: Function, edges: Array, doubt: Array) -> None:
        self._fitted = fitted
        halves = np.empty(2 * len(edges) - 1)
        halves[::2], halves[1::2] = edges, 0.5 * (edges[1:] + edges[:-1])
        self._edges = halves
        # What polynomials may leave out, absolutely, and relative to the derivative's size.
        self._accepted = np.repeat(LEFT_OUT * doubt, 2)
        self._coefficients: Any = np.zeros((len(POINTS), len(halves) - 1))
        self._state = np.zeros(len(halves) - 1, dtype=np.int8)

    def __call__(self, x: Array) -> Array:
        x = np.asarray(x, dtype=np.float64)
        flat = x.ravel()
        half: Any = np.searchsorted(self._edges, flat, side="right") - 1
        # The end itself, where pieces are evaluated for all that lies beyond it, belongs to the last half.
        half[flat == self._edges[-1]] = len(self._state) - 1
        inside = (half >= 0) & (half < len(self._state))
        half = np.where(inside, half, 0)
        if inside.any():
            self._fill(np.unique(half[inside]))
        followed = inside & (self._state[half] == _FOLLOWED)
        result = np.empty_like(flat)
        if followed.any():
            at = half[followed]
            low, high = self._edges[at], self._edges[at + 1]
            result[followed] = self._values((2.0 * flat[followed] - low - high) / (high - low), at)
        if not followed.all():
            result[~followed] = self._fitted(flat[~followed])
        return result.reshape(x.shape)

    def _values(self, t: Array, at: Any) -> Array:
        """Chebyshev series of the halves `at` at t, by Clenshaw's recurrence."""
        twice, before, value = 2.0 * t, np.zeros_like(t), np.zeros_like(t)
        for row in self._coefficients[:0:-1]:
            before, value = value, twice * value - before + row.take(at)
        return t * value - before + self._coefficients[0].take(at)

    def _fill(self, halves: Any) -> None:
        new = halves[self._state[halves] == _UNKNOWN]
        if not len(new):
            return
        low, high = self._edges[new], self._edges[new + 1]
        nodes = 0.5 * (low + high) + 0.5 * (high - low) * POINTS[:, None]
        with np.errstate(all="ignore"):
            series = TO_COEFFICIENTS @ self._fitted(nodes)
            size = np.abs(series)
            left_out = size[-3:].max(axis=0)
            good = np.isfinite(left_out) & (left_out <= self._accepted[new] + 1e-15 * size.max(axis=0))
        self._coefficients[:, new] = series
        # Last, since other threads read what is known without waiting.
        self._state[new] = np.where(good, _FOLLOWED, _NOT_FOLLOWED)


def _line(call: Function, low: float, high: float, panels: Mesh) -> tuple[float, float] | None:
    """(a, b) if the function is a + bx on the interval, to rounding."""
    if panels.halved.any():
        return None
    a, b = (
        (low if np.isfinite(low) else min(high - 64.0, -64.0)),
        (high if np.isfinite(high) else max(low + 64.0, 64.0)),
    )
    x = a + (b - a) * np.linspace(0.0, 1.0, 67)
    values = call(x)
    slope = float(values[-1] - values[0]) / float(x[-1] - x[0])
    start = float(np.mean(values - slope * x))
    slope, start = (
        float(f"{v:.14g}") if abs(v) > 1e-14 * np.abs(values).max() else 0.0 for v in (slope, start)
    )
    exact = np.abs(values - (start + slope * x)) <= 4e-15 * (np.abs(values) + np.abs(slope * x) + abs(start))
    return (start, slope) if exact.all() else None


def _one_sided(call: Function, low: float, high: float) -> Function:
    """The function on the open interval, with its one-sided limits at the ends."""
    above = low + 4e-16 * max(abs(low), 1e-3) if np.isfinite(low) else low
    below = high - 4e-16 * max(abs(high), 1e-3) if np.isfinite(high) else high
    return lambda x: call(np.clip(x, above, below))
