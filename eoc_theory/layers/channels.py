"""Layers that scale, choose or move whole channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from ..signals.fields import Field, Gradient, Pairs, Signal, average
from ..signals.means import Magnitudes, Means
from .layer import Array, Layer, Shape, Width
from .random_numbers import Draw
from .sampled_channels import Channels, Segment


@dataclass(frozen=True)
class ChannelScale(Layer):
    """Each channel times γ, plus β (LayerScale, or a normalisation's last step alone).

    Attributes:
        gain: root mean square of γ over the channels.
        shift: root mean square of β.
    """

    gain: float
    shift: float = 0.0

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)

    @property
    def is_silent(self) -> bool:
        return self.gain == 0.0

    def heard(self, factor: float) -> ChannelScale:
        return self if self.gain else replace(self, gain=1.0)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return self.gain**2 * inputs[0] + self.shift**2

    def variance_gain(self, mean_square: float) -> float:
        return self.gain**2

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        fields = []
        for field in signals[0]:
            scaled = field.scaled(self.gain)
            number = scaled.moment.dtype.type
            fields.append(field.having(scaled.moment + number(self.shift**2), scaled.mean))
        return tuple(fields), None

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        return [Gradient(gradient.groups, None, gradient.log_scale).times(self.gain**2)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        value = inputs[0] * inputs[0].dtype.type(self.gain)
        if self.shift > 0:
            value += draw.normal((len(value), *(1,) * (value.ndim - 1)), self.shift)
        return value, None

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient * gradient.dtype.type(self.gain)]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        return inputs[0].scaled(self.gain), None

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        return [signal.scaled(self.gain)]


@dataclass(frozen=True)
class ChannelSlice(Layer):
    """The channels from `start` to `stop`, every `step`-th."""

    start: int
    stop: int
    step: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if not 0 <= self.start < self.stop <= shape.channels:
            raise self.refuse(f"at least {self.stop} channels", shape)
        return Shape(len(self._chosen), shape.space)

    @property
    def _chosen(self) -> range:
        return range(self.start, self.stop, self.step)

    @property
    def moves_channels(self) -> bool:
        return True

    def channels_taken(self, count: int) -> Array:
        return np.arange(count)[self._chosen]

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> ChannelSlice:
        part = inputs[0].channels / whole[0].channels
        return replace(self, start=round(self.start * part), stop=round(self.stop * part))

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        own = Segment([channels.new(len(self._chosen))])
        channels.keep_whole(inputs[0], own)
        return own

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        edges = np.cumsum([0, *(field.channels for field in signals[0])])
        inside = [int(n) for n in np.histogram(np.array(self._chosen), edges - 0.5)[0]]
        fields = tuple(replace(field, channels=n) for field, n in zip(signals[0], inside, strict=True) if n)
        return fields, [(field.channels, n) for field, n in zip(signals[0], inside, strict=True)]

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        # Of each group the mean over its channels; those that are not taken get nothing.
        sent, groups = iter(gradient.groups), []
        nothing = np.zeros_like(gradient.groups[0])
        for channels, n in memory:
            groups.append(next(sent) * nothing.dtype.type(n / channels) if n else nothing)
        return [Gradient(tuple(groups), None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        return inputs[0][self.start : self.stop : self.step], inputs[0].shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        back = np.zeros(memory, gradient.dtype)
        back[self.start : self.stop : self.step] = gradient
        return [back]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        x = inputs[0]
        chosen = x.amplitude[self.start : self.stop : self.step]
        return Means.of(chosen, x.profile, x.log_scale, x.variance), len(x.amplitude)

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        amplitude = np.zeros(memory)
        amplitude[self.start : self.stop : self.step] = signal.amplitude
        return [Means.of(amplitude, signal.profile, signal.log_scale, signal.variance)]


@dataclass(frozen=True)
class ChannelShuffle(Layer):
    """Channels in another order: laid out as an array of `extents`, whose axes are put in `order`.

    ``x.view(B, g, C / g, H, W).transpose(1, 2)`` is extents (g, C / g) in order (1, 0).
    """

    extents: tuple[int, ...]
    order: tuple[int, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.channels != math.prod(self.extents):
            raise self.refuse(f"{math.prod(self.extents)} channels", shape)
        return shape

    @property
    def permutation(self) -> Array:
        """Which channel stands at each place."""
        channels = np.arange(math.prod(self.extents)).reshape(self.extents)
        return channels.transpose(self.order).reshape(-1)

    @property
    def moves_channels(self) -> bool:
        return True

    def channels_taken(self, count: int) -> Array:
        return self.permutation

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> ChannelShuffle:
        widest = max(range(len(self.extents)), key=self.extents.__getitem__)
        others = math.prod(self.extents) // self.extents[widest]
        if inputs[0].channels % others:
            raise ModelError(f"layer {self.name!r} has groups that cannot be narrowed")
        extents = tuple(
            inputs[0].channels // others if i == widest else n for i, n in enumerate(self.extents)
        )
        return replace(self, extents=extents)

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        own = Segment([channels.new(math.prod(self.extents))])
        channels.keep_whole(inputs[0], own)
        return own

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        """Channels of different laws are mixed evenly, and get the law of their mean."""
        signal = signals[0]
        if len(signal) == 1:
            return signal, 1
        total = sum(field.channels for field in signal)
        mean = np.asarray(sum(field.mean * field.mean.dtype.type(field.channels / total) for field in signal))
        return (Field(total, average(signal), mean, signal[0].space),), len(signal)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        latent = gradient.latent if memory == 1 else None
        return [Gradient(gradient.groups * memory, latent, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        return inputs[0][self.permutation], None

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient[np.argsort(self.permutation)]]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        x = inputs[0]
        return Means.of(x.amplitude[self.permutation], x.profile, x.log_scale, x.variance), None

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        amplitude = signal.amplitude[np.argsort(self.permutation)]
        return [Means.of(amplitude, signal.profile, signal.log_scale, signal.variance)]
