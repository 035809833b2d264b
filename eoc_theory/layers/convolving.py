"""Convolutions of arrays of shape (channels, *space, batch), and their gradients, by matrix products.

With the batch last, the entries under one tap of the kernel are long runs in memory: the columns of the usual
matrix (channels · kernel, positions · batch) are gathered at little more than the cost of copying, a few rows
of the image at a time, so that they never leave the cache and never stand in memory as a whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

Array = np.ndarray

#: Entries of the columns gathered at a time: with the products' own blocks they fit a second-level cache.
BLOCK = 1 << 17


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride, dilation along each axis, and groups of channels."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def span(self) -> tuple[int, ...]:
        """Reach of the kernel beyond its first tap, along each axis."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def reversible(self) -> bool:
        """Whether every position is an output, so that the way back is a convolution too."""
        return all(s == 1 for s in self.stride)


def surround(values: Array, pads: tuple[tuple[int, int], ...]) -> Array:
    """Zeros around the positions, or where `pads` is negative positions cut away; (C, *space, B)."""
    if not any(map(any, pads)):
        return values
    space = values.shape[1:-1]
    extent = [n + before + after for n, (before, after) in zip(space, pads, strict=True)]
    result = np.zeros((values.shape[0], *extent, values.shape[-1]), values.dtype)
    into, source = [slice(None)], [slice(None)]
    for n, m, (before, _) in zip(space, extent, pads, strict=True):
        start, end = max(before, 0), min(before + n, m)
        into.append(slice(start, end))
        source.append(slice(start - before, end - before))
    result[tuple(into)] = values[tuple(source)]
    return result


def continue_outside(values: Array, taken: tuple[Array, ...]) -> Array:
    """Positions beyond the image filled by those at the places `taken` along each axis."""
    for axis, places in enumerate(taken, start=1):
        if not np.array_equal(places, np.arange(values.shape[axis])):
            values = values.take(places, axis=axis)
    return values


def fold_outside(gradient: Array, taken: tuple[Array, ...], space: tuple[int, ...]) -> Array:
    """The transpose of `continue_outside`: what lies outside added to where it was taken from."""
    for axis, (places, extent) in enumerate(zip(taken, space, strict=True), start=1):
        if np.array_equal(places, np.arange(extent)):
            continue
        moved = np.moveaxis(gradient, axis, 0)
        folded = np.zeros((extent, *moved.shape[1:]), gradient.dtype)
        for row, place in zip(moved, places, strict=True):
            folded[place] += row
        gradient = np.ascontiguousarray(np.moveaxis(folded, 0, axis))
    return gradient


