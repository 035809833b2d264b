"""Means, sums and maxima over whole axes of positions."""

from __future__ import annotations

import math
from typing import Any

from ...layers import AdaptiveAveragePool, MaxPool  # fmt: skip
from .functions import reads
from .recorder import Recorder
from .reshaping import dimensions, hide
from .signals import Signal


def _over_positions(recorder: Recorder, signal: Signal, dim: Any) -> list[int]:
    """The axes of positions that torch's dimensions name."""
    dims = None if dim is None else dimensions(recorder, signal, dim)
    if not dims or min(dims) < 2:
        raise recorder.refuse(
            f"is read over positions only, not over {'everything' if not dims else f'dimension {min(dims)}'} "
            f"of a tensor of shape {recorder.text(signal)}"
        )
    return signal.axes if signal.merged else [signal.axes[d - 2] for d in dims]


def _reduce(recorder: Recorder, signal: Signal, axes: list[int], keepdim: bool) -> Signal:
    position = recorder.pooled(signal)
    space = recorder.shapes[position].space
    if any(space[axis] > 1 for axis in axes):
        output = tuple(1 if axis in axes else n for axis, n in enumerate(space))
        made = recorder.add(AdaptiveAveragePool(recorder.label(), output), position)
    else:
        made = recorder.view(signal, Signal(position, recorder.shapes[position], position))
    made.hidden = signal.hidden
    # Of one axis made of several, one is left.
    return hide(recorder, made, (axes[1:] if signal.merged else []) if keepdim else axes)


@reads("mean")
def _mean(
    recorder: Recorder, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    signal = recorder.check(input)
    return _reduce(recorder, signal, _over_positions(recorder, signal, dim), keepdim)


@reads("sum")
def _sum(recorder: Recorder, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    signal = recorder.check(input)
    axes = _over_positions(recorder, signal, dim)
    count = math.prod(signal.shape.space[axis] for axis in axes)
    return recorder.scaled(_reduce(recorder, signal, axes, keepdim), float(count))


@reads("amax")
def _amax(recorder: Recorder, input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    signal = recorder.check(input)
    axes = _over_positions(recorder, signal, dim)
    position = recorder.pooled(signal)
    space = recorder.shapes[position].space
    kernel = tuple(n if axis in axes else 1 for axis, n in enumerate(space))
    layer = MaxPool(recorder.label(), kernel, kernel, (0,) * len(space), (1,) * len(space))
    made = recorder.add(layer, position)
    made.hidden = signal.hidden
    return hide(recorder, made, (axes[1:] if signal.merged else []) if keepdim else axes)
