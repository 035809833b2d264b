"""Layers with weights: fully connected and convolutional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..activations import Activation
from ..base.boundary import public
from ..signals.fields import Field, Gradient, Pairs, Signal, average
from ..signals.means import Magnitudes, Means, look, spread, window_indices
from .convolution import (
    Geometry,
    continue_outside,
    convolution_gradients,
    convolve,
    fold_outside,
)
from .layer import Array, Layer, Shape
from .sampled_weights import Draw

WeightLaw = Literal["normal", "uniform", "truncated", "orthogonal"]
PaddingMode = Literal["zeros", "circular", "reflect"]


@public
@dataclass(frozen=True)
class WeightLayer:
    """The weights of a layer ``y = W h + b`` and the distribution they are sampled from.

    ``W_ij`` has mean 0 and variance ``sigma_w**2 / fan_in``, ``b_i`` variance ``sigma_b**2``.

    Attributes:
        name: of the layer, as in the model.
        fan_in: inputs of one output unit: features, or channels/groups × kernel size of a convolution.
        fan_out: output units: features, or channels.
        sigma_w, sigma_b: scales.
        activation: the activation that follows, None after the last layer or where there is none.
        law: of the weights: "normal", "uniform", "truncated" (normal, cut at two standard deviations of the
            uncut law) or "orthogonal" (rows or columns orthogonal, all of one length).
        kernel: extent of a convolution's kernel, () for a fully connected layer.
    """

    name: str
    fan_in: int
    fan_out: int
    sigma_w: float
    sigma_b: float
    activation: Activation | None = None
    law: WeightLaw = "normal"
    kernel: tuple[int, ...] = ()

    @property
    def n_weights(self) -> int:
        """Number of weights that pruning can remove (biases are not counted)."""
        return self.fan_in * self.fan_out

    @property
    def weight_std(self) -> float:
        """Standard deviation of one weight, σ_w/√fan_in."""
        return self.sigma_w / np.sqrt(self.fan_in)

    @property
    def channels_in(self) -> int:
        """Input features, or channels in one group of a convolution."""
        return self.fan_in // math.prod(self.kernel)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight tensor."""
        return (self.fan_out, self.channels_in, *self.kernel)


def _biased(values: Array, biases: Array | None) -> Array:
    """Values of shape (C, …, B), new for this purpose, with one number added to each channel."""
    if biases is not None:
        values += biases.reshape(-1, *(1,) * (values.ndim - 1))
    return values


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
class Dense(Layer):
    """A fully connected layer, on vectors."""

    weight: WeightLayer

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.space or shape.channels != self.weight.fan_in:
            raise self.refuse(f"vectors of {self.weight.fan_in} features", shape)
        return Shape(self.weight.fan_out)

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        return _weighted(self.weight, signals[0], [average(signals[0])], ())

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        factor = self.weight.sigma_w**2 * self.weight.fan_out / self.weight.fan_in
        sent = gradient.groups[0] * gradient.groups[0].dtype.type(factor)
        return [Gradient((sent,) * memory.groups, None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        weights = draw.weights(self.weight)
        return _biased(weights @ inputs[0], draw.biases(self.weight)), (weights, inputs[0])

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [memory[0].T @ gradient]

    def backward_scores(self, memory: Any, gradient: Array) -> tuple[Array, Array]:
        """The input's gradient, and W times that of the weights, shape (fan_out, fan_in)."""
        weights, x = memory
        scores = gradient @ x.T
        scores *= weights
        return weights.T @ gradient, scores

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
class Convolution(Layer):
    """A convolution over one or two axes.

    Attributes:
        weight: its weights; `weight.kernel` is the kernel's extent along each axis.
        stride, dilation: along each axis.
        padding: (before, after) along each axis.
        padding_mode: what stands outside the image.
        groups: channels are cut into so many groups, each seen by its own outputs.
    """

    weight: WeightLayer
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

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        from .position_kernels import gather

        signal = signals[0]
        space = signal[0].space
        taps = [self.taps(axis, n) for axis, n in enumerate(space)]
        # A depthwise convolution keeps channels of different laws apart; any other mixes them.
        seen = [field.moment for field in signal] if self.depthwise else [average(signal)]
        sums = [gather(moment, space, taps) for moment in seen]
        value, memory = _weighted(self.weight, signal, sums, tuple(map(len, taps)))
        return value, replace(memory, space=space, taps=taps)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        from .position_kernels import scatter

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
        if self.padding_mode == "circular":
            return at % extent
        if self.padding_mode == "reflect":
            period = max(2 * (extent - 1), 1)
            folded = np.abs(at) % period
            return np.where(folded >= extent, period - folded, folded)
        return np.where((at >= 0) & (at < extent), at, -1)

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        weights = draw.weights(self.weight, self.groups)
        if self.padding_mode == "zeros":
            value = convolve(weights, x, self.geometry, self.padding)
        else:
            value = convolve(weights, continue_outside(x, self._places(x.shape[1:-1])), self.geometry)
        return _biased(value, draw.biases(self.weight)), (weights, x)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [self.backward_scores(memory, gradient)[0]]

    def backward_scores(self, memory: Any, gradient: Array) -> tuple[Array, Array]:
        """As that of `Dense`."""
        weights, x = memory
        if self.padding_mode == "zeros":
            own, back = convolution_gradients(weights, x, gradient, self.geometry, self.padding)
            return back, weights * own
        places = self._places(x.shape[1:-1])
        own, back = convolution_gradients(
            weights, continue_outside(x, places), gradient, self.geometry, ((0, 0),) * len(places)
        )
        return fold_outside(back, places, x.shape[1:-1]), weights * own

    @property
    def geometry(self) -> Geometry:
        """Kernel, stride, dilation and groups."""
        return Geometry(self.weight.kernel, self.stride, self.dilation, self.groups)

    def _places(self, space: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """The entry that stands at each place of the padded image, along each axis."""
        alone = replace(
            self,
            weight=replace(self.weight, kernel=(1,) * len(space)),
            stride=(1,) * len(space),
            dilation=(1,) * len(space),
        )
        return tuple(alone.taps(axis, extent)[:, 0] for axis, extent in enumerate(space))

    def windows(self, space: tuple[int, ...]) -> np.ndarray:
        """Flat input positions that each tap sees, (taps, positions); the number of positions if outside."""
        return window_indices([self.taps(axis, n) for axis, n in enumerate(space)], space)

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
