"""What a network is told of its tokens: which of them are padding, and further inputs beside the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .drawn import DrawnLayer, RandomRows
from .layer import Array, Shape
from .random_numbers import Draw


@dataclass(frozen=True)
class PartOfInput(DrawnLayer):
    """One of several inputs of a network, which stand one after the other in a vector.

    Attributes:
        start: entry of the vector that it begins at.
        shape: of its value.
    """

    start: int
    shape: Shape

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.space or shape.channels < self.start + self.shape.size:
            raise self.refuse(f"a vector of {self.start + self.shape.size} entries at least", shape)
        return self.shape

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        own = x[self.start : self.start + self.shape.size]
        return own.reshape(self.shape.channels, *self.shape.space, x.shape[-1]), x.shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        back = np.zeros(memory, gradient.dtype)
        back[self.start : self.start + self.shape.size] = gradient.reshape(self.shape.size, -1)
        return [back]


@dataclass(frozen=True)
class KnownTokens(DrawnLayer):
    """One channel for attention: 0 where the input's token is that of padding, else 1.

    Attributes:
        padding: the token number; 0 of an input that is itself 0 where padding is.
    """

    padding: int

    @property
    def tells_padding(self) -> bool:
        return True

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.space:
            raise self.refuse("a vector of token numbers", shape)
        return Shape(1, (shape.channels,))

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return 1.0

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        known = np.rint(inputs[0]) != self.padding
        return known[None].astype(inputs[0].dtype), (inputs[0].shape, inputs[0].dtype)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        shape, dtype = memory
        return [np.zeros(shape, dtype)]


@dataclass(frozen=True)
class CountEmbedding(RandomRows):
    """A row of a random table for each token, by how many known ones there are up to it (`KnownTokens`).

    Attributes:
        features: entries of a row.
        std: standard deviation of an entry.
        padding: count whose row padding has, 0 for one of its own; None for that of the tokens before it.
        blank: whether the row of count 0 is zero.
    """

    features: int
    std: float
    padding: int | None = 0
    blank: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.channels != 1 or len(shape.space) != 1:
            raise self.refuse("which tokens are known", shape)
        return Shape(self.features, shape.space)

    def rows(self, known: Array) -> Array:
        """Which row each token has, of `known`, (T, B)."""
        counts = np.cumsum(known, axis=0)
        return counts if self.padding is None else np.where(known, counts, self.padding)

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        known = inputs[0][0] > 0.5
        table = draw.normal((self.features, len(known) + 1), self.std)
        table[:, :1] *= not self.blank
        return table[:, self.rows(known)], inputs[0]

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [np.zeros_like(memory)]


@dataclass(frozen=True)
class _OfKnown(DrawnLayer):
    """A layer of two inputs: tokens, or one vector, and which tokens are known (`KnownTokens`)."""

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(inputs) != 2 or inputs[1].channels != 1 or inputs[0].positions not in (1, inputs[1].positions):
            raise self.refuse("tokens and which of them are known", " and ".join(map(str, inputs)))
        return inputs[0]

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def multipliers(self, known: Array) -> Array:
        """What each input's tokens are multiplied by, (1, T or 1, B), of `known`, (T, B)."""
        raise NotImplementedError

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x, known = inputs
        factors = self.multipliers(known.reshape(-1, known.shape[-1])).astype(x.dtype)
        factors = factors if x.ndim > 2 else factors[:, 0]
        return x * factors, (factors, known)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        factors, known = memory
        return [gradient * factors, np.zeros_like(known)]


@dataclass(frozen=True)
class OnlyKnown(_OfKnown):
    """Tokens that are padding become 0."""

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return inputs[0] * inputs[1]

    def multipliers(self, known: Array) -> Array:
        return known[None]


@dataclass(frozen=True)
class ByCount(_OfKnown):
    """Multiplied by the number of all tokens over that of the known ones, at least one.

    The mean over all tokens of what is 0 at those that are padding becomes the mean over the others.
    """

    def multipliers(self, known: Array) -> Array:
        return len(known) / np.maximum(known.sum(axis=0), 1.0)[None, None]


@dataclass(frozen=True)
class PickKnown(_OfKnown):
    """The channels of one token of each input, as a vector.

    Attributes:
        which: "last" or "first" of the known ones, or "count", which is at their number less one: the last
            one where padding comes after a text.
    """

    which: str = "last"

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = super().output_shape(*inputs)
        if len(shape.space) != 1:
            raise self.refuse("tokens", shape)
        return Shape(shape.channels)

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x, known = inputs
        at = self.chosen(known.reshape(-1, known.shape[-1]) > 0.5)
        return x[:, at, np.arange(x.shape[-1])], (x.shape, at, known)

    def chosen(self, known: Array) -> Array:
        """Which token of each input, (B,), of `known`, (T, B)."""
        if self.which == "first":
            return known.argmax(axis=0)
        if self.which == "count":
            return known.sum(axis=0) - 1
        return len(known) - 1 - known[::-1].argmax(axis=0)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        shape, at, known = memory
        back = np.zeros(shape, gradient.dtype)
        back[:, at, np.arange(shape[-1])] = gradient
        return [back, np.zeros_like(known)]
