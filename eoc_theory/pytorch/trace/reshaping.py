"""Other layouts of the same entries, and cuts of channels and positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...layers import ChannelSlice, Flatten, JoinPositions, Pad, Pick, Scatter, Subsample
from ...networks.graph import Node
from . import layout as lay
from . import positions
from .channel_groups import channel_groups, of_groups
from .layout import CHANNELS, EXPANDED
from .readers import reads
from .recorder import Recorder, describe
from .rotary import Turned, is_of_heads
from .values import Constant, Signal


@reads("view", "reshape", "_unsafe_view", "view_as", "reshape_as")
def _view(recorder: Recorder, input: Any, size: Any = None, shape: Any = None, other: Any = None) -> Any:
    wanted = size if size is not None else shape if shape is not None else other.sizes
    return reshaped(recorder, recorder.check(input), wanted)


def reshaped(recorder: Recorder, signal: Signal, sizes: Sequence[int]) -> Signal:
    """The tensor with other sizes.

    Raises:
        ModelError: they cut an axis into parts that do not divide it.
    """
    sizes, total = list(sizes), math.prod(signal.sizes)
    if -1 in sizes:
        at = sizes.index(-1)
        sizes[at] = total // math.prod(sizes[:at] + sizes[at + 1 :])
    if tuple(sizes) == signal.sizes:
        return signal
    if signal.padding is not None:
        recorder.position(signal)
    back = _unflattened(recorder, signal, sizes)
    if back is not None:
        return back
    layout = lay.reshaped(signal.layout, sizes)
    if layout is None:
        shown = ", ".join(map(str, sizes[1:]))
        raise recorder.refuse(
            f"a tensor of shape {recorder.text(signal)} cannot be given the shape (B, {shown})"
        )
    return recorder.relaid(signal, layout)


def _unflattened(recorder: Recorder, signal: Signal, sizes: list[int]) -> Signal | None:
    """What was flattened, in the shape that it had before."""
    if signal.position is None or not isinstance(recorder.nodes[signal.position].layer, Flatten):
        return None
    (source,) = recorder.nodes[signal.position].inputs
    shape = recorder.shapes[source]
    if sizes != [recorder.batch, shape.channels, *shape.space]:
        return None
    return Signal(source, shape, recorder.standard(shape), source)


@reads("flatten")
def _flatten(recorder: Recorder, input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    signal = recorder.check(input)
    sizes, ndim = signal.sizes, len(signal.sizes)
    start, end = start_dim % ndim, end_dim % ndim
    joined = math.prod(sizes[start : end + 1])
    return reshaped(recorder, signal, (*sizes[:start], joined, *sizes[end + 1 :]))


@reads("unflatten")
def _unflatten(recorder: Recorder, input: Any, dim: int, sizes: Any) -> Any:
    signal = recorder.check(input)
    own, at, parts = signal.sizes, dim % len(signal.sizes), list(sizes)
    if -1 in parts:
        parts[parts.index(-1)] = own[at] // -math.prod(parts)
    return reshaped(recorder, signal, (*own[:at], *parts, *own[at + 1 :]))


@reads("squeeze")
def _squeeze(recorder: Recorder, input: Any, dim: Any = None) -> Any:
    signal = recorder.check(input)
    ndim = len(signal.sizes)
    dims = range(ndim) if dim is None else [d % ndim for d in ([dim] if isinstance(dim, int) else dim)]
    gone = {d for d in dims if signal.sizes[d] == 1}
    return _unpadded_layout(recorder, signal, [d for d in range(ndim) if d not in gone])


@reads("unsqueeze")
def _unsqueeze(recorder: Recorder, input: Any, dim: int) -> Any:
    signal = recorder.check(input)
    at = dim % (len(signal.sizes) + 1)
    return reshaped(recorder, signal, (*signal.sizes[:at], 1, *signal.sizes[at:]))


@reads("permute")
def _permute(recorder: Recorder, input: Any, dims: Any) -> Any:
    signal = recorder.check(input)
    return _unpadded_layout(recorder, signal, [d % len(signal.sizes) for d in dims])


@reads("transpose")
def _transpose(recorder: Recorder, input: Any, dim0: int, dim1: int) -> Any:
    signal = recorder.check(input)
    order = list(range(len(signal.sizes)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _unpadded_layout(recorder, signal, order)


@reads("pixel_unshuffle")
def _pixel_unshuffle(recorder: Recorder, input: Any, downscale_factor: int) -> Any:
    signal, r = recorder.check(input), downscale_factor
    batch, channels, rows, columns = signal.sizes
    cut = reshaped(recorder, signal, (batch, channels, rows // r, r, columns // r, r))
    moved = _unpadded_layout(recorder, cut, [0, 1, 3, 5, 2, 4])
    return reshaped(recorder, moved, (batch, channels * r * r, rows // r, columns // r))


@reads("swapaxes", "swapdims")
def _swapaxes(
    recorder: Recorder, input: Any, axis0: Any = None, axis1: Any = None, dim0: Any = None, dim1: Any = None
) -> Any:
    return _transpose(recorder, input, dim0 if axis0 is None else axis0, dim1 if axis1 is None else axis1)


@reads("movedim")
def _movedim(recorder: Recorder, input: Any, source: Any, destination: Any) -> Any:
    signal = recorder.check(input)
    ndim = len(signal.sizes)
    sources, targets = (
        [d % ndim for d in (value if isinstance(value, (list, tuple)) else [value])]
        for value in (source, destination)
    )
    order = [d for d in range(ndim) if d not in sources]
    for target, own in sorted(zip(targets, sources, strict=True)):
        order.insert(target, own)
    return _unpadded_layout(recorder, signal, order)


def _unpadded_layout(recorder: Recorder, signal: Signal, order: list[int]) -> Signal:
    """The dimensions `order` of the tensor, in this order."""
    if order == list(range(len(signal.sizes))):
        return signal
    if signal.padding is not None:
        recorder.position(signal)
    return recorder.relaid(signal, tuple(signal.layout[d] for d in order))


@reads("expand_as")
def _expand_as(recorder: Recorder, input: Any, other: Any) -> Any:
    return _expand(recorder, input, other.sizes)


@reads("expand")
def _expand(recorder: Recorder, input: Any, size: Any) -> Any:
    signal = recorder.upright(recorder.check(input))
    if signal.is_fixed and len(size) == len(signal.sizes) + 1:
        signal = replace(signal, layout=((), *signal.layout))
    if len(size) == len(signal.sizes) and size[0] == recorder.batch:
        signal = recorder.batched(signal)
    wanted = tuple(own if n == -1 else n for n, own in zip(size, signal.sizes, strict=False))
    fits = all(own in (n, 1) for n, own in zip(wanted, signal.sizes, strict=False))
    if len(size) != len(signal.sizes) or not fits:
        raise recorder.refuse(
            f"a tensor of shape {recorder.text(signal)} cannot be repeated to {tuple(size)}"
        )
    if wanted == signal.sizes:
        return signal
    if signal.padding is not None:
        recorder.position(signal)
    # Heads of keys are repeated over all tokens; positions of an image, or a single one, as positions.
    whole = lay.whole(lay.BATCH, recorder.batch), lay.whole(CHANNELS, signal.shape.channels)
    if signal.shape.positions < 2 or (signal.layout[:2] == whole and wanted[:2] == signal.sizes[:2]):
        return _repeated(recorder, signal, wanted)
    layout = tuple(
        own if lay.extent_of(own) == n else lay.whole(EXPANDED, n)
        for n, own in zip(wanted, signal.layout, strict=True)
    )
    return recorder.relaid(signal, layout)


def _repeated(recorder: Recorder, signal: Signal, sizes: tuple[int, ...]) -> Signal:
    """A tensor of which some positions, or the only one, stand at all of a larger one's."""
    axes = [
        d for d, (n, own) in enumerate(zip(sizes, signal.layout, strict=True))
        if n != lay.extent_of(own) or lay.of_positions(own)
    ]  # fmt: skip
    space = tuple(sizes[d] for d in axes)
    own = lay.places([signal.layout[d] for d in axes], signal.shape.space)
    made = positions.gathered(recorder, signal, np.broadcast_to(own, space), space)
    layout = list(signal.layout)
    for axis, d in enumerate(axes, start=1):
        layout[d] = lay.whole(axis, sizes[d])
    return replace(made, layout=tuple(layout))


