"""Normalisation: over the batch, over one input's entries, over groups of its channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..signals.fields import Field, Gradient, Pairs, Signal
from .batch_norm_corrections import MOST_POSITIONS, normalised_kernel, without_signal
from .layer import Array, Layer, Shape, Width
from .random_numbers import Draw


def _standardised(x: Array, axis: int, eps: float) -> tuple[Array, Array]:
    """x of three axes less its mean along one, over its deviation; and 1/deviation."""
    normal = x - x.mean(axis=axis, keepdims=True)
    inverse = 1.0 / np.sqrt(_mean_product(normal, normal, axis) + x.dtype.type(eps))
    normal *= inverse
    return normal, inverse


def _through_standardised(normal: Array, inverse: Array, gradient: Array, axis: int, gain: float) -> Array:
    """The backward pass: without the mean, and without the part along the normalised signal."""
    g = gradient.reshape(normal.shape)
    result = normal * -_mean_product(normal, g, axis)
    result += g
    result -= g.mean(axis=axis, keepdims=True)
    result *= inverse * gradient.dtype.type(gain)
    return result.reshape(gradient.shape)


def _mean_product(a: Array, b: Array, axis: int) -> Array:
    """Mean of a·b along an axis that is kept with extent 1."""
    letters = "gcb".replace("gcb"[axis], "")
    return np.expand_dims(np.einsum(f"gcb,gcb->{letters}", a, b), axis) / a.dtype.type(a.shape[axis])


def _scaled(x: Array, scale: float, shift: Array | None) -> Array:
    """scale · x + shift."""
    result = x if scale == 1.0 else x * x.dtype.type(scale)
    return result if shift is None else result + shift


def _shift(draw: Draw, shape: tuple[int, ...], rms: float) -> Array | None:
    """β, None where it is 0."""
    return draw.normal(shape, rms) if rms > 0 else None


class Normalisation(Layer):
    """What normalisations with γ = `gain`, β of root mean square `shift` and `eps` have in common."""

    if TYPE_CHECKING:
        # Fields of the subclasses, which begin with others.
        gain: float
        shift: float
        eps: float

    @property
    def is_silent(self) -> bool:
        return self.gain == 0.0

    def heard(self, factor: float) -> Normalisation:
        return self if self.gain else replace(self, gain=1.0)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return self.gain**2 + self.shift**2

    def variance_gain(self, mean_square: float) -> float:
        return math.nan


@dataclass(frozen=True)
class BatchNorm(Normalisation):
    """Each channel to mean 0 and variance 1 over batch and positions, then times γ, plus β.

    Attributes:
        training: over the batch's own statistics; else by the running ones, which do not depend on the batch.
        gain: root mean square of γ over the channels (1 where there is none).
        shift: root mean square of β (0 where there is none).
        variance: mean running variance, used in evaluation mode; the running means are taken as 0.
        eps: added to the variance.
    """

    training: bool
    gain: float = 1.0
    shift: float = 0.0
    variance: float = 1.0
    eps: float = 1e-5

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)

    @property
    def normalises(self) -> str:
        return "batch"

    @property
    def batch_statistics(self) -> bool | None:
        return self.training

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        if self.training:
            return super().mean_square(inputs, shapes)
        return inputs[0] * self.gain**2 / (self.variance + self.eps) + self.shift**2

    def variance_gain(self, mean_square: float) -> float:
        return math.nan if self.training else self.gain**2 / (self.variance + self.eps)

    def kernel_gain(self, memory: Any) -> float | None:
        return float(np.mean([scale**2 for scale, _ in memory]))

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        """With few inputs or positions, each channel's variance differs from their mean: `standardising`."""
        fields, memory = [], []
        for field in signals[0]:
            if self.training:
                mean = field.mean - field.mean.mean()
                moment = centred(field.moment, pairs)
                variance = float(np.trace(moment[0], dtype=float)) / field.positions
                normal = field.having(moment, mean).scaled(float(1.0 / np.sqrt(variance + self.eps)))
                kept = normal.moment if field.positions <= MOST_POSITIONS else None
                memory.append((self.gain / float(np.sqrt(variance + self.eps)), kept))
                value = field.having(normalised_kernel(normal.moment, pairs), normal.mean).scaled(self.gain)
            else:
                factor = self.gain / float(np.sqrt(self.variance + self.eps))
                memory.append((factor, None))
                value = field.having(field.moment, field.mean).scaled(factor)
            fields.append(_shifted(value, self.shift))
        return tuple(fields), memory

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        gate = None if self.shift else gradient.gate
        groups = []
        for (factor, signal), kernel in zip(memory, gradient.groups, strict=True):
            result = kernel if signal is None else without_signal(kernel, signal, pairs, gate, self.gain)
            if self.training:
                result = centred(result, pairs)
            groups.append(result * result.dtype.type(factor**2))
        return [Gradient(tuple(groups), None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        beta = _shift(draw, (len(x), *(1,) * (x.ndim - 1)), self.shift)
        if not self.training:
            scale = self.gain / math.sqrt(self.variance + self.eps)
            return _scaled(x, scale, beta), scale
        normal, inverse = _standardised(x.reshape(1, len(x), -1), 2, self.eps)
        return _scaled(normal.reshape(x.shape), self.gain, beta), (normal, inverse)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        if not self.training:
            return [gradient * gradient.dtype.type(memory)]
        normal, inverse = memory
        return [_through_standardised(normal, inverse, gradient, 2, self.gain)]


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """All entries of one input to mean 0 and variance 1, then times γ, plus β (rms `gain`, `shift`)."""

    gain: float = 1.0
    shift: float = 0.0
    eps: float = 1e-5

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)

    @property
    def normalises(self) -> str:
        return "layer"

    def kernel_gain(self, memory: Any) -> float | None:
        return memory**2

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        total = sum(field.channels for field in signals[0])
        mean = sum(field.channels / total * float(field.mean.mean()) for field in signals[0])
        square = sum(
            field.channels / total * float(np.trace(field.moment[0], dtype=float)) / field.positions
            for field in signals[0]
        )
        factor = self.gain / np.sqrt(square - mean**2 + self.eps)
        fields = []
        for field in signals[0]:
            centre = field.mean - field.mean.dtype.type(mean)
            moment = field.covariance + centre[:, None] * centre
            fields.append(_shifted(field.having(moment, centre).scaled(float(factor)), self.shift))
        return tuple(fields), float(factor)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        # What is subtracted, the mean over all entries and the part along them, vanishes with the width.
        return [gradient.times(memory**2)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        beta = _shift(draw, (*x.shape[:-1], 1), self.shift)
        normal, inverse = _standardised(x.reshape(1, -1, x.shape[-1]), 1, self.eps)
        return _scaled(normal.reshape(x.shape), self.gain, beta), (normal, inverse)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        normal, inverse = memory
        return [_through_standardised(normal, inverse, gradient, 1, self.gain)]


@dataclass(frozen=True)
class GroupNorm(Normalisation):
    """The same over each of `groups` equal groups of channels and all positions."""

    groups: int
    gain: float = 1.0
    shift: float = 0.0
    eps: float = 1e-5

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.channels % self.groups:
            raise self.refuse(f"a multiple of {self.groups} channels", shape)
        return shape

    @property
    def normalises(self) -> str:
        return "group"

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> GroupNorm:
        members = whole[0].channels // self.groups
        return replace(self, groups=max(1, inputs[0].channels // members))

    def kernel_gain(self, memory: Any) -> float | None:
        return float(np.mean(np.square(memory[1])))

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        members = sum(field.channels for field in signals[0]) // self.groups
        fields, memory = [], []
        for field in signals[0]:
            centre = field.mean - field.mean.mean()
            moment = _centred_group(field.covariance, members) + centre[:, None] * centre
            variance = float(np.trace(moment[0], dtype=float)) / field.positions
            factor = float(self.gain / np.sqrt(variance + self.eps))
            memory.append(factor)
            fields.append(_shifted(field.having(moment, centre).scaled(factor), self.shift))
        return tuple(fields), (members, memory)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        members, factors = memory
        groups = [
            _centred_group(g, members) * g.dtype.type(factor**2)
            for g, factor in zip(gradient.groups, factors, strict=True)
        ]
        return [Gradient(tuple(groups), None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        beta = _shift(draw, (len(x), *(1,) * (x.ndim - 1)), self.shift)
        normal, inverse = _standardised(x.reshape(self.groups, -1, x.shape[-1]), 1, self.eps)
        return _scaled(normal.reshape(x.shape), self.gain, beta), (normal, inverse)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        normal, inverse = memory
        return [_through_standardised(normal, inverse, gradient, 1, self.gain)]


def centred(kernel: np.ndarray, pairs: Pairs) -> np.ndarray:
    """The kernel (T, P, P) of values less their mean over batch and positions."""
    rows = np.tensordot(pairs.shares.astype(kernel.dtype), kernel.mean(axis=2), axes=1)
    found = kernel - rows[:, None]
    found -= rows - rows.mean()
    return found


def _centred_group(kernel: np.ndarray, members: int) -> np.ndarray:
    """The kernel of one of `members` independent channels less their mean over channels and positions."""
    rows = kernel.mean(axis=2, keepdims=True)
    taken = rows + rows.swapaxes(1, 2) - rows.mean(axis=1, keepdims=True)
    return kernel - taken * kernel.dtype.type(1.0 / members)


def _shifted(field: Field, shift: float) -> Field:
    """With β ~ (0, shift²) of its own for each channel."""
    return field if shift == 0 else field.having(field.moment + field.moment.dtype.type(shift**2), field.mean)
