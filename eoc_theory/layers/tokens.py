"""Tokens: embeddings of words and positions, class tokens, rotations by position, and one token's choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..signals.fields import Gradient, Pairs, Signal
from ..signals.means import Magnitudes, Means
from .attention import Matrix
from .drawn import DrawnLayer, RandomRows
from .layer import Array, Layer, Shape
from .random_numbers import Draw


@dataclass(frozen=True)
class Embedding(RandomRows):
    """A row of a random table for each whole number of the input, a vector of token numbers.

    The table is no matrix of a product, so that pruning does not rank it. A kernel of two tokens is σ² where
    they coincide, else 0.

    Attributes:
        tokens: rows of the table, token numbers 0 … tokens − 1.
        features: entries of a row.
        std: standard deviation of an entry.
        padding: token number whose row is 0, as torch's `padding_idx`; None for none.
    """

    tokens: int
    features: int
    std: float
    padding: int | None = None

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.space:
            raise self.refuse("a vector of token numbers", shape)
        return Shape(self.features, (shape.channels,))

    @property
    def vocabulary(self) -> int:
        return self.tokens

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        seen, at = np.unique(np.rint(inputs[0]), return_inverse=True)
        # Rows of tokens that do not occur are not needed.
        table = draw.normal((self.features, len(seen)), self.std)
        if self.padding is not None:
            table[:, seen == self.padding] = 0.0
        return table[:, at.reshape(inputs[0].shape)], (inputs[0].shape, inputs[0].dtype)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        shape, dtype = memory
        return [np.zeros(shape, dtype)]


@dataclass(frozen=True)
class PositionEmbedding(DrawnLayer):
    """A random vector for each position, the same for all inputs, is added: learned embeddings at first.

    Attributes:
        std: standard deviation of an entry.
        shared: whether all positions have the same vector, as tokens of one type have.
    """

    std: float
    shared: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        return _tokens(self, inputs)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return inputs[0] + self.std**2

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        extents = (1,) * (x.ndim - 2) if self.shared else x.shape[1:-1]
        return x + draw.normal((len(x), *extents, 1), self.std), None

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient]


@dataclass(frozen=True)
class Sinusoids(DrawnLayer):
    """Sines and cosines of the position are added (Vaswani et al. 2017, section 3.5).

    At position p channel 2i gets scale · sin(p/10000^(2i/channels)), channel 2i + 1 the cosine.

    Attributes:
        scale: a factor of all.
    """

    scale: float = 1.0

    def output_shape(self, *inputs: Shape) -> Shape:
        return _tokens(self, inputs)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return inputs[0] + float(np.mean(self.table(shapes[0]) ** 2))

    def table(self, shape: Shape) -> Array:
        """What is added, (channels, positions)."""
        pairs = np.arange(shape.channels) // 2
        angles = np.outer(10_000.0 ** (-2.0 * pairs / shape.channels), np.arange(shape.positions))
        even = (np.arange(shape.channels) % 2 == 0)[:, None]
        return self.scale * np.where(even, np.sin(angles), np.cos(angles))

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        table = self.table(Shape(len(x), x.shape[1:-1])).astype(x.dtype)
        return x + table.reshape(*x.shape[:-1], 1), None

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient]


@dataclass(frozen=True)
class PositionTable(DrawnLayer):
    """Given numbers for each position are added, neither independent nor sines and cosines: interpolated
    embeddings, features of coordinates.

    Only how alike positions are counts: each channel gets a normal combination of the table's rows, whose
    covariance is tableᵀ table / rows. A torch model of it holds the table itself.

    Attributes:
        table: (rows, positions), a row for each channel of the network that it was read from.
    """

    table: Matrix

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = _tokens(self, inputs)
        if shape.positions != self.table.shape[1]:
            raise self.refuse(f"{self.table.shape[1]} positions", shape)
        return shape

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return inputs[0] + float(np.mean(self.table.array**2))

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x, table = inputs[0], self.table.array
        mixed = draw.normal((len(x), len(table)), len(table) ** -0.5) @ table.astype(x.dtype)
        return x + mixed.reshape(*x.shape[:-1], 1), None

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient]


@dataclass(frozen=True)
class FixedValue(DrawnLayer):
    """Given numbers, whatever the input is: features of coordinates that a layer makes embeddings of.

    Attributes:
        table: (channels, positions).
        space: extents of the positions.
    """

    table: Matrix
    space: tuple[int, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        self.one(inputs)
        channels, positions = self.table.shape
        if positions != math.prod(self.space):
            raise self.refuse(f"positions {self.space}", f"a table of {positions}")
        return Shape(channels, self.space)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return float(np.mean(self.table.array**2))

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        table = self.table.array.astype(x.dtype).reshape(-1, *self.space, 1)
        return np.repeat(table, x.shape[-1], axis=-1), x.shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [np.zeros(memory, gradient.dtype)]


@dataclass(frozen=True)
class ClassToken(DrawnLayer):
    """Random tokens, the same for all inputs, before those of the input, whose positions become one axis.

    Attributes:
        std: standard deviation of an entry.
        count: how many.
    """

    std: float
    count: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = _tokens(self, inputs)
        return Shape(shape.channels, (shape.positions + self.count,))

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        whole = shapes[0].positions + self.count
        return (shapes[0].positions * inputs[0] + self.count * self.std**2) / whole

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        own = draw.normal((len(x), self.count, 1), self.std)
        rest = x.reshape(len(x), -1, x.shape[-1])
        return np.concatenate([np.repeat(own, x.shape[-1], axis=2), rest], axis=1), x.shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient[:, self.count :].reshape(memory)]


@dataclass(frozen=True)
class Rotary(DrawnLayer):
    """Pairs of a head's channels are turned by angles that grow with the position (Su et al. 2021, RoPE).

    At position p the i-th pair of channels is turned by p · frequencies[i], or by given angles.

    Attributes:
        head: channels of a head; the first 2 · pairs of them are turned.
        frequencies: radians a position, for each pair; () where `angles` are given.
        interleaved: whether a pair are neighbours; else the i-th of both halves of what is turned.
        angles: radians of each pair at each position, (pairs, positions), of positions in a plane.
    """

    head: int
    frequencies: tuple[float, ...]
    interleaved: bool = False
    angles: Matrix | None = None

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = _tokens(self, inputs)
        if shape.channels % self.head or 2 * self.pairs > self.head:
            raise self.refuse(f"heads of {self.head} channels", shape)
        if self.angles is not None and self.angles.shape[1] != shape.positions:
            raise self.refuse(f"{self.angles.shape[1]} positions", shape)
        return shape

    @property
    def pairs(self) -> int:
        """Pairs of a head's channels that are turned."""
        return len(self.frequencies) if self.angles is None else self.angles.shape[0]

    def turns(self, positions: int) -> Array:
        """Radians of each pair at each position, (pairs, positions)."""
        if self.angles is not None:
            return self.angles.array
        return np.outer(self.frequencies, np.arange(positions))

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        return self._turned(inputs[0], 1.0), None

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [self._turned(gradient, -1.0)]

    def _turned(self, x: Array, sign: float) -> Array:
        value = x.reshape(len(x) // self.head, self.head, -1, x.shape[-1]).copy()
        pairs = self.pairs
        first, second = (
            (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2))
            if self.interleaved
            else (slice(0, pairs), slice(pairs, 2 * pairs))
        )
        angles = self.turns(value.shape[2])[:, :, None]
        cos, sin = np.cos(angles).astype(x.dtype), (sign * np.sin(angles)).astype(x.dtype)
        a, b = value[:, first].copy(), value[:, second].copy()
        value[:, first] = a * cos - b * sin
        value[:, second] = b * cos + a * sin
        return value.reshape(x.shape)


