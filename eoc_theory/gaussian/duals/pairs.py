"""Pairs of centred Gaussians (u, v), parametrised so that nothing is lost near correlation ±1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import ArgumentError

Array = NDArray[Any]


@dataclass(frozen=True)
class Pairs:
    """Variances q_a, q_b and correlation c = 1 − ε of Gaussian pairs; all fields share one shape.

    Attributes:
        q_a, q_b: variances.
        c: correlation.
        one_minus_c: ε = 1 − c, in [0, 2], with its own relative accuracy.
        one_plus_c: 1 + c, with its own relative accuracy.
    """

    q_a: Array
    q_b: Array
    c: Array
    one_minus_c: Array
    one_plus_c: Array

    @property
    def covariance(self) -> Array:
        """E[uv]."""
        return np.sqrt(self.q_a) * np.sqrt(self.q_b) * self.c

    @property
    def sine_squared(self) -> Array:
        """1 − c²."""
        return self.one_minus_c * self.one_plus_c

    @property
    def sine(self) -> Array:
        """√(1 − c²)."""
        return np.sqrt(self.sine_squared)

    @property
    def angle(self) -> Array:
        """θ = arccos c, accurate at both ends."""
        return 2.0 * np.arctan2(np.sqrt(self.one_minus_c), np.sqrt(self.one_plus_c))

    @property
    def determinant(self) -> Array:
        """q_a q_b − E[uv]²."""
        return self.q_a * self.q_b * self.sine_squared


def make_pairs(q_a: ArrayLike, q_b: ArrayLike, c: ArrayLike | None, one_minus_c: ArrayLike | None) -> Pairs:
    """Broadcast and check the parameters of :func:`eoc_theory.gaussian.duals.dual`.

    Raises:
        ArgumentError: a variance is negative or not finite, a correlation lies outside [−1, 1], or not
            exactly
            one of `c` and `one_minus_c` is given.
    """
    if (c is None) == (one_minus_c is None):
        raise ArgumentError("give exactly one of c and one_minus_c")
    if c is not None:
        value = _checked("c", c, -1.0, 1.0)
        parts = np.broadcast_arrays(
            _variance("q_a", q_a), _variance("q_b", q_b), value, 1.0 - value, 1.0 + value
        )
    else:
        assert one_minus_c is not None
        value = _checked("one_minus_c", one_minus_c, 0.0, 2.0)
        parts = np.broadcast_arrays(
            _variance("q_a", q_a), _variance("q_b", q_b), 1.0 - value, value, 2.0 - value
        )
    return Pairs(*(np.array(part, dtype=np.float64) for part in parts))


def _variance(name: str, value: ArrayLike) -> Array:
    array = np.asarray(value, dtype=np.float64)
    bad = array[~(np.isfinite(array) & (array >= 0))]
    if bad.size:
        raise ArgumentError(f"{name} must be a finite variance >= 0, got {bad.flat[0]:g}")
    return array


def _checked(name: str, value: ArrayLike, low: float, high: float) -> Array:
    array = np.asarray(value, dtype=np.float64)
    bad = array[~((array >= low) & (array <= high))]
    if bad.size:
        raise ArgumentError(f"{name} must lie in [{low:g}, {high:g}], got {bad.flat[0]:.17g}")
    return array