def convolve(weight: Array, values: Array, geometry: Geometry) -> Array:
    """Σ over channels of a group and taps; no padding.

    Args:
        weight: (C_out, C_in/groups · kernel).
        values: (C_in, *space, B), contiguous.

    Returns:
        (C_out, *positions, B).
    """
    groups = geometry.groups
    space = _positions(values, geometry)
    result = np.empty((weight.shape[0], *space, values.shape[-1]), values.dtype)
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1)
    flat = result.reshape(groups, weight.shape[0] // groups, -1)
    for columns, _, part in _columns(values, geometry, space):
        np.matmul(matrix, columns, out=flat[..., part])
    return result


def convolution_gradients(
    weight: Array, values: Array, gradient: Array, geometry: Geometry, margin: tuple[tuple[int, int], ...]
) -> tuple[Array, Array]:
    """Gradients of `convolve` for values with `margin` zeros around them, without those zeros.

    Args:
        weight: (C_out, C_in/groups · kernel).
        values: (C_in, *space, B), contiguous, without the zeros.
        gradient: (C_out, *positions, B).

    Returns:
        of the weights, (C_out, C_in/groups · kernel), and of the values, (C_in, *space, B).
    """
    if math.prod(geometry.kernel) == 1 and geometry.reversible and not any(map(any, margin)):
        return _pointwise(weight, values, gradient, geometry.groups)
    if geometry.reversible and weight.shape[0] <= 2 * len(values):
        return _by_reverse(weight, values, gradient, geometry, margin)
    return _by_scatter(weight, values, gradient, geometry, margin)


def _positions(values: Array, geometry: Geometry) -> tuple[int, ...]:
    space = zip(values.shape[1:-1], geometry.span, geometry.stride, strict=True)
    return tuple((n - span - 1) // stride + 1 for n, span, stride in space)


def _windows(values: Array, geometry: Geometry, space: tuple[int, ...]) -> Array:
    """A view of what stands under each tap, (C, *kernel, *space, B)."""
    first, *along, last = values.strides
    taps = [s * d for s, d in zip(along, geometry.dilation, strict=True)]
    steps = [s * t for s, t in zip(along, geometry.stride, strict=True)]
    shape = (values.shape[0], *geometry.kernel, *space, values.shape[-1])
    return as_strided(values, shape, (first, *taps, *steps, last))


def _columns(
    values: Array, geometry: Geometry, space: tuple[int, ...]
) -> Iterator[tuple[Array, slice, slice]]:
    """Columns (groups, C/groups · kernel, positions · B) of a few rows of outputs at a time.

    With each the rows as a slice of the first axis, and of the flattened positions · B. The array is
    overwritten by the next.
    """
    groups = geometry.groups
    taps = math.prod(geometry.kernel)
    windows = _windows(values, geometry, space)
    row = math.prod(space[1:]) * values.shape[-1]
    if taps == 1 and geometry.reversible:
        yield values.reshape(groups, -1, space[0] * row), slice(0, space[0]), slice(0, space[0] * row)
        return
    height = min(space[0], max(1, BLOCK // (len(values) * taps * row)))
    axis = 1 + len(space)
    store = np.empty(len(values) * taps * height * row, values.dtype)
    for start in range(0, space[0], height):
        end = min(start + height, space[0])
        view = windows[(slice(None),) * axis + (slice(start, end),)]
        columns = store[: view.size].reshape(view.shape)
        np.copyto(columns, view)
        part = slice(start * row, end * row)
        yield columns.reshape(groups, -1, (end - start) * row), slice(start, end), part


def _pointwise(weight: Array, values: Array, gradient: Array, groups: int) -> tuple[Array, Array]:
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1)
    x = values.reshape(groups, matrix.shape[2], -1)
    g = gradient.reshape(groups, matrix.shape[1], -1)
    return (g @ x.swapaxes(1, 2)).reshape(weight.shape), (matrix.swapaxes(1, 2) @ g).reshape(values.shape)


def _by_reverse(
    weight: Array, values: Array, gradient: Array, geometry: Geometry, margin: tuple[tuple[int, int], ...]
) -> tuple[Array, Array]:
    """Stride 1: the values' gradient is the gradient convolved with the kernel turned around, and the same
    columns serve for that of the weights."""
    groups, outputs, taps = geometry.groups, weight.shape[0], math.prod(geometry.kernel)
    space = values.shape[1:-1]
    pads = []
    for n, positions, span, (before, _) in zip(
        space, gradient.shape[1:-1], geometry.span, margin, strict=True
    ):
        left = span - before
        pads.append((left, n + span - left - positions))
    wide = surround(gradient, tuple(pads))
    turned = weight.reshape(groups, outputs // groups, -1, taps)[..., ::-1]
    matrix = np.ascontiguousarray(turned.transpose(0, 2, 1, 3)).reshape(groups, len(values) // groups, -1)
    back = np.empty(values.shape, values.dtype)
    flat_back = back.reshape(groups, len(values) // groups, -1)
    flat_values = values.reshape(flat_back.shape)
    total = np.zeros((groups, matrix.shape[2], matrix.shape[1]), values.dtype)
    for columns, _, part in _columns(wide, geometry, space):
        np.matmul(matrix, columns, out=flat_back[..., part])
        total += columns @ flat_values[..., part].swapaxes(1, 2)
    # (groups, C_out/groups · turned taps, C_in/groups) to the order of `weight`.
    found = total.reshape(groups, outputs // groups, taps, -1)[:, :, ::-1].transpose(0, 1, 3, 2)
    return np.ascontiguousarray(found).reshape(weight.shape), back


def _by_scatter(
    weight: Array, values: Array, gradient: Array, geometry: Geometry, margin: tuple[tuple[int, int], ...]
) -> tuple[Array, Array]:
    """Any stride: each output's gradient sent to the entries it was made of."""
    groups, outputs = geometry.groups, weight.shape[0]
    space = gradient.shape[1:-1]
    matrix = weight.reshape(groups, outputs // groups, -1)
    flat = gradient.reshape(groups, outputs // groups, -1)
    wide = surround(values, margin)
    back = np.zeros(wide.shape, values.dtype)
    windows = _windows(back, geometry, space)
    total = np.zeros(matrix.shape, values.dtype)
    axes = len(space)
    for columns, rows, part in _columns(wide, geometry, space):
        g = flat[..., part]
        total += g @ columns.swapaxes(1, 2)
        sent = (matrix.swapaxes(1, 2) @ g).reshape(
            len(values), *geometry.kernel, rows.stop - rows.start, *space[1:], values.shape[-1]
        )
        # Under one tap no entry occurs twice, under several it may: one tap at a time.
        for tap in itertools.product(*map(range, geometry.kernel)):
            place = (slice(None), *tap)
            windows[(*place, rows)] += sent[place]
    inner = tuple(
        slice(before, before + n) for (before, _), n in zip(margin, values.shape[1:-1], strict=True)
    )
    assert len(inner) == axes
    return total.reshape(weight.shape), np.ascontiguousarray(back[(slice(None), *inner)])
