"""The base class of all layer types: its name, the shape of its output, and its behaviour in each theory.

A layer describes; it holds no weights. One class a layer type, each in one place with everything the theory
needs of it: its output's shape, kernels forwards and backwards (`forward_kernel`, `backward_kernel`), values
in one sampled network (`forward_values`, `backward_values`) and the positive means of SynFlow
(`forward_means`, `backward_means`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError
from ..signals.means import Magnitudes, Means
from ..signals.shape import Shape
from .sampled_weights import Draw

if TYPE_CHECKING:
    from ..signals.fields import Gradient, Pairs, Signal

Array = np.ndarray


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

    @abstractmethod
    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        """The distribution of the value for inputs of these distributions, and what the backward pass needs.

        At infinite width, and taking the values of different inputs to the layer as independent.
        """

    @abstractmethod
    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        """The distribution of the loss's derivative by each input, for that by the value.

        Under gradient independence: weights used backwards are independent of those used forwards.
        """

    def refuse(self, wanted: str, given: object) -> ModelError:
        """The error of an input that does not fit."""
        return ModelError(f"layer {self.name!r} ({type(self).__name__}) takes {wanted}, got {given}")

    def one(self, inputs: tuple[Shape, ...]) -> Shape:
        """The only input."""
        if len(inputs) != 1:
            raise self.refuse("one input", len(inputs))
        return inputs[0]

    @abstractmethod
    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        """The value in one sampled network, and what the backward pass needs of the forward pass.

        Values have shape (channels, *space, batch): with the batch last, entries that belong together in
        convolutions, pooling and channel statistics are neighbours in memory, a fully connected layer is one
        matrix product, and flattening, channels first as torch does it, moves nothing.

        Args:
            inputs: values of the nodes before; never written to.
            draw: source of weights, biases and masks; its dtype is that of the values.
        """

    def repeat_values(self, inputs: list[Array], draw: Draw, memory: Any) -> tuple[Array, Any]:
        """`forward_values` for slightly different inputs, gates and choices as they were in `memory`."""
        return self.forward_values(inputs, draw)

    @abstractmethod
    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        """The gradient of each input from that of the output; exact, linear in `gradient`.

        `gradient` is never written to, and an array returned may be `gradient` itself.
        """

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        """The positive signal in SynFlow's network, and what the backward pass needs of the forward pass.

        By default the identity, which is what that network makes of activations, normalisation and dropout.

        Args:
            inputs: signals of the nodes before.
            magnitudes: mean and relative variance of a weight layer's |W|.
        """
        return inputs[0], None

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        """What each input's entry sends on to the outputs, from what this layer's entries send on."""
        return [signal]
