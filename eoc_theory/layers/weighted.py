"""Layers with weights: fully connected and convolutional."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..activations import Activation
from .base import Layer, Shape

WeightLaw = Literal["normal", "uniform", "truncated", "orthogonal"]
PaddingMode = Literal["zeros", "circular", "reflect"]


@dataclass(frozen=True)
class WeightLayer:
    """The weights of a layer ``y = W h + b`` and the law they are drawn from.

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


@dataclass(frozen=True)
class Dense(Layer):
    """A fully connected layer, on vectors."""

    weight: WeightLayer

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.space or shape.channels != self.weight.fan_in:
            raise self.refuse(f"vectors of {self.weight.fan_in} features", shape)
        return Shape(self.weight.fan_out)


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
