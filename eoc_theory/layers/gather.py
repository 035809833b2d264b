"""Layers that put positions elsewhere: in another order, and those of several values side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..signals.fields import Gradient, Pairs, Signal
from ..signals.means import Magnitudes, Means
from .drawn import DrawnLayer
from .layer import Array, Layer, Shape
from .random_numbers import Draw


@dataclass(frozen=True)
class Gather(Layer):
    """Positions in another order or cut: windows of an image, a shifted or a mirrored one, part of one.

    Attributes:
        space: extents of the new positions.
        chosen: for each of them, in order, the input's position that it takes, all axes as one; a position
            may be taken several times or not at all.
        positions: how many the input has.
    """

    space: tuple[int, ...]
    chosen: tuple[int, ...]
    positions: int

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.positions != self.positions:
            raise self.refuse(f"channels at {self.positions} positions", shape)
        if len(self.chosen) != math.prod(self.space) or not 0 <= min(self.chosen) <= max(self.chosen) < (
            self.positions
        ):  # fmt: skip
            raise self.refuse("one of its input's positions for each of its own", self.space)
        return Shape(shape.channels, self.space)

    @property
    def is_one_to_one(self) -> bool:
        """Whether no position is taken twice."""
        return len(set(self.chosen)) == len(self.chosen)

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        at = np.asarray(self.chosen)
        moved = tuple(f.having(f.moment[:, at[:, None], at], f.mean[at], self.space) for f in signals[0])
        return moved, None

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        groups, at = [], np.asarray(self.chosen)
        for kernel in gradient.groups:
            whole = np.zeros((len(kernel), self.positions, self.positions), kernel.dtype)
            np.add.at(whole.transpose(1, 2, 0), (at[:, None], at), kernel.transpose(1, 2, 0))
            groups.append(whole)
        return [Gradient(tuple(groups), None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        flat = x.reshape(len(x), -1, x.shape[-1])[:, list(self.chosen)]
        return flat.reshape(len(x), *self.space, x.shape[-1]), x.shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        flat = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        back = np.zeros((len(flat), self.positions, flat.shape[-1]), gradient.dtype)
        if self.is_one_to_one:
            back[:, list(self.chosen)] = flat
        else:
            np.add.at(back.swapaxes(0, 1), np.asarray(self.chosen), flat.swapaxes(0, 1))
        return [back.reshape(memory)]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        x = inputs[0]
        profile = x.profile.reshape(-1)[list(self.chosen)].reshape(self.space)
        return Means.of(x.amplitude, profile, x.log_scale, x.variance), x.profile.shape

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        profile = np.zeros(self.positions)
        np.add.at(profile, list(self.chosen), signal.profile.reshape(-1))
        return [Means.of(signal.amplitude, profile.reshape(memory), signal.log_scale, signal.variance)]


@dataclass(frozen=True)
class Scatter(DrawnLayer):
    """Positions added up at new ones: overlapping patches put together, the reverse of taking them.

    Attributes:
        space: extents of the new positions.
        targets: for each of the input's positions, all axes as one, the new position where it is added; −1
            where it is left out.
    """

    space: tuple[int, ...]
    targets: tuple[int, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.positions != len(self.targets) or not -1 <= min(self.targets) <= max(self.targets) < (
            math.prod(self.space)
        ):  # fmt: skip
            raise self.refuse(f"channels at {len(self.targets)} positions that go to {self.space}", shape)
        return Shape(shape.channels, self.space)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return inputs[0] * sum(at >= 0 for at in self.targets) / math.prod(self.space)

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        flat = x.reshape(len(x), -1, x.shape[-1])
        # What is left out goes to one more position.
        made = np.zeros((len(x), math.prod(self.space) + 1, x.shape[-1]), x.dtype)
        np.add.at(made.swapaxes(0, 1), np.asarray(self.targets), flat.swapaxes(0, 1))
        return made[:, :-1].reshape(len(x), *self.space, x.shape[-1]), x.shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        flat = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        outside = np.concatenate([flat, np.zeros_like(flat[:, :1])], axis=1)
        return [outside[:, list(self.targets)].reshape(memory)]


@dataclass(frozen=True)
class JoinPositions(DrawnLayer):
    """Positions of several values with the same channels one after the other, as one axis."""

    def output_shape(self, *inputs: Shape) -> Shape:
        if not inputs or len({shape.channels for shape in inputs}) > 1:
            raise self.refuse("inputs of as many channels", " and ".join(map(str, inputs)) or "none")
        return Shape(inputs[0].channels, (sum(shape.positions for shape in inputs),))

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return float(np.average(inputs, weights=[shape.positions for shape in shapes]))

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        flat = [x.reshape(len(x), -1, x.shape[-1]) for x in inputs]
        return np.concatenate(flat, axis=1), [x.shape for x in inputs]

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        ends = np.cumsum([math.prod(shape[1:-1]) for shape in memory])[:-1]
        parts = np.split(gradient, ends, axis=1)
        return [part.reshape(shape) for part, shape in zip(parts, memory, strict=True)]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        shares, top = Means.shares(inputs)
        profile = np.concatenate([s * x.profile.reshape(-1) for s, x in zip(shares, inputs, strict=True)])
        counts = shares * [x.profile.size for x in inputs]
        amplitude = np.average([x.amplitude for x in inputs], axis=0, weights=np.maximum(counts, 1e-300))
        variance = max(x.variance for x in inputs)
        return Means.of(amplitude, profile, top, variance), [x.profile.shape for x in inputs]

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        parts = np.split(signal.profile, np.cumsum([math.prod(shape) for shape in memory])[:-1])
        return [
            Means.of(signal.amplitude, part.reshape(shape), signal.log_scale, signal.variance)
            for part, shape in zip(parts, memory, strict=True)
        ]
