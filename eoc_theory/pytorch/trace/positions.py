"""Positions of a tensor in the order that an operation needs: windows, shifts, and what two tensors share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...layers import ChannelShuffle, Concatenate, Gather
from . import layout as lay
from .layout import BATCH, CHANNELS, Dimension
from .nodes import Nodes
from .values import Signal, Storage

Array = np.ndarray


def gathered(recorder: Nodes, signal: Signal, chosen: Array, space: tuple[int, ...]) -> Signal:
    """The graph's value with other positions, in the layout of a graph's value."""
    node, count = recorder.position(signal), signal.shape.positions
    if signal.shape.space == space and np.array_equal(chosen.reshape(-1), np.arange(count)):
        return Signal(node, signal.shape, recorder.standard(signal.shape), node)
    key = node, space, chosen.tobytes()
    made = recorder.gathered.get(key)
    if made is None:
        layer = Gather(recorder.label(), space, tuple(map(int, chosen.reshape(-1))), count)
        made = recorder.gathered[key] = recorder.add(layer, node)
    return replace(made, storage=Storage())


def with_own_axes(recorder: Nodes, signal: Signal) -> Signal:
    """The tensor over a value in which each of its dimensions' positions are one whole axis.

    Raises:
        ModelError: entries are repeated.
    """
    signal = recorder.check(signal)
    if all(_is_whole(signal, dimension) for dimension in signal.layout):
        return signal
    runs = [dimension for dimension in signal.layout if lay.of_positions(dimension)]
    space = tuple(lay.extent_of(lay.of_positions(dimension)) for dimension in runs)
    if math.prod(space) != signal.shape.positions:
        raise recorder.refuse(f"a tensor of shape {recorder.text(signal)} repeats entries")
    made = gathered(recorder, signal, lay.places(runs, signal.shape.space), space)
    layout, axis = [], 0
    for dimension in signal.layout:
        axis += bool(lay.of_positions(dimension))
        layout.append(_replaced(recorder, signal, dimension, axis))
    return replace(made, layout=tuple(layout))


def _is_whole(signal: Signal, dimension: Dimension) -> bool:
    """Whether a dimension holds no positions, or those of one axis and nothing else."""
    inner, axis = lay.of_positions(dimension), lay.axis_of(dimension)
    return not inner or (axis is not None and dimension == lay.whole(axis, signal.shape.space[axis - 1]))


def _replaced(recorder: Nodes, signal: Signal, dimension: Dimension, axis: int) -> Dimension:
    """A dimension whose positions, standing together, are a whole axis now."""
    kinds = [lay.is_position(factor) for factor in dimension]
    if True not in kinds:
        return dimension
    first, last = kinds.index(True), len(kinds) - kinds[::-1].index(True)
    if not all(kinds[first:last]):
        raise recorder.refuse(f"a tensor of shape {recorder.text(signal)} has positions between channels")
    extent = lay.extent_of(dimension[first:last])
    return (*dimension[:first], *lay.whole(axis, extent), *dimension[last:])


def as_image(recorder: Nodes, signal: Signal) -> Signal | None:
    """A tensor (batch, channels, *positions) over a value with these axes; None where it is none."""
    batch, channels = lay.whole(BATCH, recorder.batch), lay.whole(CHANNELS, signal.shape.channels)
    if len(signal.layout) < 3 or signal.layout[:2] != (batch, channels):
        return None
    rest = signal.layout[2:]
    if any(not lay.is_position(factor) for dimension in rest for factor in dimension):
        return None
    space = tuple(map(lay.extent_of, rest))
    if math.prod(space) != signal.shape.positions:
        return None
    return gathered(recorder, signal, lay.places(rest, signal.shape.space), space)


def like(recorder: Nodes, signal: Signal, other: Signal) -> Signal | None:
    """`signal` over a value whose positions lie as in that of `other`, where the two tensors are alike.

    Dimensions of extent 1 are repeated over the other's positions. None where they do not fit.
    """
    if len(signal.layout) != len(other.layout):
        return None
    layout: list[Dimension] = []
    for own, wanted in zip(signal.layout, other.layout, strict=True):
        if own == () and wanted == lay.of_positions(wanted):
            layout.append(wanted)
            continue
        if lay.pattern(own) != lay.pattern(wanted):
            return None
        layout.append(wanted)
    if not (_has_all(signal) and _has_all(other)):
        return None
    whole = lay.places(other.layout, other.shape.space)
    chosen = np.zeros(other.shape.positions, dtype=np.int64)
    chosen[whole.reshape(-1)] = np.broadcast_to(
        lay.places(signal.layout, signal.shape.space), whole.shape
    ).reshape(-1)
    made = gathered(recorder, signal, chosen, other.shape.space)
    return replace(made, layout=tuple(layout))


def have_channels_alike(first: Signal, second: Signal) -> bool:
    """Whether two tensors have all their channels in the same dimension."""
    wholes = [lay.whole(CHANNELS, signal.shape.channels) for signal in (first, second)]
    found = [
        signal.layout.index(whole) if whole and whole in signal.layout else None
        for signal, whole in zip((first, second), wholes, strict=True)
    ]
    return found[0] is not None and found[0] == found[1] and first.shape.channels == second.shape.channels


def _has_all(signal: Signal) -> bool:
    """Whether a tensor shows every position of its value."""
    return math.prod(lay.extent_of(lay.of_positions(d)) for d in signal.layout) == signal.shape.positions


def deepened(recorder: Nodes, signal: Signal) -> Signal:
    """The tensor with positions that stand in the dimension of its channels, before or after these, made
    channels: patches of pixels as vectors."""
    channels = lay.whole(CHANNELS, signal.shape.channels)
    for at, dimension in enumerate(signal.layout):
        inner = lay.of_positions(dimension)
        if not inner or not channels or dimension not in ((*inner, *channels), (*channels, *inner)):
            continue
        left = tuple(d for d in signal.layout if d is not dimension and lay.of_positions(d))
        space = tuple(map(lay.extent_of, left))
        table = lay.places((inner, *left), signal.shape.space)
        pieces = table.reshape(-1, math.prod(space))
        parts = [recorder.position(gathered(recorder, signal, part, space)) for part in pieces]
        made = recorder.add(Concatenate(recorder.label()), *parts)
        if dimension[0] == channels[0]:
            extents = len(parts), signal.shape.channels
            shuffle = ChannelShuffle(recorder.label(), extents, (1, 0))
            made = recorder.add(shuffle, recorder.position(made))
        layout, axis = [], 0
        for d, own in enumerate(signal.layout):
            axis += d != at and bool(lay.of_positions(own))
            new = lay.whole(CHANNELS, made.shape.channels) if d == at else own
            layout.append(new if d == at else _replaced(recorder, signal, own, axis))
        return replace(made, layout=tuple(layout))
    return signal


def moved(recorder: Nodes, signal: Signal, dim: int, chosen: Sequence[int]) -> Signal:
    """The tensor with entries of one of its dimensions over positions in another order, or some of them.

    Raises:
        ModelError: the dimension is none over positions.
    """
    signal = with_own_axes(recorder, signal)
    dimension = signal.layout[dim]
    axis = lay.axis_of(dimension)
    if axis is None or axis <= CHANNELS:
        raise recorder.refuse(
            f"dimension {dim} of a tensor of shape {recorder.text(signal)} is not one of positions"
        )
    space = signal.shape.space
    grid = np.arange(signal.shape.positions).reshape(space).take(chosen, axis - 1)
    made = gathered(recorder, signal, grid, tuple(grid.shape))
    new = lay.whole(axis, len(chosen))
    return replace(made, layout=tuple(new if d == dim else own for d, own in enumerate(signal.layout)))
