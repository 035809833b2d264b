"""What every layer of a network's graph is: its name, the shape it returns, and its behaviour in each theory.

A layer describes; it holds no weights. One class a layer type, each in one place with everything the theory
needs of it: its output's shape, kernels forwards and backwards (`forward_kernel`, `backward_kernel`), values
in one sampled network (`forward_values`, `backward_values`) and the positive means of SynFlow
(`forward_means`, `backward_means`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..errors import ModelError


@dataclass(frozen=True)
class Shape:
    """One value of the network: channels, and the extent of the positions, () for a vector."""

    channels: int
    space: tuple[int, ...] = ()

    @property
    def positions(self) -> int:
        """Number of positions, 1 for a vector."""
        return math.prod(self.space)

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.channels * self.positions

    def __str__(self) -> str:
        return "x".join(str(n) for n in (self.channels, *self.space))


@dataclass(frozen=True)
class Layer(ABC):
    """A node's computation; `name` is where it stands in the model."""

    name: str

    @abstractmethod
    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the value for inputs of these shapes.

        Raises:
            ModelError: inputs that do not fit, naming the layer.
        """

    def refuse(self, wanted: str, given: object) -> ModelError:
        """The error of an input that does not fit."""
        return ModelError(f"layer {self.name!r} ({type(self).__name__}) takes {wanted}, got {given}")

    def one(self, inputs: tuple[Shape, ...]) -> Shape:
        """The only input."""
        if len(inputs) != 1:
            raise self.refuse("one input", len(inputs))
        return inputs[0]
