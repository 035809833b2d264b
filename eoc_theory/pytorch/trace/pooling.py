"""Pooling over windows, and means and maxima over whole axes of positions."""

from __future__ import annotations

import math
from typing import Any

from ...layers import AdaptiveAveragePool, AveragePool, ChannelMean, Layer, MaxPool, Resize, Shape
from . import layout as lay
from . import positions
from .channel_groups import of_groups, summed
from .layout import BATCH, CHANNELS, EXPANDED
from .readers import reads
from .recorder import Recorder
from .values import Signal, Unreadable
from .vector_norms import Mean, Spread, mean_square, vector_dimension

#: Groups of channels that are added up one by one.
_MOST_GROUPS = 64


def _image(recorder: Recorder, input: Any, axes: int) -> int:
    position = recorder.image(input)
    if len(recorder.shapes[position].space) != axes:
        raise recorder.refuse(
            f"takes values with {axes} axes of positions, got a tensor of shape {recorder.text(input)}"
        )
    return position


def _each(value: Any, axes: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * axes if len(values) == 1 else values or default


def _average(
    recorder: Recorder, axes: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: Any,
) -> Signal:  # fmt: skip
    if divisor_override is not None:
        raise recorder.refuse(f"divisor_override = {divisor_override} cannot be read")
    position, kernel = _image(recorder, input, axes), _each(kernel_size, axes)
    layer = AveragePool(
        recorder.label(), kernel, _each(stride, axes, kernel), _each(padding, axes), bool(ceil_mode),
        bool(count_include_pad),
    )  # fmt: skip
    return recorder.add(layer, position)


def _maximum(
    recorder: Recorder, axes: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool,
) -> Signal:  # fmt: skip
    kernel = _each(kernel_size, axes)
    stride, dilation = _each(stride, axes, kernel), _each(dilation, axes)
    padding = _each(padding, axes)
    signal = recorder.check(input)
    if signal.padding is None or signal.padding[0] != "lowest" or any(padding):
        layer = MaxPool(recorder.label(), kernel, stride, padding, dilation, bool(ceil_mode))
        return recorder.add(layer, _image(recorder, input, axes))
    pads = signal.padding[1]
    even = all(before == after for before, after in pads)
    around = tuple(before for before, _ in pads)
    layer = MaxPool(recorder.label(), kernel, stride, around, dilation, ceil_mode or not even)
    made = recorder.add(layer, recorder.node_of(signal))
    wanted = layer_extents(signal.sizes[2:], kernel, stride, dilation, bool(ceil_mode))
    if not even and (any(around) or made.shape.space != wanted):
        raise recorder.refuse(f"−∞ around an image is read alike before and after, got {pads}")
    return made


def layer_extents(
    space: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...],
    ceil_mode: bool,
) -> tuple[int, ...]:  # fmt: skip
    """Extents of the maxima over an image that is padded already."""
    pool = MaxPool("", kernel, stride, (0,) * len(kernel), dilation, ceil_mode)
    return pool.output_shape(Shape(1, space)).space


