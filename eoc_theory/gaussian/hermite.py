"""Normalised Hermite coefficients of an activation, for the Mehler expansion (Daniely et al. 2016)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..activations import activation
from ..base import checks
from ..errors import ArgumentError
from .expectations import SMALLEST, checked_variance, shape_of
from .rules import (
    GAUSS_PANEL,
    KRONROD,
    RADIANS,
    TAIL,
    Array,
    derivative_pieces,
    panel_rule,
    window,
)


def hermite_coefficients(spec: Any, q: ArrayLike, n: int, order: int = 0) -> Array:
    """a_k(q) = E[φ^(order)(√q Z) He_k(Z)]/√k! for k < n: E[f(u)f(v)] = Σ a_k(q_a) a_k(q_b) c^k.

    Point masses of φ^(order) at kinks are left out, as in :meth:`Activation.derivative`.

    Args:
        spec: anything :func:`eoc_theory.activation` accepts.
        q: variances > 0, scalar or 1-D.
        n: number of coefficients ≥ 1.
        order: derivative, 0 to 3.

    Returns:
        Array of shape (len(q), n).
    """
    act = activation(spec)
    n = checks.integer("n", n, 1)
    array = np.maximum(np.atleast_1d(checked_variance(q)), SMALLEST)
    if array.ndim != 1:
        raise ArgumentError(f"q must be a scalar or a 1-D array, got shape {array.shape}")
    shape = shape_of(act)
    # He_k/√k! oscillates with √k radians per unit of z; with √weight it is bounded, so the window ends where
    # √weight does.
    panel = min(GAUSS_PANEL, RADIANS / math.sqrt(n))
    reach = TAIL * math.sqrt(2.0)
    result = np.empty((len(array), n))
    chunk = 16
    for i in range(0, len(array), chunk):
        some = array[i : i + chunk]
        farthest = max(window(shape, float(v), 1.0, reach) for v in some)
        rule = panel_rule(shape, some.tolist(), 1.0, farthest=farthest, gauss_panel=panel)
        values = rule.evaluate(derivative_pieces(act, order))
        counts = np.diff(np.append(rule.starts, len(rule.x)))
        z = rule.x / np.sqrt(np.repeat(some, counts))[:, None]
        result[i : i + chunk] = (
            _project(values * rule.root_weight**2 * KRONROD, z, rule.starts, n) * rule.factor
        )
    if shape.even:
        # The half line knows the size of the coefficients, symmetry which of them vanish.
        odd = (activation_parity(act.parity) + order) % 2
        result[:, 1 - odd :: 2] = 0.0
    return result


def activation_parity(parity: str | None) -> int:
    """1 for an odd function, 0 for an even one."""
    return 1 if parity == "odd" else 0


def _project(weighted: Array, z: Array, starts: np.ndarray, n: int) -> Array:
    """Σ over each q's nodes of weighted · He_k(z)/√k!, k < n, by the recurrence of the normalised
    polynomials.
    """
    sums = np.empty((n, len(starts)))
    before, now = np.zeros_like(z), weighted
    for k in range(n):
        sums[k] = np.add.reduceat(now.sum(axis=1), starts)
        before, now = now, (z * now - math.sqrt(k) * before) / math.sqrt(k + 1)
    return sums.T
