"""Quadrature by halving: for the variances at which the graded panels leave an error.

The panels of :mod:`.rules` follow the structure that a function declares. Where their own error estimate says
that this was not enough, the panels with the largest errors are halved until the estimate is at rounding, the
panels reach the limit of floats, or there are too many of them or of evaluations; what is left is in the
error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..activations import evaluations
from .rules import (
    FARTHEST,
    PANEL_ERROR,
    RADIANS,
    TAIL,
    Array,
    PanelRule,
    Shape,
    panel_edges,
    rule_on,
    window,
)

MOST_PANELS = 4_000
MOST_ROUNDS = 60
MOST_STALLED = 2
# The error aimed at, relative to ∫|f|.
TARGET = 2e-14

Integrands = Callable[[PanelRule], Array]


def affordable(shape: Shape, q: float, power: float) -> bool:
    """Whether panels that follow a function's oscillation are few enough at q."""
    waves = 2.0 * window(shape, q, power) * np.sqrt(q) * power * shape.oscillation
    return bool(waves / RADIANS < 0.5 * MOST_PANELS)


def halved(shape: Shape, q: float, power: float, integrands: Integrands, counted: int) -> tuple[Array, Array]:
    """Integrals and error estimates, each (m,), of m integrands at one q.

    Args:
        shape, q, power: as for `rules.panel_rule`.
        integrands: weighted integrands, shape (m, panels, 21), at the nodes of a rule.
        counted: how many of them, the first ones, decide which panels are halved.
    """
    farthest = window(shape, q, power)
    while True:
        value, error, size, beyond = _on_window(shape, q, power, farthest, integrands, counted)
        if np.all(beyond[:counted] <= PANEL_ERROR * size[:counted]) or farthest >= FARTHEST:
            return value, error + beyond
        farthest = min(FARTHEST, farthest + 0.5 * TAIL)


def _on_window(
    shape: Shape, q: float, power: float, farthest: float, integrands: Integrands, counted: int
) -> tuple[Array, Array, Array, Array]:
    """Integrals, errors, ∫|f| over |z| ≤ farthest and ∫|f| beyond, each (m,)."""
    reach = farthest * np.sqrt(q)
    edges = panel_edges(shape, q, 0.0 if shape.even else -reach, reach, power * shape.oscillation)
    low, high = np.array(edges[:-1]), np.array(edges[1:])
    rule = rule_on(shape, q, low, high)
    weighted = integrands(rule)
    beyond = rule.beyond(weighted)[:, 0]
    value, error, size = rule.panels(weighted)
    rounding = rule.rounding * size
    stalled = np.zeros(len(low), dtype=int)
    for _ in range(MOST_ROUNDS):
        total = size[:counted].sum(axis=1, keepdims=True)
        # Panels that hold more than their part of the error aimed at.
        open_ = np.any(error[:counted] > TARGET * total / np.sqrt(len(low)), axis=0)
        open_ &= (high - low > 1e-14 * np.maximum(np.abs(low), np.abs(high))) & (stalled < MOST_STALLED)
        if not open_.any() or len(low) + open_.sum() > MOST_PANELS or evaluations.exhausted():
            break
        middle = 0.5 * (low + high)[open_]
        ends = np.concatenate([low[open_], middle]), np.concatenate([middle, high[open_]])
        order = np.argsort(ends[0])
        new_low, new_high = ends[0][order], ends[1][order]
        rule = rule_on(shape, q, new_low, new_high)
        found = rule.panels(integrands(rule))
        # Noise in the integrand does not get less by halving.
        halves = found[1][:counted][:, np.argsort(order, kind="stable")].reshape(counted, 2, -1).sum(axis=1)
        stuck = np.all(halves > 0.7 * error[:counted][:, open_], axis=0)
        now = np.tile(np.where(stuck, stalled[open_] + 1, 0), 2)[order]
        stalled = np.concatenate([stalled[~open_], now])
        kept = ~open_
        low, high = _merged(low, new_low, kept), _merged(high, new_high, kept)
        value, error = _merged(value, found[0], kept), _merged(error, found[1], kept)
        rounding = _merged(rounding, rule.rounding * found[2], kept)
        size = _merged(size, found[2], kept)
    sums = (rule.factor * part.sum(axis=1) for part in (value, error + rounding, size))
    return (*sums, rule.factor * beyond)  # type: ignore[return-value]


def _merged(old: Array, new: Array, kept: NDArray[np.bool_]) -> Array:
    """Some of the old panels' numbers, and those of the new panels behind them."""
    return np.concatenate([old[..., kept], new], axis=-1)
