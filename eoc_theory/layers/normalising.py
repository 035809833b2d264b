"""Normalisation: over the batch, over one input's entries, over groups of its channels."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Layer, Shape


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Each channel to mean 0 and variance 1 over batch and positions, then times γ, plus β.

    Attributes:
        training: over the batch's own statistics; else by the running ones, which do not depend on the batch.
        gain: root mean square of γ over the channels (1 where there is none).
        shift: root mean square of β (0 where there is none).
        variance: mean running variance, used in evaluation mode; the running means are taken as 0.
        eps: added to the variance.
    """

    training: bool
    gain: float = 1.0
    shift: float = 0.0
    variance: float = 1.0
    eps: float = 1e-5

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)


@dataclass(frozen=True)
class LayerNorm(Layer):
    """All entries of one input to mean 0 and variance 1, then times γ, plus β (rms `gain`, `shift`)."""

    gain: float = 1.0
    shift: float = 0.0
    eps: float = 1e-5

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)


@dataclass(frozen=True)
class GroupNorm(Layer):
    """The same over each of `groups` equal groups of channels and all positions."""

    groups: int
    gain: float = 1.0
    shift: float = 0.0
    eps: float = 1e-5

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.channels % self.groups:
            raise self.refuse(f"a multiple of {self.groups} channels", shape)
        return shape
