"""Groups of channels cut out of a tensor that has them in a dimension of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...layers import ChannelShuffle, ChannelSlice, Concatenate, FixedValue, Matrix
from . import layout as lay
from .layout import CHANNELS
from .recorder import Recorder
from .values import Signal

#: Copies of a channel that stand for one which others share.
_MOST_COPIES = 256


def channel_groups(recorder: Recorder, signal: Signal, dim: int, chosen: range) -> Signal:
    """Those channels whose place along one of several dimensions that they lie on is chosen."""
    if chosen.step != 1:
        raise recorder.refuse("of every so-manieth group of channels cannot be read; neighbouring ones can")
    outer = outermost(recorder, signal, dim)
    block = outer.shape.channels // signal.sizes[dim]
    layer = ChannelSlice(recorder.label(), chosen.start * block, chosen.stop * block)
    made = recorder.add(layer, recorder.position(outer))
    return replace(made, layout=_with(outer.layout, dim, block, len(chosen)))


def outermost(recorder: Recorder, signal: Signal, dim: int) -> Signal:
    """A tensor over a value in which the steps along a dimension of groups of channels are the longest."""
    ((_, stride, size),) = signal.layout[dim]
    outer = signal.shape.channels // (size * stride)
    if outer == 1:
        return signal
    shuffle = ChannelShuffle(recorder.label(), (outer, size, stride), (1, 0, 2))
    made = recorder.add(shuffle, recorder.position(signal))
    # What lay outside of that dimension lies inside now.
    layout = [
        tuple(f._replace(stride=f.stride // size) if _is_outside(f, size * stride) else f for f in dimension)
        for dimension in signal.layout
    ]
    return replace(made, layout=_with(layout, dim, outer * stride, size))


def _with(layout: Sequence[lay.Dimension], dim: int, block: int, count: int) -> lay.Layout:
    """The layout with so many blocks of channels along a dimension."""
    own = lay.joined([lay.Factor(CHANNELS, block, count)])
    return tuple(own if d == dim else lay.joined(old) for d, old in enumerate(layout))


def joined_groups(recorder: Recorder, signals: Sequence[Signal], dim: int) -> Signal | None:
    """Tensors one after the other along a dimension of groups of channels; None where it is none."""
    if not all(of_groups(signal, dim) for signal in signals):
        return None
    outer = [outermost(recorder, signal, dim) for signal in signals]
    rests = [own.layout[:dim] + own.layout[dim + 1 :] for own in outer]
    if any(rest != rests[0] for rest in rests):
        return None
    made = recorder.add(Concatenate(recorder.label()), *map(recorder.position, outer))
    count = sum(signal.sizes[dim] for signal in signals)
    return replace(made, layout=_with(outer[0].layout, dim, made.shape.channels // count, count))


def padded_groups(
    recorder: Recorder, signal: Signal, dim: int, pair: tuple[int, int], value: float
) -> Signal | None:
    """A number before and after the groups of channels along a dimension; None where it is none such."""
    if not of_groups(signal, dim) or min(pair) < 0:
        return None
    outer = outermost(recorder, signal, dim)
    block = outer.shape.channels // signal.sizes[dim]
    parts = [outer]
    for at, count in zip((0, len(parts)), pair, strict=True):
        if count:
            table = np.full((count * block, outer.shape.positions), value)
            made = recorder.add(FixedValue(recorder.label(), Matrix.of(table), outer.shape.space), 0)
            own = replace(made, layout=_with(outer.layout, dim, block, count))
            parts.insert(0 if at == 0 else len(parts), own)
    made = recorder.add(Concatenate(recorder.label()), *map(recorder.position, parts))
    return replace(made, layout=_with(outer.layout, dim, block, signal.sizes[dim] + sum(pair)))


def laid_like(recorder: Recorder, signal: Signal, other: Signal) -> Signal | None:
    """A tensor with its channels in the order of another's, and the same for all where it has a dimension of
    extent 1 in place of groups of channels; None where the two do not fit."""
    if len(signal.layout) != len(other.layout) or signal.shape.channels == 1:
        return None
    pairs = [
        (d, mine, theirs) for d, (mine, theirs) in enumerate(zip(signal.layout, other.layout, strict=True))
        if any(f.axis == CHANNELS for f in (*mine, *theirs))
    ]  # fmt: skip
    if any(len(theirs) != 1 or (mine and (len(mine) != 1 or mine[0][::2] != theirs[0][::2]))
           for _, mine, theirs in pairs):  # fmt: skip
        return None
    missing = [d for d, mine, _ in pairs if not mine]
    copies = math.prod(other.sizes[d] for d in missing)
    channels = signal.shape.channels
    if channels * copies != other.shape.channels or copies > _MOST_COPIES:
        return None
    made = recorder.position(signal)
    if copies > 1:
        made = recorder.position(recorder.add(Concatenate(recorder.label()), *[made] * copies))
    # Copies are the longest steps, in the order of their dimensions.
    strides, stride = {}, channels * copies
    for d in missing:
        stride //= other.sizes[d]
        strides[d] = stride
    now = sorted(pairs, key=lambda p: -(strides[p[0]] if p[0] in strides else p[1][0].stride))
    wanted = sorted(pairs, key=lambda p: -p[2][0].stride)
    order = tuple(now.index(one) for one in wanted)
    if order != tuple(range(len(order))):
        shuffle = ChannelShuffle(recorder.label(), tuple(p[2][0].size for p in now), order)
        made = recorder.position(recorder.add(shuffle, made))
    layout = [theirs if d in {p[0] for p in pairs} else own
              for d, (own, theirs) in enumerate(zip(signal.layout, other.layout, strict=True))]  # fmt: skip
    return Signal(made, recorder.shapes[made], tuple(layout), made)


def of_groups(signal: Signal, dim: int) -> bool:
    """Whether a dimension counts groups of channels, and these are not all channels one by one."""
    dimension = signal.layout[dim]
    return len(dimension) == 1 and dimension[0].axis == CHANNELS and (
        dimension[0].size < signal.shape.channels
    )  # fmt: skip


def summed(recorder: Recorder, signal: Signal, dim: int) -> Signal:
    """The sum over groups of channels along a dimension, which has the extent 1 then."""
    count = signal.sizes[dim]
    total = channel_groups(recorder, signal, dim, range(1))
    for index in range(1, count):
        other = channel_groups(recorder, signal, dim, range(index, index + 1))
        total = recorder.sum([(total, 1.0), (other, 1.0)])
    return total


def _is_outside(factor: lay.Factor, stride: int) -> bool:
    return factor.axis == CHANNELS and factor.stride >= stride
