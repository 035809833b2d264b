"""Softmax over channels or positions: what weighs branches, neighbours or tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from ..signals.means import Magnitudes, Means
from .drawn import DrawnLayer
from .layer import Array, Shape, Width
from .random_numbers import Draw

#: Numbers that are drawn to tell a softmax's mean square.
_DRAWN = 1 << 18


@dataclass(frozen=True)
class Softmax(DrawnLayer):
    """exp(x)/Σ exp(x) over one of three axes that the channels, or the positions, are laid out along.

    Attributes:
        extents: of these axes; the sum runs over the second. (1, 2, C/2) weighs the two halves of the
            channels against each other, (1, P, 1) over all P positions.
        over_positions: whether these are the positions, all axes as one, and not the channels.
    """

    extents: tuple[int, int, int]
    over_positions: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        own = shape.positions if self.over_positions else shape.channels
        if own != math.prod(self.extents) or (self.over_positions and not shape.space):
            kind = "positions" if self.over_positions else "channels"
            raise self.refuse(f"{math.prod(self.extents)} {kind}", shape)
        return shape

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        size = self.extents[1]
        normals = np.random.default_rng(0x736F6674).standard_normal((max(_DRAWN // size, 64), size))
        weights = softmax_(math.sqrt(inputs[0]) * normals)
        return float(np.mean(np.square(weights)))

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> Softmax:
        if self.over_positions:
            return self
        outer, size, inner = self.extents
        channels = inputs[0].channels
        if channels % size == 0 and channels // size % outer == 0:
            return replace(self, extents=(outer, size, channels // size // outer))
        if channels % (size * inner):
            raise ModelError(f"layer {self.name!r} has groups of channels that cannot be narrowed")
        return replace(self, extents=(channels // (size * inner), size, inner))

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        raise ModelError(f"layer {self.name!r} (Softmax) has no linear counterpart for synflow")

    def _cut(self, x: Array) -> Array:
        if self.over_positions:
            return x.reshape(len(x), *self.extents, x.shape[-1])
        return x.reshape(*self.extents, -1, x.shape[-1])

    @property
    def _axis(self) -> int:
        return 2 if self.over_positions else 1

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        value = softmax_(self._cut(inputs[0]).copy(), self._axis)
        return value.reshape(inputs[0].shape), value

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        cut = self._cut(gradient)
        back = memory * (cut - np.sum(memory * cut, axis=self._axis, keepdims=True))
        return [back.reshape(gradient.shape)]


def softmax_(x: Array, axis: int = -1) -> Array:
    """exp(x)/Σ exp(x) along an axis, written into `x`."""
    x -= x.max(axis=axis, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=axis, keepdims=True)
    return x
