"""Convolutions of arrays of shape (channels, *space, batch), and their gradients, by matrix products.

With the batch last, the entries under one tap of the kernel are long runs in memory: the columns of the usual
matrix (channels · kernel, positions · batch) are gathered at little more than the cost of copying, a few rows
of the image at a time, so that they never leave the cache and never stand in memory as a whole. Where the
kernel moves by single steps over an image, its taps come before the channels: what a row of the image adds to
the columns is then the same for all rows of the kernel, and gathered once.
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
#: Columns that one product takes where rows of the kernel share what is gathered.
RUN = 400
#: Channels up to which they do.
FEW = 32


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
        """Whether every position is an output, so that the backward pass is a convolution too."""
        return all(s == 1 for s in self.stride)

    def slides(self, channels: int) -> bool:
        """Whether rows of the kernel see what the row before saw, one position on, and few channels of it.

        Products of many channels take so long that gathering does not matter.
        """
        single = self.groups == 1 and all(s == 1 for s in (*self.stride, *self.dilation))
        return single and len(self.kernel) == 2 and self.kernel[0] > 1 and channels <= FEW


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


def convolve(
    weight: Array, values: Array, geometry: Geometry, margin: tuple[tuple[int, int], ...] | None = None
) -> Array:
    """Σ over channels of a group and taps.

    Args:
        weight: (C_out, C_in/groups · kernel).
        values: (C_in, *space, B), contiguous.
        margin: zeros around the values along each axis.

    Returns:
        (C_out, *positions, B).
    """
    groups, outputs = geometry.groups, weight.shape[0]
    margin = margin or ((0, 0),) * len(geometry.kernel)
    slides = geometry.slides(len(values))
    if not slides:
        values, margin = surround(values, margin), ((0, 0),) * len(margin)
    space = _positions(values, geometry, margin)
    result = np.empty((outputs, *space, values.shape[-1]), values.dtype)
    if slides:
        matrix = weight.reshape(outputs, len(values), -1).swapaxes(1, 2).reshape(outputs, -1)
        for columns, place in _sliding(values, geometry.kernel, margin, space):
            np.matmul(matrix, columns, out=_rows_first(result, place))
        return result
    matrix = weight.reshape(groups, outputs // groups, -1)
    flat = result.reshape(groups, outputs // groups, -1)
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


def _positions(values: Array, geometry: Geometry, margin: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    space = zip(values.shape[1:-1], margin, geometry.span, geometry.stride, strict=True)
    return tuple((n + sum(pads) - span - 1) // stride + 1 for n, pads, span, stride in space)


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


def _sliding(
    values: Array, kernel: tuple[int, ...], margin: tuple[tuple[int, int], ...], space: tuple[int, ...]
) -> Iterator[tuple[Array, tuple[slice, slice]]]:
    """Columns (rows, kernel · C, some positions of a row · B) of a part of an image of outputs at a time.

    With each the rows, and a slice of the flattened positions · B of a row. The array is overwritten by the
    next. A negative margin cuts away.
    """
    channels, height_in, width_in, batch = values.shape
    tall, wide = kernel
    (above, _), (before, _) = margin
    width = min(space[1], max(1, RUN // batch))
    height = min(space[0], max(1, 3 * BLOCK // (2 * wide * channels * width * batch) + 1 - tall))
    store = np.empty((height + tall - 1) * wide * channels * width * batch, values.dtype)
    for left in range(0, space[1], width):
        right = min(left + width, space[1])
        run = (right - left) * batch
        for top in range(0, space[0], height):
            bottom = min(top + height, space[0])
            count = bottom - top + tall - 1
            rows = store[: count * wide * channels * run].reshape(count, wide, channels, right - left, batch)
            first = min(max(top - above, 0), height_in)
            last = min(max(top - above + count, 0), height_in)
            inner = slice(first - top + above, last - top + above)
            rows[: inner.start] = 0
            rows[inner.stop :] = 0
            for tap in range(wide):
                shift = left + tap - before
                start = min(max(shift, 0), width_in)
                end = min(max(shift + right - left, 0), width_in)
                into = rows[inner, tap]
                into[:, :, : start - shift] = 0
                into[:, :, end - shift :] = 0
                into[:, :, start - shift : end - shift] = values[:, first:last, start:end].swapaxes(0, 1)
            # Overlapping rows as a view; as_strided would take ten times as long to make it.
            line = run * values.itemsize
            columns: Array = np.ndarray(
                (bottom - top, tall * wide * channels, run),
                values.dtype,
                buffer=store,
                strides=(wide * channels * line, line, values.itemsize),
            )
            yield columns, (slice(top, bottom), slice(left * batch, right * batch))


def _rows_first(values: Array, place: tuple[slice, slice]) -> Array:
    """A part of (C, *space, B) that `_sliding` names, as a view (rows, C, positions · B)."""
    return values.reshape(*values.shape[:2], -1)[(slice(None), *place)].swapaxes(0, 1)


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
    turned = weight.reshape(groups, outputs // groups, -1, taps)[..., ::-1]
    back = np.empty(values.shape, values.dtype)
    if geometry.slides(outputs):
        matrix = turned[0].transpose(1, 2, 0).reshape(len(values), -1)
        total = np.zeros(matrix.T.shape, values.dtype)
        for columns, place in _sliding(gradient, geometry.kernel, tuple(pads), space):
            np.matmul(matrix, columns, out=_rows_first(back, place))
            total += (columns @ _rows_first(values, place).swapaxes(1, 2)).sum(axis=0)
        # (turned taps · C_out, C_in) to the order of `weight`.
        found = total.reshape(taps, outputs, -1)[::-1].transpose(1, 2, 0)
        return np.ascontiguousarray(found).reshape(weight.shape), back
    wide = surround(gradient, tuple(pads))
    matrix = np.ascontiguousarray(turned.transpose(0, 2, 1, 3)).reshape(groups, len(values) // groups, -1)
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
