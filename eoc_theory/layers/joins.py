"""Layers that join several values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..signals.fields import Gradient, Pairs, Signal, coarsen, refine
from ..signals.means import Magnitudes, Means
from .layer import Array, Layer, Shape
from .random_numbers import Draw
from .sampled_channels import Channels, Segment


@dataclass(frozen=True)
class Sum(Layer):
    """Σ_k coefficient_k · input_k; with one input a multiplication by a number."""

    coefficients: tuple[float, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(inputs) != len(self.coefficients):
            raise self.refuse(f"{len(self.coefficients)} inputs", len(inputs))
        if len(set(inputs)) > 1:
            raise self.refuse("inputs of one shape", " and ".join(map(str, inputs)))
        return inputs[0]

    @property
    def adds(self) -> bool:
        return True

    def factors(self, inputs: int) -> tuple[float, ...]:
        return self.coefficients

    def with_factors(self, factors: tuple[float, ...]) -> Sum:
        return replace(self, coefficients=factors)

    @property
    def is_silent(self) -> bool:
        return 0.0 in self.coefficients

    def heard(self, factor: float) -> Sum:
        return self.with_factors(tuple(value or factor for value in self.coefficients))

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return sum(c**2 * value for c, value in zip(self.coefficients, inputs, strict=True))

    def variance_gain(self, mean_square: float) -> float:
        return self.coefficients[0] ** 2 if len(self.coefficients) == 1 else math.nan

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        return channels.added(list(inputs))

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        """Inputs that no weights separate are refused by the graph; all others are independent."""
        parts = refine(signals)
        fields = []
        for group in zip(*parts, strict=True):
            scaled = [field.scaled(c) for field, c in zip(group, self.coefficients, strict=True)]
            moment, mean = scaled[0].moment, scaled[0].mean
            for other in scaled[1:]:
                # E[(x + y)(x' + y')], x and y independent.
                moment = moment + other.moment
                if mean.any() and other.mean.any():
                    cross = mean[:, None] * other.mean
                    moment += cross + cross.T
                mean = mean + other.mean
            fields.append(group[0].having(moment, mean))
        sizes = [[field.channels for field in signal] for signal in signals]
        return tuple(fields), (sizes, [field.channels for field in fields])

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        sizes, fine = memory
        return [
            Gradient(coarsen(gradient.groups, own, fine), None, gradient.log_scale).times(c**2)
            for own, c in zip(sizes, self.coefficients, strict=True)
        ]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        total: Array | None = None
        for coefficient, x in zip(self.coefficients, inputs, strict=True):
            term = x if coefficient == 1.0 else x * x.dtype.type(coefficient)
            total = term if total is None else total + term
        assert total is not None  # the graph has checked that there is an input
        return total, None

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient if c == 1.0 else gradient * gradient.dtype.type(c) for c in self.coefficients]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        # With the absolute values of the coefficients all paths add up.
        return Means.total(x.scaled(c) for c, x in zip(self.coefficients, inputs, strict=True)), None

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        return [signal.scaled(c) for c in self.coefficients]


@dataclass(frozen=True)
class Concatenate(Layer):
    """Channels one after the other."""

    def output_shape(self, *inputs: Shape) -> Shape:
        if not inputs or len({shape.space for shape in inputs}) > 1:
            raise self.refuse("inputs of one extent", " and ".join(map(str, inputs)) or "none")
        return Shape(sum(shape.channels for shape in inputs), inputs[0].space)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return float(np.average(inputs, weights=[shape.channels for shape in shapes]))

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        found = Segment([k for segment in inputs for k in segment.classes], inputs[0].repeat)
        if len({segment.repeat for segment in inputs}) > 1:
            channels.keep_whole(found)
        return found

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        return tuple(field for signal in signals for field in signal), [len(signal) for signal in signals]

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        result, at = [], 0
        for count in memory:
            latent = None if gradient.latent is None else gradient.latent[at : at + count]
            result.append(Gradient(gradient.groups[at : at + count], latent, gradient.log_scale))
            at += count
        return result

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        return np.concatenate(inputs), [len(x) for x in inputs]

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return np.split(gradient, np.cumsum(memory)[:-1])

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        return Means.concatenated(inputs), [len(x.amplitude) for x in inputs]

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        parts = np.split(signal.amplitude, np.cumsum(memory)[:-1])
        return [Means.of(part, signal.profile, signal.log_scale, signal.variance) for part in parts]
