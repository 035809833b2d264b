"""Flattening and other changes of a tensor's shape, and steps over positions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ...layers import Flatten, Shape, Subsample  # fmt: skip
from .functions import reads
from .recorder import Recorder, describe, whole_numbers
from .signals import Signal


def dimensions(recorder: Recorder, signal: Signal, dim: Any) -> list[int]:
    """Torch's dimensions, counted from 0 for the batch."""
    ndim = len(signal.sizes) + 1
    dims = [dim] if isinstance(dim, int) else list(dim)
    if not all(isinstance(d, int) and -ndim <= d < ndim for d in dims):
        raise recorder.refuse(
            f"dimension {dim!r} does not exist in a tensor of shape {recorder.text(signal)}"
        )
    return [d % ndim for d in dims]


def hide(recorder: Recorder, signal: Signal, axes: Iterable[int]) -> Signal:
    """Without axes of extent 1; a tensor that has none left is a vector."""
    hidden = signal.hidden | frozenset(axes)
    if hidden == signal.hidden:
        return signal
    if signal.shape.space and len(hidden) == len(signal.shape.space):
        made = recorder.add(Flatten(recorder.label()), recorder.pooled(signal))
        return recorder.view(signal, made)
    made = Signal(recorder.pooled(signal), signal.shape, signal.root, signal.expression, signal.slope, hidden)
    return recorder.view(signal, made)


