"""The random numbers of one sampled network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import ndtr, ndtri

Array = np.ndarray

#: Where the truncated law is cut, in standard deviations of the uncut one, and the variance that it keeps.
CUT = 2.0
_CUT_DENSITY = math.exp(-(CUT**2) / 2.0) / math.sqrt(2.0 * math.pi)
CUT_VARIANCE = 1.0 - 2.0 * CUT * _CUT_DENSITY / (2.0 * float(ndtr(CUT)) - 1.0)


class Sampled(Protocol):
    """What is sampled: a layer's shape, distribution and scales."""

    @property
    def fan_in(self) -> int: ...
    @property
    def fan_out(self) -> int: ...
    @property
    def law(self) -> str: ...
    @property
    def weight_std(self) -> float: ...
    @property
    def sigma_b(self) -> float: ...


@dataclass(frozen=True)
class Draw:
    """Weights, biases and masks of one network, sampled in the order in which they are asked for.

    All is drawn in single precision, so that the network is the same one in either precision.

    Attributes:
        rng: its stream.
        dtype: of what is returned, np.float32 or np.float64, and of the network's values.
    """

    rng: np.random.Generator
    dtype: Any = np.float32

    def normal(self, shape: tuple[int, ...], std: float) -> Array:
        """Independent N(0, std²)."""
        # In place, here and below: a layer may have a hundred million weights.
        drawn = self.rng.standard_normal(shape, dtype=np.float32).astype(self.dtype, copy=False)
        drawn *= self.dtype(std)
        return drawn

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """Independent, uniform on [0, 1)."""
        return self.rng.random(shape, dtype=np.float32).astype(self.dtype, copy=False)

    def weights(self, layer: Sampled, groups: int = 1) -> Array:
        """The weight matrix, shape (fan_out, fan_in), by the layer's law; each group of rows orthogonal."""
        shape, std = (layer.fan_out, layer.fan_in), float(layer.weight_std)
        if layer.law == "normal":
            return self.normal(shape, std)
        if layer.law == "uniform":
            drawn = self.uniform(shape)
            drawn *= self.dtype(2.0)
            drawn -= self.dtype(1.0)
            drawn *= self.dtype(math.sqrt(3.0) * std)
            return drawn
        if layer.law == "truncated":
            low, high = ndtr(-CUT), ndtr(CUT)
            normals = ndtri(low + (high - low) * self.rng.random(shape))
            return (
                (normals * (std / math.sqrt(CUT_VARIANCE))).astype(np.float32).astype(self.dtype, copy=False)
            )
        block = (layer.fan_out // groups, layer.fan_in)
        rows = np.concatenate([self._orthogonal(block) for _ in range(groups)])
        return rows * self.dtype(std * math.sqrt(max(block)))

    def biases(self, layer: Sampled) -> Array | None:
        """The biases, shape (fan_out,), or None where all are 0."""
        return self.normal((layer.fan_out,), layer.sigma_b) if layer.sigma_b > 0 else None

    def _orthogonal(self, shape: tuple[int, int]) -> Array:
        """Uniformly distributed with orthonormal rows or columns, whichever are fewer."""
        tall = self.rng.standard_normal((max(shape), min(shape)), dtype=np.float32)
        q, r = np.linalg.qr(tall)
        # With the signs of R's diagonal taken out, Q is uniform (Mezzadri 2007).
        q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0).astype(np.float32)
        return (q if shape[0] >= shape[1] else q.T).astype(self.dtype, copy=False)
