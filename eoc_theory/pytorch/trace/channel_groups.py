"""Groups of channels cut out of a tensor that has them in a dimension of their own."""

from __future__ import annotations

from dataclasses import replace

from ...layers import ChannelShuffle, ChannelSlice
from . import layout as lay
from .layout import CHANNELS
from .recorder import Recorder
from .values import Signal


def channel_groups(recorder: Recorder, signal: Signal, dim: int, chosen: range) -> Signal:
    """Those channels whose place along one of several dimensions that they lie on is chosen."""
    ((_, stride, size),) = signal.layout[dim]
    position, outer = recorder.position(signal), signal.shape.channels // (size * stride)
    if outer > 1:
        # That dimension's steps become the longest ones.
        shuffle = ChannelShuffle(recorder.label(), (outer, size, stride), (1, 0, 2))
        position = recorder.position(recorder.add(shuffle, position))
    block = outer * stride
    if chosen.step != 1:
        raise recorder.refuse("of every so-manieth group of channels cannot be read; neighbouring ones can")
    layer = ChannelSlice(recorder.label(), chosen.start * block, chosen.stop * block)
    made = recorder.add(layer, position)
    # What lay outside of that dimension lies inside now.
    layout = [
        tuple(f._replace(stride=f.stride // size) if _is_outside(f, size * stride) else f for f in dimension)
        for dimension in signal.layout
    ]
    layout[dim] = lay.joined([lay.Factor(CHANNELS, block, len(chosen))])
    return replace(made, layout=tuple(map(lay.joined, layout)))


def _is_outside(factor: lay.Factor, stride: int) -> bool:
    return factor.axis == CHANNELS and factor.stride >= stride
