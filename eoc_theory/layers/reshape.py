"""Layers that move entries without changing them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..signals.fields import Field, Gradient, Pairs, Signal
from ..signals.means import Magnitudes, Means
from ..signals.parts import InputPart
from .layer import Array, Layer, Shape, Width
from .position_kernels import gather, scatter
from .random_numbers import Draw
from .sampled_channels import Channels, Segment


@dataclass(frozen=True)
class Input(Layer):
    """The network's input.

    Attributes:
        shape: of one input.
        absent: token numbers that no input may hold: those that the network was read without, such as that
            of padding, which a model masks.
        parts: of several inputs, what stands in the vector that is taken; () for one input.
    """

    shape: Shape
    absent: tuple[int, ...] = ()
    parts: tuple[InputPart, ...] = ()

    def output_shape(self, *inputs: Shape) -> Shape:
        if inputs:
            raise self.refuse("no input", len(inputs))
        return self.shape

    @property
    def absent_tokens(self) -> tuple[int, ...]:
        return self.absent

    @property
    def input_parts(self) -> tuple[InputPart, ...]:
        return self.parts

    @property
    def keeps_vectors(self) -> bool:
        return True

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        own = Segment([channels.new(self.shape.channels)])
        channels.keep_whole(own)
        return own

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        raise self.refuse("its value from the data", "a kernel")

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        return []

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        return inputs[0], None

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return []


@dataclass(frozen=True)
class Flatten(Layer):
    """All entries as one vector."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return Shape(self.one(inputs).size)

    @property
    def keeps_vectors(self) -> bool:
        return True

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        return Segment(inputs[0].classes, inputs[0].repeat * shapes[0].positions)

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        # Every position becomes a group of channels with a law of its own.
        flat = [
            field.having(field.moment[:, p : p + 1, p : p + 1], field.mean[p : p + 1], ())
            for field in signals[0]
            for p in range(field.positions)
        ]
        return tuple(flat), [(field.positions, field.moment.dtype) for field in signals[0]]

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        # Different positions meet different weights: their gradients are uncorrelated.
        groups, at = [], 0
        for positions, dtype in memory:
            values = np.stack([g[:, 0, 0] for g in gradient.groups[at : at + positions]])
            kernel = np.zeros((values.shape[1], positions, positions), dtype=dtype)
            kernel[:, np.arange(positions), np.arange(positions)] = values.T
            groups.append(kernel)
            at += positions
        return [Gradient(tuple(groups), None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        return inputs[0].reshape(-1, inputs[0].shape[-1]), inputs[0].shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient.reshape(memory)]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        x = inputs[0]
        flat = np.outer(x.amplitude, x.profile).reshape(-1)
        return Means.of(flat, np.ones(()), x.log_scale, x.variance), (len(x.amplitude), *x.profile.shape)

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        values = signal.amplitude.reshape(memory[0], -1)
        profile = values.mean(axis=0).reshape(memory[1:])
        return [Means.of(values.mean(axis=1), profile, signal.log_scale, signal.variance)]


@dataclass(frozen=True)
class Identity(Layer):
    """Nothing."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)

    @property
    def keeps_vectors(self) -> bool:
        return True

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        return signals[0], None

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        return [gradient]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        return inputs[0], None

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient]


@dataclass(frozen=True)
class Subsample(Layer):
    """Every `stride`-th position along each axis, from the first (``x[:, :, ::2, ::2]``)."""

    stride: tuple[int, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if len(shape.space) != len(self.stride):
            raise self.refuse(f"images over {len(self.stride)} axes", shape)
        return Shape(shape.channels, tuple(-(-n // s) for n, s in zip(shape.space, self.stride, strict=True)))

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        space = signals[0][0].space
        taps = self._taps(space)
        chosen = np.ravel_multi_index(np.ix_(*(t[:, 0] for t in taps)), space).ravel()
        extents = tuple(map(len, taps))
        value = tuple(f.having(gather(f.moment, space, taps), f.mean[chosen], extents) for f in signals[0])
        return value, (space, taps)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        groups = tuple(scatter(g, *memory) for g in gradient.groups)
        return [Gradient(groups, None, gradient.log_scale)]

    def _taps(self, space: tuple[int, ...]) -> list[np.ndarray]:
        return [np.arange(0, n, s)[:, None] for n, s in zip(space, self.stride, strict=True)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        return np.ascontiguousarray(inputs[0][self._kept]), inputs[0].shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        result = np.zeros(memory, gradient.dtype)
        result[self._kept] = gradient
        return [result]

    @property
    def _kept(self) -> tuple[slice, ...]:
        return (slice(None), *(slice(None, None, s) for s in self.stride))

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        x = inputs[0]
        profile = x.profile[tuple(slice(None, None, step) for step in self.stride)]
        return Means.of(x.amplitude, profile, x.log_scale, x.variance), x.profile.shape

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        profile = np.zeros(memory)
        profile[tuple(slice(None, None, step) for step in self.stride)] = signal.profile
        return [Means.of(signal.amplitude, profile, signal.log_scale, signal.variance)]


@dataclass(frozen=True)
class PadChannels(Layer):
    """Channels of zeros before and after (the shortcut without parameters)."""

    before: int
    after: int

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        return Shape(shape.channels + self.before + self.after, shape.space)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        channels = shapes[0].channels
        return inputs[0] * channels / (channels + self.before + self.after)

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> PadChannels:
        missing = width(value.channels, 1) - inputs[0].channels
        before = round(missing * self.before / max(self.before + self.after, 1))
        return replace(self, before=before, after=missing - before)

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        before, after = (Segment([channels.new(n)]) for n in (self.before, self.after))
        channels.keep_whole(before, after, inputs[0])
        return Segment([*before.classes, *inputs[0].classes, *after.classes], inputs[0].repeat)

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        first = signals[0][0]
        nothing = np.zeros_like(first.moment), np.zeros_like(first.mean)
        before, after = (Field(n, *nothing, first.space) for n in (self.before, self.after))
        value = (*((before,) if self.before else ()), *signals[0], *((after,) if self.after else ()))
        return value, len(signals[0])

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        start = 1 if self.before else 0
        return [Gradient(gradient.groups[start : start + memory], None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        result = np.zeros((self.before + len(x) + self.after, *x.shape[1:]), x.dtype)
        result[self.before : self.before + len(x)] = x
        return result, len(x)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient[self.before : self.before + memory]]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        x = inputs[0]
        padded = np.pad(x.amplitude, (self.before, self.after))
        return Means.of(padded, x.profile, x.log_scale, x.variance), len(x.amplitude)

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        inner = signal.amplitude[self.before : self.before + memory]
        return [Means.of(inner, signal.profile, signal.log_scale, signal.variance)]
