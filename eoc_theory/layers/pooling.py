"""Pooling over positions."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..activations import Activation, activation
from ..signals.fields import Field, Gradient, Latent, Pairs, Signal
from ..signals.means import Magnitudes, Means, look, spread, window_indices
from .layer import Array, Layer, Shape
from .random_numbers import Draw
from .weight_layer import PaddingMode, outside_entries

#: Positions in all fields that are drawn for the law of a maximum, and fields at least and at most.
POOL_ENTRIES = 1 << 20
POOL_DRAWS = (1024, 8192)
IDENTITY = activation("identity")
#: Kernels' entries that a maximum counts for: more than it holds, for the time that its samples' covariance
#: takes.
MAXIMUM_ENTRIES = 10


def _window_count(extent: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    span = extent + 2 * pad - kernel
    count = (-(-span // stride) if ceil else span // stride) + 1
    # As torch: a last window must start inside the image or its left padding.
    return count - 1 if ceil and (count - 1) * stride >= extent + pad else count


def _along_axes(matrices: tuple[Array, ...], x: Array) -> Array:
    """A matrix (outputs, inputs) applied along each axis of the positions of x, (C, *space, B)."""
    for axis, matrix in enumerate(matrices, start=1):
        shape = x.shape
        moved = matrix.astype(x.dtype) @ x.reshape(math.prod(shape[:axis]), shape[axis], -1)
        x = moved.reshape(*shape[:axis], len(matrix), *shape[axis + 1 :])
    return x


@dataclass(frozen=True)
class PositionMean(Layer):
    """Means over positions: one matrix along each axis."""

    @abstractmethod
    def matrices(self, space: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """The mean along each axis as a matrix (outputs, inputs); together their tensor product."""

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        return _averaged(signals[0], self.matrices(signals[0][0].space))

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        groups = tuple(map_positions(g, [m.T for m in memory]) for g in gradient.groups)
        return [Gradient(groups, None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        matrices = self.matrices(inputs[0].shape[1:-1])
        return _along_axes(matrices, inputs[0]), matrices

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [_along_axes(tuple(matrix.T for matrix in memory), gradient)]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        matrices = self.matrices(inputs[0].profile.shape)
        return inputs[0].separably(matrices), matrices

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        return [signal.separably([matrix.T for matrix in memory])]


@dataclass(frozen=True)
class AveragePool(PositionMean):
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
class AdaptiveAveragePool(PositionMean):
    """Means over windows that divide the image into `output` parts along each axis; (1, 1) is the mean of
    all."""

    output: tuple[int, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        return _of_extent(self, self.output, inputs)

    def matrices(self, space: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        found = []
        for n, m in zip(space, self.output, strict=True):
            matrix = np.zeros((m, n))
            for i in range(m):
                start, end = i * n // m, math.ceil((i + 1) * n / m)
                matrix[i, start:end] = 1.0 / (end - start)
            found.append(matrix)
        return tuple(found)


@dataclass(frozen=True)
class FixedFilter(PositionMean):
    """A convolution of every channel with the same given numbers, a product of numbers along each axis: blur.

    Attributes:
        taps: numbers along each axis, whose products are the filter.
        stride, padding, dilation: along each axis; the padding is of zeros, the same before and after.
    """

    taps: tuple[tuple[float, ...], ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if len(shape.space) != len(self.taps):
            raise self.refuse(f"images over {len(self.taps)} axes", shape)
        space = tuple(map(len, self._starts(shape.space)))
        if min(space) < 1:
            raise self.refuse(f"images of at least its filter's extents {tuple(map(len, self.taps))}", shape)
        return Shape(shape.channels, space)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        squares = [float(np.square(m).sum(axis=1).mean()) for m in self.matrices(shapes[0].space)]
        return inputs[0] * math.prod(squares)

    def _starts(self, space: tuple[int, ...]) -> list[range]:
        """Where the filter begins, along each axis."""
        each = zip(space, self.taps, self.stride, self.padding, self.dilation, strict=True)
        return [range(-p, n + p - d * (len(taps) - 1), s) for n, taps, s, p, d in each]

    def matrices(self, space: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        found = []
        for n, taps, d, starts in zip(space, self.taps, self.dilation, self._starts(space), strict=True):
            matrix = np.zeros((len(starts), n))
            for k, tap in enumerate(taps):
                at = np.asarray(starts) + k * d
                inside = (at >= 0) & (at < n)
                matrix[np.flatnonzero(inside), at[inside]] += tap
            found.append(matrix)
        return tuple(found)


@dataclass(frozen=True)
class Pad(PositionMean):
    """Positions added around the image, or cut off.

    Attributes:
        pads: (before, after) along each axis; negative numbers are cut off.
        padding_mode: what stands outside the image.
    """

    pads: tuple[tuple[int, int], ...]
    padding_mode: PaddingMode = "zeros"

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if len(shape.space) != len(self.pads):
            raise self.refuse(f"images over {len(self.pads)} axes", shape)
        space = tuple(n + before + after for n, (before, after) in zip(shape.space, self.pads, strict=True))
        if min(space) < 1:
            raise self.refuse(f"images larger than what is cut off, {self.pads}", shape)
        return Shape(shape.channels, space)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        if self.padding_mode != "zeros":
            return inputs[0]
        added = [
            1 + max(a, 0) / n + max(b, 0) / n for n, (a, b) in zip(shapes[0].space, self.pads, strict=True)
        ]
        return inputs[0] / math.prod(added)

    def matrices(self, space: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        found = []
        for n, (before, after) in zip(space, self.pads, strict=True):
            at = outside_entries(np.arange(-before, n + after), n, self.padding_mode)
            matrix = np.zeros((len(at), n))
            inside = np.flatnonzero(at >= 0)
            matrix[inside, at[inside]] = 1.0
            found.append(matrix)
        return tuple(found)


@dataclass(frozen=True)
class Resize(PositionMean):
    """The image at another extent.

    Attributes:
        output: extent along each axis.
        interpolation: "nearest", or linear between positions ("linear"), the outermost of which may lie
            on those of the input ("aligned"), or cubic likewise, as torch's ``interpolate`` does them.
    """

    output: tuple[int, ...]
    interpolation: Literal["nearest", "linear", "aligned", "cubic", "cubic aligned"] = "nearest"

    def output_shape(self, *inputs: Shape) -> Shape:
        return _of_extent(self, self.output, inputs)

    def matrices(self, space: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        found = []
        for n, m in zip(space, self.output, strict=True):
            i = np.arange(m)
            if self.interpolation in ("cubic", "cubic aligned"):
                found.append(_cubic(n, m, aligned=self.interpolation != "cubic"))
                continue
            if self.interpolation == "nearest":
                at = np.floor(i * n / m)
            elif self.interpolation == "aligned":
                at = i * ((n - 1) / max(m - 1, 1))
            else:
                at = np.maximum((i + 0.5) * n / m - 0.5, 0.0)
            left = np.minimum(at.astype(int), n - 1)
            matrix = np.zeros((m, n))
            matrix[i, left] = 1.0 - (at - left)
            matrix[i, np.minimum(left + 1, n - 1)] += at - left
            found.append(matrix)
        return tuple(found)


def _cubic(n: int, m: int, *, aligned: bool) -> Array:
    """Cubic convolution from n positions to m (Keys 1981, with a = −0.75 as torch has it), (m, n)."""
    i, a = np.arange(m), -0.75
    at = i * ((n - 1) / max(m - 1, 1)) if aligned else (i + 0.5) * n / m - 0.5
    left = np.floor(at).astype(int)
    matrix = np.zeros((m, n))
    for tap in range(-1, 3):
        d = np.abs(at - (left + tap))
        near = ((a + 2) * d - (a + 3)) * d**2 + 1
        far = ((d - 5) * d + 8) * d * a - 4 * a
        np.add.at(matrix, (i, np.clip(left + tap, 0, n - 1)), np.where(d <= 1, near, far))
    return matrix


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

    def kernel_entries(self, inputs: Sequence[Shape], value: Shape) -> int:
        return MAXIMUM_ENTRIES * inputs[0].positions ** 2

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        """Sampled: at least 1024 fields from the Gaussian law below the activation before it.

        The error of an entry is about 3 % of its scale with 1024 fields (images of 32×32 and more), 1 % with
        8192 (8×8 and less); over distant positions it averages out. What follows without weights in between,
        another activation say, takes the maxima as Gaussian.
        """
        fields, routes = [], []
        window = self._windows(signals[0][0].space)
        space = tuple(len(self.taps(axis, n)) for axis, n in enumerate(signals[0][0].space))
        for field in signals[0]:
            latent = field.source or Latent(field, IDENTITY)
            moment, mean, route = _sampled_maxima(latent, window, len(pairs.counts))
            fields.append(Field(field.channels, moment, mean, space))
            routes.append((route, field.source is not None, field.positions))
        return tuple(fields), (window, routes)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        window, routes = memory
        plain, latent = [], []
        for kernel, (route, has_latent, positions) in zip(gradient.groups, routes, strict=True):
            sent = _routed(kernel, route, window, positions)
            nothing = np.zeros_like(sent)
            plain.append(nothing if has_latent else sent)
            latent.append(sent if has_latent else nothing)
        any_latent = any(has_latent for _, has_latent, _ in routes)
        return [Gradient(tuple(plain), tuple(latent) if any_latent else None, gradient.log_scale)]

    def _windows(self, space: tuple[int, ...]) -> np.ndarray:
        """Position of each window's entries, shape (windows, entries); −1 outside the image."""
        taps = [self.taps(axis, n) for axis, n in enumerate(space)]
        if len(taps) == 1:
            return taps[0]
        rows, columns = taps
        at = rows[:, None, :, None] * space[1] + columns[None, :, None, :]
        outside = (rows < 0)[:, None, :, None] | (columns < 0)[None, :, None, :]
        return np.where(outside, -1, at).reshape(len(rows) * len(columns), -1)

    def taps(self, axis: int, extent: int) -> np.ndarray:
        """Entries of each window along an axis, shape (windows, kernel); −1 outside the image."""
        kernel, dilation = self.kernel[axis], self.dilation[axis]
        count = _window_count(
            extent, dilation * (kernel - 1) + 1, self.stride[axis], self.padding[axis], self.ceil_mode
        )
        start = np.arange(count)[:, None] * self.stride[axis] - self.padding[axis]
        at = start + np.arange(kernel)[None] * dilation
        return np.where((at >= 0) & (at < extent), at, -1)

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        space = self.output_shape(Shape(len(x), x.shape[1:-1])).space
        wide, inner = self._surrounded(x.shape, space, x.dtype, -np.inf)
        wide[inner] = x
        best: Array | None = None
        where = np.zeros((len(x), *space, x.shape[-1]), np.int16)
        for number, tap in enumerate(self._tap_slices(space)):
            if best is None:
                best = wide[tap].copy()
                continue
            # Of equal entries the first counts, as in torch.
            larger = wide[tap] > best
            where[larger] = number
            np.maximum(best, wide[tap], out=best)
        assert best is not None  # a window has at least one entry
        return best, (where, x.shape)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        where, shape = memory
        space = where.shape[1:-1]
        wide, inner = self._surrounded(shape, space, gradient.dtype, 0.0)
        for number, tap in enumerate(self._tap_slices(space)):
            wide[tap] += gradient * (where == number)
        return [np.ascontiguousarray(wide[inner])]

    def _surrounded(
        self, shape: tuple[int, ...], space: tuple[int, ...], dtype: Any, fill: float
    ) -> tuple[Array, tuple[slice, ...]]:
        """An array of `fill` that all windows fit in, and where the image lies in it."""
        extent, inner = [], [slice(None)]
        for n, m, k, s, p, d in zip(
            shape[1:-1], space, self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            extent.append(max(n + p, (m - 1) * s + d * (k - 1) + 1))
            inner.append(slice(p, p + n))
        return np.full((shape[0], *extent, shape[-1]), fill, dtype), tuple(inner)

    def _tap_slices(self, space: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        """For every entry of the window in turn, where it lies for all windows."""
        for tap in itertools.product(*map(range, self.kernel)):
            yield (
                slice(None),
                *(
                    slice(i * d, i * d + (m - 1) * s + 1, s)
                    for i, m, s, d in zip(tap, space, self.stride, self.dilation, strict=True)
                ),
            )

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        # Over many channels the positions of a window differ as their means do.
        x, space = inputs[0], inputs[0].profile.shape
        windows = window_indices([self.taps(axis, n) for axis, n in enumerate(space)], space)
        seen = look(x.profile, windows, outside=-np.inf)
        largest = seen.argmax(axis=0)[None]
        shape = self.output_shape(Shape(1, space)).space
        pooled = np.take_along_axis(seen, largest, axis=0).reshape(shape)
        chosen = np.take_along_axis(windows, largest, axis=0)
        return Means.of(x.amplitude, pooled, x.log_scale, x.variance), (chosen, space)

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        chosen, space = memory
        profile = spread(signal.profile.reshape(1, -1), chosen, space)
        return [Means.of(signal.amplitude, profile, signal.log_scale, signal.variance)]


def map_positions(kernel: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """A K Aᵀ for A the tensor product of a matrix along each axis; (T, P, P) to (T, P_out, P_out)."""
    matrix = matrices[0]
    for other in matrices[1:]:
        matrix = np.kron(matrix, other)
    matrix = matrix.astype(kernel.dtype)
    return matrix @ kernel @ matrix.T


def _averaged(signal: Signal, matrices: tuple[np.ndarray, ...]) -> tuple[Signal, tuple[np.ndarray, ...]]:
    """Every group's law under a linear map of the positions."""
    space = tuple(len(m) for m in matrices)
    whole = matrices[0] if len(matrices) == 1 else np.kron(*matrices)
    value = [
        f.having(map_positions(f.moment, matrices), whole.astype(f.mean.dtype) @ f.mean, space)
        for f in signal
    ]
    return tuple(value), matrices


def _sampled_maxima(latent: Latent, window: np.ndarray, kinds: int) -> tuple[np.ndarray, ...]:
    """Moment (T, O, O) and mean (O,) of max φ(u) over windows, and the backward pass's E[s_k(o) s_k'(o')].

    s_k(o) = φ'(u) at the window's k-th entry where that is the largest, else 0; shape (T, K, O, K, O).
    """
    draws = int(np.clip(POOL_ENTRIES // latent.field.positions, *POOL_DRAWS))
    pairs = latent.field.draw(draws)
    dtype = pairs[0][0].dtype.type
    moments, routes, means = [], [], []
    for kind, pair in enumerate(pairs):
        first = _maxima(latent.activation, pair[0], window)
        other = first if kind == 0 else _maxima(latent.activation, pair[1], window)
        means.append(first[0].mean(axis=0))
        for a, b, found in zip(first, other, (moments, routes), strict=True):
            product = a.T @ b / dtype(draws)
            found.append(0.5 * (product + product.T))
    shape = (kinds, window.shape[1], len(window), window.shape[1], len(window))
    return np.stack(moments), np.mean(means, axis=0), np.stack(routes).reshape(shape)


def _maxima(act: Activation, u: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """max φ(u) over the windows (draws, O), and s_k(o), (draws, K · O), for fields u (draws, P)."""
    values = np.where(window < 0, -np.inf, np.asarray(act(u))[:, window])
    first = values.argmax(axis=2)
    largest = np.take_along_axis(values, first[..., None], axis=2)[..., 0].astype(u.dtype)
    at = np.take_along_axis(window[None], first[..., None], axis=2)[..., 0]
    slopes = np.asarray(act.derivative(1)(np.take_along_axis(u, at, axis=1))).astype(u.dtype)
    chosen = first[:, None, :] == np.arange(window.shape[1])[:, None]
    return largest, (chosen * slopes[:, None, :]).reshape(len(u), -1)


def _routed(kernel: np.ndarray, route: np.ndarray, window: np.ndarray, positions: int) -> np.ndarray:
    """The gradient (T, O, O) sent to the entries that were chosen, (T, P, P)."""
    result = np.zeros((len(kernel), positions, positions), dtype=kernel.dtype)
    for k in range(window.shape[1]):
        inside = window[:, k] >= 0
        rows = window[inside, k]
        for other in range(window.shape[1]):
            there = window[:, other] >= 0
            block = (kernel * route[:, k, :, other])[:, inside][:, :, there]
            result[:, rows[:, None], window[there, other]] += block
    return result


def _of_extent(layer: Layer, output: tuple[int, ...], inputs: tuple[Shape, ...]) -> Shape:
    """The shape of images that become as large as `output`."""
    shape = layer.one(inputs)
    if len(shape.space) != len(output):
        raise layer.refuse(f"images over {len(output)} axes", shape)
    return Shape(shape.channels, output)
