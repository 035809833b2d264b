"""Laws of |W| in a layer, in units in which E W² = 1: what the data-free scores are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import betainc, betaincinv, betaln, erfc, erfcinv, erfinv

from ...layers import WeightLayer
from ...layers.weight_layer import CUT, CUT_STD, INSIDE_CUT

Array = np.ndarray

_SQRT2 = np.sqrt(2.0)
#: Rows of length 1 have entries ±1: no law with a density; a narrow uniform one stands for it.
_NARROW = 1e-6


class MagnitudeLaw(ABC):
    """The law of X = |W|/(E W²)^½; all functions take arrays of x ≥ 0 of any shape."""

    #: E X.
    mean: float

    @abstractmethod
    def survival(self, x: Array) -> Array:
        """P(X > x)."""

    @abstractmethod
    def log_density(self, x: Array) -> Array:
        """x times the density of X at x."""

    @abstractmethod
    def partial_mean(self, x: Array) -> Array:
        """E[X 1{X > x}]/E[X]."""

    @abstractmethod
    def upper_quantile(self, p: Array) -> Array:
        """x with P(X > x) = p."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, size: int, dtype: Any) -> Array:
        """`size` independent values."""


@dataclass(frozen=True)
class HalfNormal(MagnitudeLaw):
    """|Z|."""

    mean = float(np.sqrt(2.0 / np.pi))

    def survival(self, x: Array) -> Array:
        return erfc(x / _SQRT2)

    def log_density(self, x: Array) -> Array:
        return self.mean * x * self.partial_mean(x)

    def partial_mean(self, x: Array) -> Array:
        return np.exp(-0.5 * np.minimum(x, 50.0) ** 2)

    def upper_quantile(self, p: Array) -> Array:
        return _SQRT2 * erfcinv(p)

    def draw(self, rng: np.random.Generator, size: int, dtype: Any) -> Array:
        values = rng.standard_normal(size, dtype=dtype)
        return np.abs(values, out=values)


@dataclass(frozen=True)
class Uniform(MagnitudeLaw):
    """Uniform on [low, √3], low = 0 but for a stand-in of a constant."""

    low: float = 0.0
    high: float = float(np.sqrt(3.0))

    @cached_property
    def mean(self) -> float:
        return 0.5 * (self.low + self.high)

    def survival(self, x: Array) -> Array:
        return np.clip((self.high - x) / (self.high - self.low), 0.0, 1.0)

    def log_density(self, x: Array) -> Array:
        return np.where((x >= self.low) & (x < self.high), x / (self.high - self.low), 0.0)

    def partial_mean(self, x: Array) -> Array:
        inside = np.clip(x, self.low, self.high)
        return (self.high**2 - inside**2) / (self.high**2 - self.low**2)

    def upper_quantile(self, p: Array) -> Array:
        return self.high - p * (self.high - self.low)

    def draw(self, rng: np.random.Generator, size: int, dtype: Any) -> Array:
        values = rng.random(size, dtype=dtype)
        values *= self.high - self.low
        values += self.low
        return values


@dataclass(frozen=True)
class TruncatedHalfNormal(MagnitudeLaw):
    """|Z| given |Z| < 2, divided by its root mean square."""

    mean = float(np.sqrt(2 / np.pi) * (1.0 - np.exp(-0.5 * CUT**2)) / INSIDE_CUT / CUT_STD)

    def survival(self, x: Array) -> Array:
        return np.maximum(erfc(x * CUT_STD / _SQRT2) - erfc(CUT / _SQRT2), 0.0) / INSIDE_CUT

    def log_density(self, x: Array) -> Array:
        z = x * CUT_STD
        return np.where(
            z < CUT, np.sqrt(2 / np.pi) * z * np.exp(-0.5 * np.minimum(z, CUT) ** 2) / INSIDE_CUT, 0.0
        )

    def partial_mean(self, x: Array) -> Array:
        end = np.exp(-0.5 * CUT**2)
        return (np.exp(-0.5 * np.minimum(x * CUT_STD, CUT) ** 2) - end) / (1.0 - end)

    def upper_quantile(self, p: Array) -> Array:
        return _SQRT2 * erfinv((1.0 - np.asarray(p)) * INSIDE_CUT) / CUT_STD

    def draw(self, rng: np.random.Generator, size: int, dtype: Any) -> Array:
        return self.upper_quantile(rng.random(size)).astype(dtype)


@dataclass(frozen=True)
class OnSphere(MagnitudeLaw):
    """|x_1| √D for a point x uniform on the unit sphere in D ≥ 2 dimensions; x_1² ~ Beta(½, (D−1)/2).

    Rows, or columns, of a random orthogonal matrix are such points, D the larger of its two extents.
    """

    dimension: int

    @property
    def _b(self) -> float:
        return 0.5 * (self.dimension - 1)

    @cached_property
    def mean(self) -> float:
        return float(np.sqrt(self.dimension) * np.exp(betaln(1.0, self._b) - betaln(0.5, self._b)))

    def _square(self, x: Array) -> Array:
        return np.minimum(np.square(x) / self.dimension, 1.0)

    def survival(self, x: Array) -> Array:
        return betainc(self._b, 0.5, 1.0 - self._square(x))

    def log_density(self, x: Array) -> Array:
        y = self._square(x)
        with np.errstate(divide="ignore"):
            # Bounded for D = 2, whose density has an integrable pole at its end.
            log = (
                0.5 * np.log(y) + (self._b - 1.0) * np.log(np.maximum(1.0 - y, 1e-12)) - betaln(0.5, self._b)
            )
        return np.where(y < 1.0, 2.0 * np.exp(log), 0.0)

    def partial_mean(self, x: Array) -> Array:
        return (1.0 - self._square(x)) ** self._b

    def upper_quantile(self, p: Array) -> Array:
        return np.sqrt(self.dimension * np.maximum(1.0 - betaincinv(self._b, 0.5, p), 0.0))

    def draw(self, rng: np.random.Generator, size: int, dtype: Any) -> Array:
        return np.sqrt(self.dimension * rng.beta(0.5, self._b, size)).astype(dtype)


def magnitude_law(layer: WeightLayer) -> MagnitudeLaw:
    """The law of a layer's |W| in units of its `weight_std`."""
    if layer.law == "uniform":
        return Uniform()
    if layer.law == "truncated":
        return TruncatedHalfNormal()
    if layer.law == "orthogonal":
        dimension = max(layer.fan_in, layer.fan_out)
        return Uniform(1.0 - _NARROW, 1.0 + _NARROW) if dimension == 1 else OnSphere(dimension)
    return HalfNormal()