@reads("repeat")
def _repeat(recorder: Recorder, input: Any, repeats: Any) -> Any:
    """What is the same for all inputs, for each of them."""
    signal, times = recorder.check(input), list(repeats)
    if not signal.is_fixed or times != [recorder.batch] + [1] * (len(signal.sizes) - 1):
        raise recorder.refuse("repeats what is the same for all inputs only, once for each of them")
    return recorder.batched(signal)


@reads("repeat_interleave")
def _repeat_interleave(
    recorder: Recorder, input: Any, repeats: Any, dim: Any = None, output_size: Any = None
) -> Any:
    signal = recorder.check(input)
    if not isinstance(repeats, int) or dim is None:
        raise recorder.refuse("repeats by one number along one dimension only")
    if repeats == 1:
        return signal
    at = dim % len(signal.sizes)
    own = (*signal.layout[at], *lay.whole(EXPANDED, repeats))
    return recorder.relaid(signal, (*signal.layout[:at], own, *signal.layout[at + 1 :]))


# --- patches ---


@reads("im2col")
def _im2col(
    recorder: Recorder, input: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> Any:
    """Patches: (B, C·taps, windows)."""
    position, pads = recorder.image(input), _both(padding)
    if any(pads):
        around = tuple((n, n) for n in pads)
        position = recorder.position(recorder.add(Pad(recorder.label(), around), position))
    shape = recorder.shapes[position]
    table = _patches(shape.space, _both(kernel_size), _both(dilation), (0, 0), _both(stride))
    image = Signal(position, shape, recorder.standard(shape), position)
    made = positions.gathered(recorder, image, table.reshape(-1), table.shape)
    taps, windows = (lay.whole(axis, n) for axis, n in enumerate(table.shape, start=1))
    channels = lay.whole(CHANNELS, shape.channels)
    return replace(made, layout=(lay.whole(lay.BATCH, recorder.batch), (*channels, *taps), windows))


@reads("col2im")
def _col2im(
    recorder: Recorder, input: Any, output_size: Any, kernel_size: Any, dilation: Any, padding: Any,
    stride: Any,
) -> Any:  # fmt: skip
    """Patches added up where they overlap: (B, C·taps, windows) to (B, C, *output_size)."""
    signal, space = recorder.check(input), _both(output_size)
    table = _patches(space, _both(kernel_size), _both(dilation), _both(padding), _both(stride))
    batch, rows, windows = signal.sizes
    cut = reshaped(recorder, signal, (batch, rows // len(table), len(table), windows))
    if of_groups(cut, 2):
        parts = [channel_groups(recorder, cut, 2, range(tap, tap + 1)) for tap in range(len(table))]
    else:
        parts = [cut]
    first, taps, seen = parts[0].layout[1:]
    if taps != lay.of_positions(taps) or seen != lay.of_positions(seen) or (
        lay.extent_of(first) != parts[0].shape.channels
    ):  # fmt: skip
        raise recorder.refuse(f"takes channels, then taps, and windows, got {recorder.text(signal)}")
    order = lay.places((taps, seen), parts[0].shape.space).reshape(-1)
    nodes = [recorder.position(positions.gathered(recorder, p, order, (order.size,))) for p in parts]
    whole = nodes[0] if len(nodes) == 1 else recorder.position(
        recorder.add(JoinPositions(recorder.label()), *nodes)
    )  # fmt: skip
    layer = Scatter(recorder.label(), space, tuple(map(int, table.reshape(-1))))
    made = recorder.add(layer, whole)
    return recorder.settled(replace(made, layout=(cut.layout[0], first, *made.layout[2:])))


def _both(value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return (values[0], values[-1])


def _patches(
    space: tuple[int, ...], kernel: tuple[int, int], dilation: tuple[int, int], padding: tuple[int, int],
    stride: tuple[int, int],
) -> np.ndarray:  # fmt: skip
    """Positions of an image that each tap of each window sees, (taps, windows); −1 outside."""
    axes = []
    for n, k, d, p, s in zip(space, kernel, dilation, padding, stride, strict=True):
        starts = np.arange(-p, n + p - d * (k - 1), s)
        axes.append(d * np.arange(k)[:, None] + starts)
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    inside = (rows >= 0) & (rows < space[0]) & (columns >= 0) & (columns < space[1])
    found = np.where(inside, rows * space[1] + columns, -1)
    return found.reshape(math.prod(kernel), -1)


# --- cuts ---


@reads("slice")
def _slice(
    recorder: Recorder, input: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    signal = recorder.check(input)
    return cut(recorder, signal, dim, slice(start, end, step))


@reads("narrow")
def _narrow(recorder: Recorder, input: Any, dim: int, start: int, length: int) -> Any:
    return cut(recorder, recorder.check(input), dim, slice(start, start + length, 1))


def cut(recorder: Recorder, signal: Signal, dim: int, part: slice) -> Any:
    """Part of a dimension: some of the channels, or every so-manieth position from the first."""
    dim %= len(signal.sizes)
    extent = signal.sizes[dim]
    start, stop, step = part.indices(extent)
    if (start, step) == (0, 1) and stop >= extent:
        return signal
    if dim == len(signal.sizes) - 1 and is_of_heads(signal):
        return Turned.of(signal).part(slice(start, stop, step))
    signal = recorder.settled(signal)
    if lay.of_positions(signal.layout[dim]):
        signal = positions.with_own_axes(recorder, signal)
    dimension = signal.layout[dim]
    if len(dimension) == 1 and dimension[0].axis == CHANNELS and stop > start and (
        dimension != lay.whole(CHANNELS, signal.shape.channels)
    ):  # fmt: skip
        return channel_groups(recorder, signal, dim, range(start, stop, step))
    axis = lay.axis_of(dimension)
    if axis == CHANNELS and dimension == lay.whole(CHANNELS, signal.shape.channels) and stop > start:
        layer = ChannelSlice(recorder.label(), start, stop, step)
        made = recorder.add(layer, recorder.position(signal))
        own = lay.whole(CHANNELS, made.shape.channels)
    elif axis is not None and axis > CHANNELS and stop > start and dimension == lay.whole(
        axis, signal.shape.space[axis - 1]
    ):  # fmt: skip
        made = signal
        if start > 0 or stop < extent:
            pads = [(0, 0)] * len(signal.shape.space)
            pads[axis - 1] = (-start, stop - extent)
            made = recorder.add(Pad(recorder.label(), tuple(pads)), recorder.position(signal))
        if step > 1:
            made = _every(recorder, made, axis - 1, step)
        own = lay.whole(axis, made.shape.space[axis - 1])
    else:
        raise recorder.refuse(
            f"of {describe((start, stop, step))} from dimension {dim} of a tensor of shape "
            f"{recorder.text(signal)} cannot be read; channels and positions can"
        )
    return replace(made, layout=tuple(own if d == dim else old for d, old in enumerate(signal.layout)))


def _every(recorder: Recorder, signal: Signal, axis: int, step: int) -> Signal:
    """Every `step`-th position along an axis; steps along several axes are one node."""
    position = recorder.position(signal)
    before = recorder.nodes[position]
    steps = [1] * len(signal.shape.space)
    last = position == len(recorder.nodes) - 1 and recorder.once
    if last and isinstance(before.layer, Subsample) and before.layer.stride[axis] == 1:
        steps = list(before.layer.stride)
        steps[axis] = step
        layer = replace(before.layer, stride=tuple(steps))
        recorder.nodes[position] = Node(layer, before.inputs)
        recorder.shapes[position] = layer.output_shape(recorder.shapes[before.inputs[0]])
        shape = recorder.shapes[position]
        return Signal(position, shape, recorder.standard(shape), position)
    steps[axis] = step
    return recorder.add(Subsample(recorder.label(), tuple(steps)), position)


@reads("select")
def _select(recorder: Recorder, input: Any, dim: int, index: int) -> Any:
    signal = recorder.check(input)
    dim %= len(signal.sizes)
    if signal.sizes[dim] != 1:
        found = _entry(recorder, signal, dim, index % signal.sizes[dim])
        if found is not None:
            return found
        raise recorder.refuse(
            f"of entry {index} from dimension {dim} of a tensor of shape {recorder.text(signal)} cannot be "
            "read"
        )
    return _unpadded_layout(recorder, signal, [d for d in range(len(signal.sizes)) if d != dim])


def _entry(recorder: Recorder, signal: Signal, dim: int, index: int) -> Signal | None:
    """One entry of a dimension: one of several groups of channels, or one of all positions."""
    dimension, shape = signal.layout[dim], signal.shape
    left = [d for d in range(len(signal.sizes)) if d != dim]
    if len(dimension) == 1 and dimension[0].axis == CHANNELS and dimension != lay.whole(
        CHANNELS, shape.channels
    ):  # fmt: skip
        return _unpadded_layout(
            recorder, channel_groups(recorder, signal, dim, range(index, index + 1)), left
        )
    every = lay.joined([f for axis, n in enumerate(shape.space, 1) for f in lay.whole(axis, n)])
    if not lay.is_position(dimension[0]) or signal.padding is not None:
        return None
    if dimension != every:
        return _unpadded_layout(recorder, positions.moved(recorder, signal, dim, [index]), left)
    made = recorder.add(Pick(recorder.label(), index), recorder.position(signal))
    return replace(made, layout=tuple(signal.layout[d] for d in left))


@reads("index")
def _index(recorder: Recorder, input: Any, indices: Any) -> Any:
    """``x[torch.arange(B), last]``: one position of every input, the same; or ``x[:, order]``."""
    signal = recorder.check(input)
    chosen = [d for d, own in enumerate(indices) if own is not None]
    if len(chosen) == 1 and isinstance(indices[chosen[0]], Constant):
        return _index_select(recorder, signal, chosen[0], indices[chosen[0]])
    if len(indices) == 2 and all(isinstance(i, Constant) for i in indices) and len(signal.sizes) > 2:
        rows, at = (i.tensor.reshape(-1) for i in indices)
        every = rows.tolist() == list(range(recorder.batch)) and signal.layout[0] == lay.whole(
            lay.BATCH, recorder.batch
        )
        if every and bool((at == at[0]).all()):
            found = _entry(recorder, signal, 1, int(at[0]) % signal.sizes[1])
            if found is not None:
                return found
    raise recorder.refuse("by tensors can be read only where it takes the same position of every input")


@reads("index_select")
def _index_select(recorder: Recorder, input: Any, dim: int, index: Any) -> Any:
    signal = recorder.check(input)
    if not isinstance(index, Constant) or index.tensor.dim() != 1 or index.tensor.dtype is torch.bool:
        raise recorder.refuse("takes a row of numbers of fixed positions")
    dim %= len(signal.sizes)
    chosen = [int(at) % signal.sizes[dim] for at in index.tensor]
    run = range(chosen[0], chosen[-1] + 1) if chosen else range(0)
    if of_groups(signal, dim) and chosen == list(run):
        return channel_groups(recorder, signal, dim, run)
    return positions.moved(recorder, signal, dim, chosen)


@reads("roll")
def _roll(recorder: Recorder, input: Any, shifts: Any, dims: Any = ()) -> Any:
    signal = recorder.check(input)
    if not dims:
        raise recorder.refuse("shifts along given dimensions only")
    for shift, dim in zip(_listed(shifts), _listed(dims), strict=True):
        n = signal.sizes[dim]
        signal = positions.moved(
            recorder, signal, dim % len(signal.sizes), [(at - shift) % n for at in range(n)]
        )
    return signal


@reads("flip")
def _flip(recorder: Recorder, input: Any, dims: Any) -> Any:
    signal = recorder.check(input)
    for dim in _listed(dims):
        dim %= len(signal.sizes)
        signal = positions.moved(recorder, signal, dim, range(signal.sizes[dim])[::-1])
    return signal


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@reads("chunk")
def _chunk(recorder: Recorder, input: Any, chunks: int, dim: int = 0) -> Any:
    signal = recorder.check(input)
    return _split(recorder, signal, -(-signal.sizes[dim] // chunks), dim)


@reads("split", "split_with_sizes")
def _split(
    recorder: Recorder, input: Any, split_size: Any = None, dim: int = 0, split_sizes: Any = None
) -> Any:
    signal = recorder.check(input)
    extent, sizes = signal.sizes[dim], split_sizes if split_sizes is not None else split_size
    if isinstance(sizes, int):
        sizes = [min(sizes, extent - start) for start in range(0, extent, sizes)]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [cut(recorder, signal, dim, slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


@reads("unbind")
def _unbind(recorder: Recorder, input: Any, dim: int = 0) -> Any:
    signal = recorder.check(input)
    dim %= len(signal.sizes)
    dimension = signal.layout[dim]
    if len(dimension) == 1 and dimension[0].axis == CHANNELS and signal.sizes[dim] < signal.shape.channels:
        return [_select(recorder, signal, dim, index) for index in range(signal.sizes[dim])]
    raise recorder.refuse(
        f"a loop over dimension {dim} of a tensor of shape {recorder.text(signal)} cannot be read"
    )