@reads("flatten")
def _flatten(recorder: Recorder, input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    signal = recorder.check(input)
    ndim = len(signal.sizes) + 1
    start, end = dimensions(recorder, signal, (start_dim, end_dim))
    if start == end and start > 0:
        return signal
    if start == 0:
        raise recorder.refuse(f"start_dim = {start_dim} mixes the inputs of a batch: use 1")
    if (start, end) == (2, ndim - 1):
        return merged(recorder, signal)
    if (start, end) != (1, ndim - 1):
        raise recorder.refuse(
            f"dimensions {start} to {end} of a tensor of shape {recorder.text(signal)} cannot be made one; "
            "all but the batch can, and all positions"
        )
    return flattened(recorder, signal)


def merged(recorder: Recorder, signal: Signal) -> Signal:
    """All axes of positions as one; means and maxima over it can be read, and flattening."""
    made = Signal(
        recorder.pooled(signal),
        signal.shape,
        signal.root,
        signal.expression,
        signal.slope,
        signal.hidden,
        True,
    )
    return recorder.view(signal, made)


def flattened(recorder: Recorder, signal: Signal) -> Signal:
    """All entries as one vector."""
    if len(signal.sizes) == 1:
        return signal
    if signal.padding is not None:
        recorder.position(signal)
    return recorder.view(signal, recorder.add(Flatten(recorder.label()), recorder.pooled(signal)))


@reads("view", "reshape")
def _view(recorder: Recorder, input: Any, *shape: Any, **kwargs: Any) -> Any:
    signal = recorder.check(input)
    wanted = kwargs.get("shape", kwargs.get("size", shape))
    if len(wanted) == 1 and isinstance(wanted[0], Iterable):
        wanted = tuple(wanted[0])
    return reshaped(recorder, signal, wanted)


@reads("view_as", "reshape_as")
def _view_as(recorder: Recorder, input: Any, other: Any) -> Any:
    return reshaped(recorder, recorder.check(input), (recorder.batch, *recorder.check(other).sizes))


def reshaped(recorder: Recorder, signal: Signal, wanted: Iterable[Any]) -> Signal:
    """A tensor in another shape, if it is a vector, or the input as an image.

    Raises:
        ModelError: any other shape.
    """
    sizes = whole_numbers(recorder, wanted)
    total = recorder.batch * math.prod(signal.sizes)
    if sizes.count(-1) > 1:
        raise recorder.refuse(f"takes one size of -1 at most, got {tuple(sizes)}")
    rest = math.prod(n for n in sizes if n != -1)
    sizes = [total // rest if n == -1 and rest else n for n in sizes]
    shown = f"({', '.join(map(str, sizes))})"
    if math.prod(sizes) != total:
        raise recorder.refuse(f"shape {shown} does not fit a tensor of shape {recorder.text(signal)}")
    if sizes[0] != recorder.batch:
        raise recorder.refuse(
            f"shape {shown} mixes the inputs of a batch, of {recorder.text(signal)} with B = {recorder.batch}"
        )
    if tuple(sizes[1:]) == signal.sizes:
        return signal
    if len(sizes) == 2:
        return flattened(recorder, signal)
    if signal.position == 0 and len(sizes) > 1:
        image = recorder.reshape_input(Shape(sizes[1], tuple(sizes[2:])))
        if image is not None:
            return recorder.view(signal, image)
    if len(sizes) == 3 and sizes[1] == signal.shape.channels and signal.axes and len(signal.sizes) > 2:
        return merged(recorder, signal)
    raise recorder.refuse(
        f"a tensor of shape {recorder.text(signal)} cannot be given the shape (B, "
        f"{', '.join(map(str, sizes[1:]))}); only the input can be, and all can be vectors"
    )


@reads("squeeze")
def _squeeze(recorder: Recorder, input: Any, dim: Any = None) -> Any:
    signal = recorder.check(input)
    if dim is None:
        dims = [d for d, n in enumerate(signal.sizes, 1) if n == 1]
        if 1 in dims:
            raise recorder.refuse(f"takes away the channels of a tensor of shape {recorder.text(signal)}")
    else:
        dims = [d for d in dimensions(recorder, signal, dim) if d > 0 and signal.sizes[d - 1] == 1]
    if signal.merged and dims:
        return hide(recorder, signal, signal.axes)
    if not dims:
        return signal
    if min(dims) < 2:
        raise recorder.refuse(f"takes away the channels of a tensor of shape {recorder.text(signal)}")
    if signal.padding is not None:
        recorder.position(signal)
    return hide(recorder, signal, [signal.axes[d - 2] for d in dims])


@reads("unsqueeze")
def _unsqueeze(recorder: Recorder, input: Any, dim: int) -> Any:
    signal = recorder.check(input)
    ndim = len(signal.sizes) + 2
    at = dim % ndim
    sizes = [recorder.batch, *signal.sizes]
    sizes.insert(at, 1)
    return reshaped(recorder, signal, sizes)


@reads("getitem")
def _getitem(recorder: Recorder, input: Any, index: Any) -> Any:
    signal = recorder.check(input)
    index = list(index) if isinstance(index, tuple) else [index]
    ndim = len(signal.sizes) + 1
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index[at : at + 1] = [slice(None)] * (ndim - len(index) + 1)
    index += [slice(None)] * (ndim - len(index))
    refused = recorder.refuse(
        f"of {describe(tuple(index))} from a tensor of shape {recorder.text(signal)} cannot be read; steps "
        "over positions can (x[:, :, ::2, ::2])"
    )
    if len(index) != ndim or signal.merged:
        raise refused
    steps, gone = [1] * len(signal.shape.space), []
    for d, (part, n) in enumerate(zip(index, (recorder.batch, *signal.sizes), strict=True)):
        if isinstance(part, int) and d > 1 and n == 1 and part in (0, -1):
            gone.append(signal.axes[d - 2])
        elif isinstance(part, slice) and all(
            isinstance(v, (int, type(None))) for v in (part.start, part.stop)
        ):
            start, stop, step = part.indices(n)
            if start != 0 or (stop < n) or (d < 2 and step != 1) or step < 1:
                raise refused
            if d > 1:
                steps[signal.axes[d - 2]] = step
        else:
            raise refused
    result = signal
    if any(step > 1 for step in steps):
        position = recorder.position(signal)
        result = recorder.view(signal, recorder.add(Subsample(recorder.label(), tuple(steps)), position))
    return hide(recorder, result, gone) if gone else result