@dataclass(frozen=True)
class Pick(Layer):
    """The channels at one position, as a vector: the class token's, or the last token's.

    Attributes:
        index: of the position, all axes as one; counted from the end where it is negative.
    """

    index: int

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = _tokens(self, inputs)
        if not -shape.positions <= self.index < shape.positions:
            raise self.refuse(f"a position {self.index}", shape)
        return Shape(shape.channels)

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        at = self.index % signals[0][0].positions
        part = slice(at, at + 1)
        picked = tuple(f.having(f.moment[:, part, part], f.mean[part], ()) for f in signals[0])
        return picked, signals[0][0].positions

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        groups, at = [], self.index % memory
        for kernel in gradient.groups:
            whole = np.zeros((len(kernel), memory, memory), kernel.dtype)
            whole[:, at, at] = kernel[:, 0, 0]
            groups.append(whole)
        return [Gradient(tuple(groups), None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        return x.reshape(len(x), -1, x.shape[-1])[:, self.index], x.shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        back = np.zeros((memory[0], math.prod(memory[1:-1]), memory[-1]), gradient.dtype)
        back[:, self.index] = gradient
        return [back.reshape(memory)]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        x = inputs[0]
        profile = np.asarray(x.profile.reshape(-1)[self.index])
        return Means.of(x.amplitude, profile, x.log_scale, x.variance), x.profile.shape

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        profile = np.zeros(math.prod(memory))
        profile[self.index] = float(signal.profile)
        return [Means.of(signal.amplitude, profile.reshape(memory), signal.log_scale, signal.variance)]


def _tokens(layer: Layer, inputs: tuple[Shape, ...]) -> Shape:
    """The shape of the one input, which has positions."""
    shape = layer.one(inputs)
    if not shape.space:
        raise layer.refuse("channels at positions", shape)
    return shape
