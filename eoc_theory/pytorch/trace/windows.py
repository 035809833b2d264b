"""Pooling over windows of positions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...layers import AdaptiveAveragePool, AveragePool, MaxPool  # fmt: skip
from .functions import reads
from .recorder import Recorder, describe, whole_numbers
from .signals import Signal


def per_axis(recorder: Recorder, name: str, value: Any, axes: int) -> tuple[int, ...]:
    """A setting along each axis from one for all of them or one for each."""
    values = tuple(whole_numbers(recorder, value if isinstance(value, Iterable) else (value,) * axes))
    if len(values) == 1:
        values *= axes
    if len(values) != axes:
        raise recorder.refuse(f"{name} must be {axes} whole numbers, got {describe(value)}")
    return values


def _axes(recorder: Recorder, signal: Any, wanted: int | None) -> int:
    axes = len(recorder.check(signal).shape.space)
    if axes == 0 or (wanted is not None and axes != wanted):
        what = "images or sequences" if wanted is None else f"values with {wanted} axes of positions"
        raise recorder.refuse(f"takes {what}, got a tensor of shape {recorder.text(signal)}")
    return axes


def average_pool(
    recorder: Recorder, input: Any, axes: int, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: Any,
) -> Signal:  # fmt: skip
    """Means over windows."""
    _axes(recorder, input, axes)
    if divisor_override is not None:
        raise recorder.refuse(f"divisor_override = {divisor_override} cannot be read")
    kernel = per_axis(recorder, "kernel_size", kernel_size, axes)
    stride = kernel if stride is None or stride == [] else per_axis(recorder, "stride", stride, axes)
    padding = per_axis(recorder, "padding", padding, axes)
    layer = AveragePool(recorder.label(), kernel, stride, padding, bool(ceil_mode), bool(count_include_pad))
    return recorder.add(layer, recorder.position(input))


def max_pool(
    recorder: Recorder, input: Any, axes: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Signal:  # fmt: skip
    """Maxima over windows."""
    _axes(recorder, input, axes)
    if return_indices:
        raise recorder.refuse("return_indices = True cannot be read")
    kernel = per_axis(recorder, "kernel_size", kernel_size, axes)
    stride = kernel if stride is None or stride == [] else per_axis(recorder, "stride", stride, axes)
    padding = per_axis(recorder, "padding", padding, axes)
    dilation = per_axis(recorder, "dilation", dilation, axes)
    layer = MaxPool(recorder.label(), kernel, stride, padding, dilation, bool(ceil_mode))
    return recorder.add(layer, recorder.position(input))


def adaptive_average_pool(recorder: Recorder, input: Any, axes: int, output_size: Any) -> Signal:
    """Means over windows that give an output of a certain extent."""
    _axes(recorder, input, axes)
    output = _output_size(recorder, input, axes, output_size)
    return recorder.add(AdaptiveAveragePool(recorder.label(), output), recorder.position(input))


def adaptive_max_pool(
    recorder: Recorder, input: Any, axes: int, output_size: Any, return_indices: bool = False
) -> Signal:
    """Maxima over windows that give an output of a certain extent, which must divide the input's."""
    _axes(recorder, input, axes)
    output = _output_size(recorder, input, axes, output_size)
    space = recorder.check(input).shape.space
    if return_indices or any(n % m for n, m in zip(space, output, strict=True)):
        raise recorder.refuse(f"cannot be read for outputs {output} that do not divide the input {space}")
    kernel = tuple(n // m for n, m in zip(space, output, strict=True))
    layer = MaxPool(recorder.label(), kernel, kernel, (0,) * axes, (1,) * axes)
    return recorder.add(layer, recorder.position(input))


def _output_size(recorder: Recorder, input: Any, axes: int, output_size: Any) -> tuple[int, ...]:
    sizes = tuple(output_size) if isinstance(output_size, Iterable) else (output_size,) * axes
    if len(sizes) == 1:
        sizes *= axes
    space = recorder.check(input).shape.space
    if len(sizes) != axes:
        raise recorder.refuse(f"output_size must be {axes} whole numbers, got {describe(output_size)}")
    return tuple(n if size is None else int(size) for n, size in zip(space, sizes, strict=True))


def _register_pools(axes: int) -> None:
    @reads(f"avg_pool{axes}d")
    def read_average(
        recorder: Recorder, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None,
    ) -> Any:  # fmt: skip
        return average_pool(recorder, input, axes, kernel_size, stride, padding, ceil_mode,
                            count_include_pad, divisor_override)  # fmt: skip

    @reads(f"max_pool{axes}d", f"max_pool{axes}d_with_indices")
    def read_max(
        recorder: Recorder, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
        dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        return max_pool(recorder, input, axes, kernel_size, stride, padding, dilation, ceil_mode,
                        return_indices)  # fmt: skip

    @reads(f"adaptive_avg_pool{axes}d")
    def read_adaptive(recorder: Recorder, input: Any, output_size: Any) -> Any:
        return adaptive_average_pool(recorder, input, axes, output_size)

    @reads(f"adaptive_max_pool{axes}d")
    def read_adaptive_max(
        recorder: Recorder, input: Any, output_size: Any, return_indices: bool = False
    ) -> Any:
        return adaptive_max_pool(recorder, input, axes, output_size, return_indices)


_register_pools(1)
_register_pools(2)
