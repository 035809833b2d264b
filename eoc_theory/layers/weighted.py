"""Layers with weights: fully connected and convolutional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from ..signals.fields import Field, Gradient, Pairs, Signal, average
from ..signals.means import Magnitudes, Means, look, spread, window_indices
from .layer import Shape, Weighted, Width
from .position_kernels import gather, scatter
from .weight_layer import PaddingMode, WeightLayer, outside_entries


def _resized(weight: WeightLayer, channels_in: int, fan_out: int) -> WeightLayer:
    """The same with other widths, its scales and kernel unchanged."""
    return replace(weight, fan_in=channels_in * math.prod(weight.kernel), fan_out=fan_out)


@dataclass(frozen=True)
class WeightedMemory:
    """What a weight layer's kernels leave behind.

    Attributes:
        sums: Σ_β H(p + β, p' + β) over the taps, for each output group, (T, P, P).
        groups: groups of channels of the input.
        space, taps: of a convolution's input.
    """

    sums: tuple[np.ndarray, ...]
    groups: int
    space: tuple[int, ...] = ()
    taps: list[np.ndarray] | None = None

    def log_moment(self, weight: WeightLayer, gradient: Gradient, pairs: Pairs) -> float:
        """log E[(W g)²], g one weight's gradient: Var W Σ G H over all pairs of entries that it meets."""
        total = 0.0
        for kernel, gathered in zip(gradient.groups, self.sums, strict=True):
            products = np.einsum("tpq,tpq->t", kernel, gathered, dtype=np.float64)
            total += float(pairs.counts @ products) / len(self.sums)
        total *= weight.weight_std**2 / math.prod(weight.kernel)
        # Kernels that cancel may leave a rounding error below zero.
        return math.log(total) + gradient.log_scale if total > 0 else -math.inf


@dataclass(frozen=True)
class Dense(Weighted):
    """A fully connected layer, on vectors."""

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.space or shape.channels != self.weight.fan_in:
            raise self.refuse(f"vectors of {self.weight.fan_in} features", shape)
        return Shape(self.weight.fan_out)

    @property
    def is_dense(self) -> bool:
        return True

    @property
    def kind(self) -> str:
        return "Linear"

    def narrowed(self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width) -> Dense:
        return replace(self, weight=_resized(self.weight, inputs[0].channels, width(self.weight.fan_out, 1)))

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        return _weighted(self.weight, signals[0], [average(signals[0])], ())

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        factor = self.weight.sigma_w**2 * self.weight.fan_out / self.weight.fan_in
        sent = gradient.groups[0] * gradient.groups[0].dtype.type(factor)
        return [Gradient((sent,) * memory.groups, None, gradient.log_scale)]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        return self._through(inputs[0], self.weight.fan_out, magnitudes), None

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        return [self._through(signal, self.weight.fan_in, magnitudes)]

    def _through(self, x: Means, size: int, magnitudes: Magnitudes) -> Means:
        """Each of `size` entries gets the mean |W| times the sum of all."""
        mean, variance = magnitudes(self.weight)
        total = float(x.amplitude.sum())
        relative = variance * (1.0 + x.variance) * float((x.amplitude**2).sum()) / max(total, 1e-300) ** 2
        return Means.of(np.full(size, mean * total), np.ones(()), x.log_scale, relative)


@dataclass(frozen=True)
class Convolution(Weighted):
    """A convolution over one or two axes.

    Attributes:
        weight: its weights; `weight.kernel` is the kernel's extent along each axis.
        stride, dilation: along each axis.
        padding: (before, after) along each axis.
        padding_mode: what stands outside the image.
        groups: channels are cut into so many groups, each seen by its own outputs.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    padding_mode: PaddingMode = "zeros"

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        kernel = self.weight.kernel
        channels = self.weight.channels_in * self.groups
        if len(shape.space) != len(kernel) or shape.channels != channels:
            raise self.refuse(f"{channels} channels over {len(kernel)} axes", shape)
        space = tuple(
            (n + sum(pad) - dilation * (k - 1) - 1) // stride + 1
            for n, k, pad, stride, dilation in zip(
                shape.space, kernel, self.padding, self.stride, self.dilation, strict=True
            )
        )
        if min(space) < 1:
            raise self.refuse(f"images of at least its kernel {kernel}", shape)
        return Shape(self.weight.fan_out, space)

    @property
    def kind(self) -> str:
        name = "Conv " + "x".join(map(str, self.weight.kernel))
        if max(self.stride) > 1:
            name += " /" + "x".join(map(str, sorted(set(self.stride))))
        if self.groups > 1:
            name += " depthwise" if self.weight.channels_in == 1 else f" in {self.groups} groups"
        return name

    def kernel_entries(self, inputs: Sequence[Shape], value: Shape) -> int:
        return value.positions**2

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> Convolution:
        # Groups keep their number, but for depthwise convolutions, which keep their one channel.
        groups = inputs[0].channels if self.depthwise else self.groups
        if inputs[0].channels % groups:
            raise ModelError(f"layer {self.name!r} has groups that cannot be narrowed")
        if self.depthwise:
            fan_out = inputs[0].channels * (self.weight.fan_out // self.groups)
        else:
            fan_out = width(self.weight.fan_out, groups)
        return replace(
            self, weight=_resized(self.weight, inputs[0].channels // groups, fan_out), groups=groups
        )

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        signal = signals[0]
        space = signal[0].space
        taps = [self.taps(axis, n) for axis, n in enumerate(space)]
        # A depthwise convolution keeps channels of different laws apart; any other mixes them.
        seen = [field.moment for field in signal] if self.depthwise else [average(signal)]
        sums = [gather(moment, space, taps) for moment in seen]
        value, memory = _weighted(self.weight, signal, sums, tuple(map(len, taps)))
        return value, replace(memory, space=space, taps=taps)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        factor = self.weight.sigma_w**2 * self.weight.fan_out / (self.groups * self.weight.fan_in)
        sent = [scatter(g, memory.space, memory.taps) * g.dtype.type(factor) for g in gradient.groups]
        groups = tuple(sent) if self.depthwise else (sent[0],) * memory.groups
        return [Gradient(groups, None, gradient.log_scale)]

    @property
    def depthwise(self) -> bool:
        """Whether every input channel is a group by itself."""
        return self.groups > 1 and self.weight.channels_in == 1

    def taps(self, axis: int, extent: int) -> np.ndarray:
        """Where each output position looks along an axis, shape (positions, kernel); −1 outside the image."""
        before, after = self.padding[axis]
        kernel, dilation = self.weight.kernel[axis], self.dilation[axis]
        positions = (extent + before + after - dilation * (kernel - 1) - 1) // self.stride[axis] + 1
        at = np.arange(positions)[:, None] * self.stride[axis] - before + np.arange(kernel)[None] * dilation
        return outside_entries(at, extent, self.padding_mode)

    def windows(self, space: tuple[int, ...]) -> np.ndarray:
        return window_indices([self.taps(axis, n) for axis, n in enumerate(space)], space)

    def tap_shares(self, x: Means, sent: Means) -> np.ndarray:
        return look(x.profile, self.windows(x.profile.shape)) @ sent.profile.reshape(-1)

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        x, space = inputs[0], inputs[0].profile.shape
        windows = self.windows(space)
        seen = look(x.profile, windows)
        shape = self.output_shape(Shape(len(x.amplitude), space)).space
        profile = seen.sum(axis=0).reshape(shape)
        return self._grouped(x, self.weight.fan_out, profile, seen.sum(axis=1), magnitudes), (windows, space)

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        windows, space = memory
        sent = np.where(windows < math.prod(space), signal.profile.reshape(1, -1), 0.0)
        channels = self.weight.channels_in * self.groups
        return [self._grouped(signal, channels, spread(sent, windows, space), sent.sum(axis=1), magnitudes)]

    def _grouped(
        self, x: Means, size: int, profile: np.ndarray, taps: np.ndarray, magnitudes: Magnitudes
    ) -> Means:
        """Each of `size` channels gets the mean |W| times the sum of its group; `taps` weigh the taps."""
        mean, variance = magnitudes(self.weight)
        channels = x.amplitude.reshape(self.groups, -1)
        amplitude = np.repeat(mean * channels.sum(axis=1), size // self.groups)
        # Terms are independent from channel to channel and from tap to tap.
        fewness = (channels**2).sum(axis=1) / np.maximum(channels.sum(axis=1) ** 2, 1e-300)
        fewness = float(fewness.mean()) * float((taps**2).sum()) / max(float(taps.sum()) ** 2, 1e-300)
        return Means.of(amplitude, profile, x.log_scale, variance * (1.0 + x.variance) * fewness)


def _weighted(
    weight: WeightLayer, signal: Signal, sums: list[np.ndarray], space: tuple[int, ...]
) -> tuple[Signal, WeightedMemory]:
    """The output of fresh weights: Gaussian, of mean 0, a group of channels for each kernel sum."""
    fields = []
    for gathered in sums:
        number = gathered.dtype.type
        scale = weight.sigma_w**2 / math.prod(weight.kernel)
        moment = gathered * number(scale) + number(weight.sigma_b**2)
        fields.append(Field(weight.fan_out // len(sums), moment, np.zeros(moment.shape[1], number), space))
    return tuple(fields), WeightedMemory(tuple(sums), len(signal))
