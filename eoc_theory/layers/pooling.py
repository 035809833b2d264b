"""Pooling over positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .base import Layer, Shape


def _window_count(extent: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    span = extent + 2 * pad - kernel
    count = (-(-span // stride) if ceil else span // stride) + 1
    # As torch: a last window must start inside the image or its left padding.
    return count - 1 if ceil and (count - 1) * stride >= extent + pad else count


@dataclass(frozen=True)
class AveragePool(Layer):
    """Means over windows.

    Attributes:
        kernel, stride, padding: along each axis; the padding is of zeros, the same before and after.
        ceil_mode: whether a last, incomplete window counts.
        count_include_pad: whether padded entries count in the mean.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if len(shape.space) != len(self.kernel):
            raise self.refuse(f"images over {len(self.kernel)} axes", shape)
        space = tuple(
            _window_count(n, k, s, p, self.ceil_mode)
            for n, k, s, p in zip(shape.space, self.kernel, self.stride, self.padding, strict=True)
        )
        if min(space) < 1:
            raise self.refuse(f"images of at least its window {self.kernel}", shape)
        return Shape(shape.channels, space)

    def matrices(self, space: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """The mean along each axis as a matrix (outputs, inputs); together their tensor product."""
        found = []
        for n, k, s, p in zip(space, self.kernel, self.stride, self.padding, strict=True):
            count = _window_count(n, k, s, p, self.ceil_mode)
            matrix = np.zeros((count, n))
            for i in range(count):
                start = i * s - p
                end = min(start + k, n + p)
                inside = range(max(start, 0), min(end, n))
                matrix[i, list(inside)] = 1.0 / (end - start if self.count_include_pad else len(inside))
            found.append(matrix)
        return tuple(found)


@dataclass(frozen=True)
class AdaptiveAveragePool(Layer):
    """Means over windows that divide the image into `output` parts along each axis; (1, 1) is the mean of
    all."""

    output: tuple[int, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if len(shape.space) != len(self.output):
            raise self.refuse(f"images over {len(self.output)} axes", shape)
        return Shape(shape.channels, self.output)

    def matrices(self, space: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """As `AveragePool.matrices`."""
        found = []
        for n, m in zip(space, self.output, strict=True):
            matrix = np.zeros((m, n))
            for i in range(m):
                start, end = i * n // m, math.ceil((i + 1) * n / m)
                matrix[i, start:end] = 1.0 / (end - start)
            found.append(matrix)
        return tuple(found)


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maxima over windows; what is padded counts as −∞."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if len(shape.space) != len(self.kernel):
            raise self.refuse(f"images over {len(self.kernel)} axes", shape)
        space = tuple(
            _window_count(n, d * (k - 1) + 1, s, p, self.ceil_mode)
            for n, k, s, p, d in zip(
                shape.space, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        if min(space) < 1:
            raise self.refuse(f"images of at least its window {self.kernel}", shape)
        return Shape(shape.channels, space)

    def taps(self, axis: int, extent: int) -> np.ndarray:
        """Entries of each window along an axis, shape (windows, kernel); −1 outside the image."""
        kernel, dilation = self.kernel[axis], self.dilation[axis]
        count = _window_count(
            extent, dilation * (kernel - 1) + 1, self.stride[axis], self.padding[axis], self.ceil_mode
        )
        start = np.arange(count)[:, None] * self.stride[axis] - self.padding[axis]
        at = start + np.arange(kernel)[None] * dilation
        return np.where((at >= 0) & (at < extent), at, -1)