def _adaptive_maximum(recorder: Recorder, axes: int, input: Any, output_size: Any) -> Signal:
    position = _image(recorder, input, axes)
    space, output = recorder.shapes[position].space, _each(output_size, axes)
    if any(n % m for n, m in zip(space, output, strict=True)):
        raise recorder.refuse(f"cannot be read for outputs {output} that do not divide the input {space}")
    kernel = tuple(n // m for n, m in zip(space, output, strict=True))
    return recorder.add(MaxPool(recorder.label(), kernel, kernel, (0,) * axes, (1,) * axes), position)


def _indices(recorder: Recorder) -> Unreadable:
    return Unreadable(recorder.refuse("return_indices = True cannot be read"))


def _register_pools(axes: int) -> None:
    @reads(f"avg_pool{axes}d")
    def read_average(
        recorder: Recorder, input: Any, kernel_size: Any, stride: Any = (), padding: Any = 0,
        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None,
    ) -> Any:  # fmt: skip
        return _average(recorder, axes, input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                        divisor_override)  # fmt: skip

    @reads(f"max_pool{axes}d")
    def read_maximum(
        recorder: Recorder, input: Any, kernel_size: Any, stride: Any = (), padding: Any = 0,
        dilation: Any = 1, ceil_mode: bool = False,
    ) -> Any:  # fmt: skip
        return _maximum(recorder, axes, input, kernel_size, stride, padding, dilation, ceil_mode)

    @reads(f"max_pool{axes}d_with_indices")
    def read_maximum_and_indices(
        recorder: Recorder, input: Any, kernel_size: Any, stride: Any = (), padding: Any = 0,
        dilation: Any = 1, ceil_mode: bool = False,
    ) -> Any:  # fmt: skip
        value = _maximum(recorder, axes, input, kernel_size, stride, padding, dilation, ceil_mode)
        return [value, _indices(recorder)]

    @reads(f"adaptive_avg_pool{axes}d")
    def read_adaptive(recorder: Recorder, input: Any, output_size: Any) -> Any:
        position = _image(recorder, input, axes)
        return recorder.add(AdaptiveAveragePool(recorder.label(), _each(output_size, axes)), position)

    @reads(f"adaptive_max_pool{axes}d")
    def read_adaptive_maximum(recorder: Recorder, input: Any, output_size: Any) -> Any:
        return [_adaptive_maximum(recorder, axes, input, output_size), _indices(recorder)]


_register_pools(1)
_register_pools(2)


# --- over whole axes ---


def _complete(recorder: Recorder, signal: Signal, dim: Any) -> Signal:
    """The tensor, over a value of which the dimensions that are reduced are whole axes of positions."""
    dims = [dim] if isinstance(dim, int) else dim or range(len(signal.layout))
    factors = [f for d in dims for f in lay.of_positions(signal.layout[d])]
    sizes = {axis: math.prod(f.size for f in factors if f.axis == axis) for axis in {f.axis for f in factors}}
    whole = all(size == signal.shape.space[axis - 1] for axis, size in sizes.items())
    return signal if whole else positions.with_own_axes(recorder, signal)


def _over_positions(recorder: Recorder, signal: Signal, dim: Any) -> tuple[list[int], set[int]]:
    """The dimensions that are reduced, counted from 0, and the axes of positions that these are."""
    ndim = len(signal.layout)
    if not isinstance(dim, (int, list, tuple)) or dim == []:
        dim = range(ndim)
    dims = [d % ndim for d in ([dim] if isinstance(dim, int) else dim)]
    axes = {factor.axis for d in dims for factor in signal.layout[d]}
    inside = sum(f.size > 1 for d in dims for f in signal.layout[d])
    complete = all(
        math.prod(f.size for d in dims for f in signal.layout[d] if f.axis == axis)
        == signal.shape.space[axis - 1]
        for axis in axes - {EXPANDED, BATCH, CHANNELS}
    )
    if axes & {EXPANDED, BATCH, CHANNELS} or (not inside and min(dims) < 2) or not complete:
        first = min((d for d in dims if {f.axis for f in signal.layout[d]} & {BATCH, CHANNELS}), default=0)
        what = "everything" if len(dims) == ndim else f"dimension {first}"
        raise recorder.refuse(
            f"is read over positions only, not over {what} of a tensor of shape {recorder.text(signal)}"
        )
    return dims, {axis - 1 for axis in axes}


def _reduced(recorder: Recorder, signal: Signal, dims: list[int], layer: Layer | None, keep: bool) -> Signal:
    """What a layer makes of the tensor's value, without the dimensions, or with them of extent 1."""
    made = signal
    if layer is not None:
        made = recorder.add(layer, recorder.position(signal))
    left = [() if d in dims else dimension for d, dimension in enumerate(signal.layout)]
    layout = tuple(dimension for d, dimension in enumerate(left) if keep or d not in dims)
    return recorder.relaid(made, layout)


def _mean_over(recorder: Recorder, signal: Signal, dim: Any, keepdim: bool) -> Signal:
    signal = _complete(recorder, signal, dim)
    dims, axes = _over_positions(recorder, signal, dim)
    space = signal.shape.space
    output = tuple(1 if axis in axes else n for axis, n in enumerate(space))
    layer = AdaptiveAveragePool(recorder.label(), output) if output != space else None
    return _reduced(recorder, signal, dims, layer, keepdim)


def _listed(dim: Any) -> list[int]:
    return [dim] if isinstance(dim, int) else list(dim or ())


def _over_groups(recorder: Recorder, signal: Signal, dim: Any, keepdim: bool) -> Signal | None:
    """The sum over one dimension of a few groups of channels; None where it is none."""
    dims = [d % len(signal.layout) for d in _listed(dim)]
    if len(dims) != 1 or not of_groups(signal, dims[0]) or signal.sizes[dims[0]] > _MOST_GROUPS:
        return None
    total = summed(recorder, recorder.settled(signal), dims[0])
    left = tuple(own for d, own in enumerate(total.layout) if keepdim or d != dims[0])
    return recorder.relaid(total, left)


def _over_channels(recorder: Recorder, signal: Signal, dim: Any, keepdim: bool) -> Signal | None:
    """The mean over all channels at each position; None where the dimension is none of these."""
    dims = [d % len(signal.layout) for d in _listed(dim)]
    channels = lay.whole(CHANNELS, signal.shape.channels)
    if len(dims) != 1 or not channels or not signal.shape.space or signal.layout[dims[0]] != channels:
        return None
    made = recorder.add(ChannelMean(recorder.label()), recorder.position(signal))
    left = [() if d == dims[0] else own for d, own in enumerate(signal.layout)]
    return recorder.relaid(made, tuple(own for d, own in enumerate(left) if keepdim or d != dims[0]))


@reads("mean")
def _mean(recorder: Recorder, input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    signal = recorder.check(input)
    squares = mean_square(signal, dim, keepdim)
    if squares is not None:
        return squares
    at = vector_dimension(signal, dim, keepdim)
    if at is not None:
        return Mean(signal, at, lambda: _mean_of(recorder, signal, at, True))
    return _mean_of(recorder, signal, dim, keepdim)


def _mean_of(recorder: Recorder, signal: Signal, dim: Any, keepdim: bool) -> Signal:
    groups = _over_groups(recorder, signal, dim, keepdim)
    if groups is not None:
        return recorder.scaled(groups, 1.0 / signal.sizes[_listed(dim)[0]])
    whole = _over_channels(recorder, signal, dim, keepdim)
    return _mean_over(recorder, signal, dim, keepdim) if whole is None else whole


@reads("var", "std", "var_mean")
def _var(
    recorder: Recorder, input: Any, dim: Any = None, unbiased: bool = True, correction: Any = None,
    keepdim: bool = False,
) -> Any:  # fmt: skip
    signal = recorder.check(input)
    at = vector_dimension(signal, dim, keepdim)
    if at is None:
        raise recorder.refuse("is read over the channels, or a head's, with keepdim=True")
    count = signal.sizes[at]
    less = float(unbiased) if correction is None else float(correction)
    power = 0.5 if recorder.operation == "std" else 1.0
    found = Spread(signal, at, True, factor=count / (count - less), power=power)
    if recorder.operation != "var_mean":
        return found
    return [found, Mean(signal, at, lambda: _mean_of(recorder, signal, at, True))]


@reads("sum")
def _sum(recorder: Recorder, input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    signal = recorder.check(input)
    groups = _over_groups(recorder, signal, dim, keepdim)
    if groups is not None:
        return groups
    whole = _over_channels(recorder, signal, dim, keepdim)
    if whole is not None:
        return recorder.scaled(whole, float(signal.shape.channels))
    signal = _complete(recorder, signal, dim)
    dims, _ = _over_positions(recorder, signal, dim)
    count = math.prod(lay.extent_of(signal.layout[d]) for d in dims)
    return recorder.scaled(_mean_over(recorder, signal, dim, keepdim), float(count))


@reads("amax")
def _amax(recorder: Recorder, input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    signal = recorder.check(input)
    signal = _complete(recorder, signal, dim)
    dims, axes = _over_positions(recorder, signal, dim)
    space = signal.shape.space
    kernel = tuple(n if axis in axes else 1 for axis, n in enumerate(space))
    layer = MaxPool(recorder.label(), kernel, kernel, (0,) * len(space), (1,) * len(space))
    return _reduced(recorder, signal, dims, layer, keepdim)


# --- to other extents ---


def _resized(
    recorder: Recorder, input: Any, axes: int, mode: Any, output: Any, factors: Any, **rest: Any
) -> Any:
    position = _image(recorder, input, axes)
    space = recorder.shapes[position].space
    if output is None:
        output = [int(n * factor) for n, factor in zip(space, factors, strict=True)]
    if tuple(output) == space:
        return recorder.check(input)
    return recorder.add(Resize(recorder.label(), tuple(output), mode, **rest), position)


@reads("upsample_nearest1d", "upsample_nearest2d")
def _nearest(recorder: Recorder, input: Any, output_size: Any = None, scale_factors: Any = None) -> Any:
    axes = len(recorder.check(input).sizes) - 2
    return _resized(recorder, input, axes, "nearest", output_size, scale_factors)


@reads("upsample_bicubic2d")
def _cubic(
    recorder: Recorder, input: Any, output_size: Any = None, align_corners: bool = False,
    scale_factors: Any = None,
) -> Any:  # fmt: skip
    mode = "cubic aligned" if align_corners else "cubic"
    return _resized(recorder, input, 2, mode, output_size, scale_factors)


@reads("upsample_linear1d", "upsample_bilinear2d")
def _linear(
    recorder: Recorder, input: Any, output_size: Any = None, align_corners: bool = False,
    scale_factors: Any = None,
) -> Any:  # fmt: skip
    axes = len(recorder.check(input).sizes) - 2
    mode = "aligned" if align_corners else "linear"
    return _resized(recorder, input, axes, mode, output_size, scale_factors)
