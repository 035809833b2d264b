"""Products of two tensors that both depend on the input, head by head, where they are no attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...layers import ChannelShuffle, HeadProduct
from . import layout as lay
from .layout import BATCH, CHANNELS, Dimension, is_position
from .positions import gathered
from .recorder import Recorder
from .values import Signal


class Matrices(NamedTuple):
    """A tensor (…, rows, columns) of which rows and columns are channels of a head or positions of a window.

    Attributes:
        node: of the graph's value, heads, windows, rows and columns in this order.
        lead: how the dimensions before the last two lie over heads (channels) and windows (positions).
        sizes: rows and columns; `kind` is what they are, as `HeadProduct` names it.
    """

    node: int
    lead: tuple[Dimension, ...]
    sizes: tuple[int, int]
    kind: str

    def count(self, channels: bool) -> int:
        """Heads, or windows."""
        return math.prod(f.size for d in self.lead for f in d if f.axis >= 0 and (f.axis == 0) == channels)

    @property
    def kinds(self) -> list[tuple[int, int]]:
        """What the dimensions before the last two hold, in order: inputs, heads, windows."""
        merged: list[tuple[int, int]] = []
        for factor in (f for d in self.lead for f in d):
            kind = min(factor.axis, 1)
            if merged and merged[-1][0] == kind:
                merged[-1] = kind, merged[-1][1] * factor.size
            else:
                merged.append((kind, factor.size))
        return merged


def matrices(recorder: Recorder, signal: Any) -> Matrices:
    """A tensor as matrices.

    Raises:
        ModelError: its dimensions are no such ones.
    """
    signal = recorder.check(signal)
    *lead, rows, columns = signal.layout
    kinds = _kinds(recorder, signal)
    before = [factor for dimension in lead for factor in dimension]
    if lay.joined([f for f in before if f.axis == BATCH]) != lay.whole(BATCH, recorder.batch):
        raise _refused(recorder, signal)
    channels = [f for f in before if f.axis == CHANNELS]
    windows = tuple(filter(is_position, before))
    ordered = [*channels, *(f for d, k in zip((rows, columns), kinds, strict=True) if k == "c" for f in d)]
    places = [windows, *(d for d, k in zip((rows, columns), kinds, strict=True) if k == "p")]
    shape = signal.shape
    if math.prod(f.size for f in ordered) != shape.channels or (
        math.prod(map(lay.extent_of, places)) != shape.positions
    ):  # fmt: skip
        raise _refused(recorder, signal)
    node = recorder.position(signal)
    if shape.positions > 1:
        table = lay.places(places, shape.space)
        node = recorder.position(gathered(recorder, signal, table.reshape(-1), (table.size,)))
    if lay.joined(ordered) != lay.whole(CHANNELS, shape.channels):
        by_stride = sorted(ordered, key=lambda factor: -factor.stride)
        order = tuple(by_stride.index(factor) for factor in ordered)
        shuffle = ChannelShuffle(recorder.label(), tuple(f.size for f in by_stride), order)
        node = recorder.position(recorder.add(shuffle, node))
    sizes = lay.extent_of(rows), lay.extent_of(columns)
    return Matrices(node, tuple(lead), sizes, "".join(kinds))


def _kinds(recorder: Recorder, signal: Signal) -> list[str]:
    """Whether the last two dimensions hold channels ("c") or positions; one column is a channel, and one row
    a position if it can be."""
    found = []
    for dimension, other in zip(signal.layout[:-3:-1], ("c", "p"), strict=True):
        axes = {factor.axis for factor in dimension}
        if axes and axes != {CHANNELS} and min(axes) <= CHANNELS:
            raise _refused(recorder, signal)
        found.append(("c" if axes == {CHANNELS} else "p") if axes else other)
    if found == ["p", "p"] and not signal.layout[-2]:
        found[1] = "c"
    return found[::-1]


def _refused(recorder: Recorder, signal: Signal) -> Exception:
    return recorder.refuse(
        "products of two tensors are read over channels of heads and positions of windows, got a tensor of "
        f"shape {recorder.text(signal)}"
    )


def multiplied(recorder: Recorder, left: Any, right: Any) -> Signal:
    """The product of two tensors' last two dimensions, both computed from the input."""
    return of_matrices(recorder, matrices(recorder, left), matrices(recorder, right))


def of_matrices(recorder: Recorder, a: Matrices, b: Matrices) -> Signal:
    """The product as a node's value, in the layout of the tensor."""
    if a.kinds != b.kinds or a.sizes[1] != b.sizes[0]:
        raise recorder.refuse("products of two tensors are read where they have the same heads and windows")
    heads, windows = a.count(True), a.count(False)
    layer = HeadProduct(recorder.label(), a.kind, b.kind, a.sizes[1], heads, windows)
    made = recorder.add(layer, a.node, b.node)
    sizes, kind = (a.sizes[0], b.sizes[1]), a.kind[0] + b.kind[1]
    return replace(made, layout=laid_out(a.lead, sizes, kind, windows, made))


def laid_out(
    lead: Sequence[Dimension], sizes: tuple[int, int], kind: str, windows: int, made: Signal
) -> tuple[Dimension, ...]:
    """Of matrices whose value has heads, windows, rows and columns in this order."""
    axis = int(windows > 1)
    found, stride = lay.laid_anew(lead, made.shape.channels, windows)
    for own, size in zip(kind, sizes, strict=True):
        if own == "c":
            stride //= size
            found.append(lay.joined([lay.Factor(CHANNELS, stride, size)]))
        else:
            axis += 1
            found.append(lay.whole(axis, size))
    return tuple(found)
