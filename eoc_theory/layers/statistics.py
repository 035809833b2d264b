"""What a layer knows of its whole input: lengths of channels, means over channels, one over a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelError
from .drawn import DrawnLayer
from .layer import Array, Shape, Width
from .random_numbers import Draw


@dataclass(frozen=True)
class Length(DrawnLayer):
    """‖x‖ of each channel over its positions; every axis of these has the extent 1 then."""

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if not shape.space:
            raise self.refuse("channels at positions", shape)
        return Shape(shape.channels, (1,) * len(shape.space))

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return shapes[0].positions * inputs[0]

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        axes = tuple(range(1, x.ndim - 1))
        value = np.sqrt(np.sum(np.square(x), axis=axes, keepdims=True))
        return value, (x, value)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        x, value = memory
        smallest = np.finfo(value.dtype).tiny
        return [x * (gradient / np.maximum(value, smallest))]


@dataclass(frozen=True)
class ChannelMean(DrawnLayer):
    """The mean over all channels at each position, as one channel."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return Shape(1, self.one(inputs).space)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return inputs[0] / shapes[0].channels

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> ChannelMean:
        # Over fewer channels the mean would vary more.
        raise ModelError(f"layer {self.name!r} is a mean over all channels, which cannot be fewer")

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        return inputs[0].mean(axis=0, keepdims=True), len(inputs[0])

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [np.repeat(gradient / gradient.dtype.type(memory), memory, axis=0)]


@dataclass(frozen=True)
class Reciprocal(DrawnLayer):
    """1/x of each entry, of sums and means that stay away from 0."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        # Of entries that vary little.
        return 1.0 / inputs[0] if inputs[0] > 0.0 else math.inf

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        value = 1.0 / inputs[0]
        return value, value

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [-gradient * np.square(memory)]
