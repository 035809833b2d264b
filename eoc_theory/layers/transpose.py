"""Channels as positions and positions as channels, for what mixes tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from ..signals.fields import Field, Gradient, Pairs, Signal
from ..signals.means import Magnitudes, Means
from .layer import Array, Layer, Shape, Width
from .random_numbers import Draw
from .sampled_channels import Channels, Segment


@dataclass(frozen=True)
class Transpose(Layer):
    """Positions become channels, and channels positions of extents `space`.

    Channels are independent, so that the new positions are; every new channel gets the law of their mean.
    """

    space: tuple[int, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.channels != math.prod(self.space):
            raise self.refuse(f"{math.prod(self.space)} channels", shape)
        return Shape(shape.positions, self.space)

    def kernel_entries(self, inputs: Sequence[Shape], value: Shape) -> int:
        return value.positions**2

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> Transpose:
        channels = inputs[0].channels
        if math.prod(self.space) == channels:
            return self
        if len(self.space) > 1:
            raise ModelError(f"layer {self.name!r} has positions that cannot be narrowed")
        return replace(self, space=(channels,))

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        own = Segment([channels.new(shapes[0].positions)])
        channels.keep_whole(inputs[0], own)
        return own

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        fields = signals[0]
        counts = [field.channels for field in fields]
        means = np.stack([field.mean for field in fields])
        # Different channels have their means alone in common.
        moment = np.repeat(np.repeat(means @ means.T / means.shape[1], counts, 0), counts, 1)
        moment = np.repeat(moment[None], len(fields[0].moment), 0).astype(fields[0].moment.dtype)
        own = np.stack([np.einsum("tpp->t", field.moment) / field.positions for field in fields], 1)
        np.einsum("tcc->tc", moment)[...] = np.repeat(own, counts, 1)
        mean = np.repeat(means.mean(axis=1), counts)
        made = Field(fields[0].positions, moment, mean.astype(moment.dtype), self.space)
        return (made,), (counts, fields[0].positions)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        counts, positions = memory
        (kernel,) = gradient.groups
        own = np.einsum("tcc->tc", kernel)
        groups, at = [], 0
        for count in counts:
            sent = np.zeros((len(kernel), positions, positions), kernel.dtype)
            np.einsum("tpp->tp", sent)[...] = own[:, at : at + count].mean(axis=1, keepdims=True)
            groups.append(sent)
            at += count
        return [Gradient(tuple(groups), None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        flat = x.reshape(len(x), -1, x.shape[-1]).swapaxes(0, 1)
        return np.ascontiguousarray(flat).reshape(len(flat), *self.space, x.shape[-1]), x.shape

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        flat = gradient.reshape(len(gradient), -1, gradient.shape[-1]).swapaxes(0, 1)
        return [np.ascontiguousarray(flat).reshape(memory)]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        x = inputs[0]
        profile = x.amplitude.reshape(self.space)
        return Means.of(x.profile.reshape(-1), profile, x.log_scale, x.variance), x.profile.shape

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        amplitude, profile = signal.profile.reshape(-1), signal.amplitude.reshape(memory)
        return [Means.of(amplitude, profile, signal.log_scale, signal.variance)]
