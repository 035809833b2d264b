"""Vectors brought to length 1: queries and keys whose products are cosines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from .drawn import DrawnLayer
from .layer import Array, Shape, Width
from .random_numbers import Draw


@dataclass(frozen=True)
class UnitLength(DrawnLayer):
    """x/max(√(‖x‖² + added), eps) of vectors x: of the channels of each head at a position, or of all
    positions of a channel.

    RMSNorm of the n channels of each head is √n times that, LayerNorm the same with `centred`.

    Attributes:
        heads: equal groups of channels, one after the other.
        over_positions: whether a channel's positions are a vector, and not a head's channels.
        eps: least length that is divided by.
        centred: whether a vector's mean is subtracted first.
        added: to the square of the length.
    """

    heads: int = 1
    over_positions: bool = False
    eps: float = 1e-12
    centred: bool = False
    added: float = 0.0

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.channels % self.heads:
            raise self.refuse(f"a multiple of {self.heads} channels", shape)
        return shape

    @property
    def normalises(self) -> str:
        return "layer"

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        shape = shapes[0]
        size = shape.positions if self.over_positions else shape.channels // self.heads
        return inputs[0] / (size * inputs[0] + self.added) if self.added else 1.0 / size

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> UnitLength:
        size = whole[0].channels // self.heads
        if inputs[0].channels % size:
            raise ModelError(f"layer {self.name!r} has heads that cannot be narrowed")
        return replace(self, heads=inputs[0].channels // size)

    def _cut(self, x: Array) -> Array:
        """(channels, *space, B) as (heads, channels of a head, positions, B)."""
        return x.reshape(self.heads, len(x) // self.heads, -1, x.shape[-1])

    @property
    def _axis(self) -> int:
        return 2 if self.over_positions else 1

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        cut = self._cut(inputs[0])
        if self.centred:
            cut = cut - np.mean(cut, axis=self._axis, keepdims=True)
        square = np.sum(np.square(cut), axis=self._axis, keepdims=True)
        length = np.sqrt(square + cut.dtype.type(self.added))
        inverse = 1.0 / np.maximum(length, cut.dtype.type(self.eps))
        value = cut * inverse
        # A vector under `eps` is multiplied by a number that does not depend on it.
        return value.reshape(inputs[0].shape), (value, inverse, length > self.eps)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        value, inverse, turns = memory
        cut = self._cut(gradient)
        along = np.sum(cut * value, axis=self._axis, keepdims=True)
        sent = (cut - value * (along * turns)) * inverse
        if self.centred:
            sent = sent - np.mean(sent, axis=self._axis, keepdims=True)
        return [sent.reshape(gradient.shape)]
