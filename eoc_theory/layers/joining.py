"""Layers that bring several values together."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Layer, Shape


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


@dataclass(frozen=True)
class Concatenate(Layer):
    """Channels one after the other."""

    def output_shape(self, *inputs: Shape) -> Shape:
        if not inputs or len({shape.space for shape in inputs}) > 1:
            raise self.refuse("inputs of one extent", " and ".join(map(str, inputs)) or "none")
        return Shape(sum(shape.channels for shape in inputs), inputs[0].space)
