"""Layers that act on every entry by itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..activations import Activation
from .base import Layer, Shape


@dataclass(frozen=True)
class Nonlinearity(Layer):
    """An activation."""

    activation: Activation

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)


@dataclass(frozen=True)
class Dropout(Layer):
    """Entries set to 0 with probability p and the others divided by 1 − p, in training mode alone.

    Attributes:
        p: probability.
        training: in evaluation mode the layer is the identity.
        channelwise: whole channels at once (Dropout1d, Dropout2d).
    """

    p: float
    training: bool = True
    channelwise: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)
