"""Concatenation and padding."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ...layers import Concatenate, JoinPositions, Pad, PadChannels
from . import layout as lay
from . import positions
from .channel_groups import joined_groups, of_groups, padded_groups
from .constants import number
from .layout import CHANNELS
from .readers import reads
from .recorder import Recorder, describe
from .tokens import with_class_tokens
from .values import Constant, Signal


@reads("cat", "concat", "concatenate")
def _cat(recorder: Recorder, tensors: Any, dim: int = 0) -> Any:
    signals = [recorder.settled(t) for t in tensors if isinstance(t, Signal)]
    first = signals[0]
    dim %= len(first.sizes)
    tokens = with_class_tokens(recorder, tensors, dim)
    if tokens is not None:
        return tokens
    if lay.of_positions(first.layout[dim]) or any(lay.of_positions(t.layout[dim]) for t in signals):
        return _joined_positions(recorder, tensors, dim)
    if len(signals) == len(tensors) and of_groups(first, dim):
        groups = joined_groups(recorder, signals, dim)
        if groups is not None:
            return groups
    if first.layout[dim] != lay.whole(CHANNELS, first.shape.channels):
        raise recorder.refuse(f"is read along the channels, got dimension {dim}")
    signals = [first, *(_like(recorder, t, first, dim) for t in signals[1:])]
    others = [t.layout[:dim] + t.layout[dim + 1 :] for t in signals]
    if any(other != others[0] for other in others):
        raise recorder.refuse(
            f"takes tensors that lie alike, got shapes {' and '.join(map(recorder.text, signals[:3]))}"
        )
    before = after = 0
    seen: list[int] = []
    left = iter(signals)
    for tensor in tensors:
        if isinstance(tensor, Signal):
            if after:
                raise recorder.refuse("zeros between tensors cannot be read; before and after them they can")
            seen.append(recorder.position(next(left)))
        elif isinstance(tensor, Constant) and tensor.is_zero:
            if seen:
                after += tensor.sizes[dim]
            else:
                before += tensor.sizes[dim]
        else:
            raise recorder.refuse(f"takes tensors computed from the input, got {describe(tensor)}")
    made = recorder.add(Concatenate(recorder.label()), *seen) if len(seen) > 1 else first
    if before or after:
        made = recorder.add(PadChannels(recorder.label(), before, after), recorder.position(made))
    own = lay.whole(CHANNELS, made.shape.channels)
    return replace(made, layout=(*first.layout[:dim], own, *first.layout[dim + 1 :]))


def _like(recorder: Recorder, signal: Signal, first: Signal, dim: int) -> Signal:
    """A tensor with its positions as in another, whatever channels there are in dimension `dim`."""
    rest = [t.layout[:dim] + t.layout[dim + 1 :] for t in (signal, first)]
    if rest[0] == rest[1] and signal.shape.space == first.shape.space:
        return signal
    others = [replace(t, layout=own) for t, own in zip((signal, first), rest, strict=True)]
    moved = positions.like(recorder, *others)
    if moved is None or signal.sizes[:dim] + signal.sizes[dim + 1 :] != others[1].sizes:
        return signal
    layout = (*moved.layout[:dim], signal.layout[dim], *moved.layout[dim:])
    return replace(moved, layout=layout)


def _joined_positions(recorder: Recorder, tensors: Any, dim: int) -> Signal:
    """Tensors one after the other along a dimension of positions."""
    signals = [recorder.settled(t) for t in tensors if isinstance(t, Signal)]
    if len(signals) != len(tensors):
        raise recorder.refuse("joins positions of tensors computed from the input")
    parts = [_first_axis(recorder, t, dim) for t in signals]
    nodes = [recorder.position(part) for part, _ in parts]
    rests = [rest for _, rest in parts]
    if any(rest != rests[0] for rest in rests):
        raise recorder.refuse(
            f"takes tensors that lie alike, got shapes {' and '.join(map(recorder.text, signals[:3]))}"
        )
    made = recorder.add(JoinPositions(recorder.label()), *nodes)
    layout, inner = rests[0]
    rows = made.shape.positions // math.prod(inner)
    if inner:
        made = positions.gathered(recorder, made, np.arange(made.shape.positions), (rows, *inner))
    own = lay.whole(1, rows)
    return replace(made, layout=(*layout[:dim], own, *layout[dim:]))


def _first_axis(recorder: Recorder, signal: Signal, dim: int) -> tuple[Signal, Any]:
    """A tensor whose value has the positions of dimension `dim` first, and how its other dimensions lie
    over the others, with the extents of these."""
    rest = tuple(own for d, own in enumerate(signal.layout) if d != dim)
    inner = [own for own in rest if lay.of_positions(own)]
    extents = tuple(map(lay.extent_of, inner))
    if any(own != lay.of_positions(own) for own in (*inner, signal.layout[dim])):
        raise recorder.refuse(f"is read along positions alone, got a tensor of shape {recorder.text(signal)}")
    chosen = lay.places((signal.layout[dim], *inner), signal.shape.space)
    made = positions.gathered(recorder, signal, chosen, (signal.sizes[dim], *extents))
    layout, axis = [], 1
    for own in rest:
        axis += own in inner and bool(own)
        layout.append(lay.whole(axis, lay.extent_of(own)) if lay.of_positions(own) else own)
    return made, (tuple(layout), extents)


@reads("stack")
def _stack(recorder: Recorder, tensors: Any, dim: int = 0) -> Any:
    """Groups of channels side by side, in a dimension of their own."""
    signals = [recorder.settled(t) for t in tensors if isinstance(t, Signal)]
    if len(signals) != len(tensors):
        raise recorder.refuse("takes tensors computed from the input")
    first, count = signals[0], len(signals)
    dim %= len(first.sizes) + 1
    at = next(
        (d for d, own in enumerate(first.layout) if own == lay.whole(CHANNELS, first.shape.channels)), None
    )
    if at is None or any(t.sizes != first.sizes for t in signals):
        raise recorder.refuse(f"takes tensors that are alike, got shape {recorder.text(first)}")
    made = _cat(recorder, signals, at)
    groups = lay.Factor(CHANNELS, first.shape.channels, count)
    own = lay.whole(CHANNELS, first.shape.channels)
    layout = [own if d == at else old for d, old in enumerate(made.layout)]
    return replace(made, layout=(*layout[:dim], (groups,), *layout[dim:]))


@reads("pad", "constant_pad_nd")
def _pad(recorder: Recorder, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    signal = recorder.settled(input)
    pad = list(pad)
    value = 0.0 if value is None else number(value)
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    pairs += [(0, 0)] * (len(signal.sizes) - len(pairs))
    pairs.reverse()  # torch names the last dimension first
    if not any(map(any, pairs)):
        return signal
    inside = [d for d, pair in enumerate(pairs) if any(pair)]
    if mode == "constant" and len(inside) == 1 and isinstance(value, float):
        (dim,) = inside
        own = padded_groups(recorder, signal, dim, pairs[dim], value)
        own = _padded_tokens(recorder, signal, dim, pairs[dim], value) if own is None else own
        if own is not None:
            return own
    if mode == "constant" and value not in (0.0, -math.inf):
        raise recorder.refuse(f"pads with zeros only, got value {value}")
    if len(signal.layout) > 2 and signal.layout[-1] == lay.whole(CHANNELS, signal.shape.channels) and (
        signal.layout[1] != signal.layout[-1]
    ):  # fmt: skip
        return _pad_channels_last(recorder, signal, pairs, mode, value)
    position = recorder.image(signal)
    if any(pairs[0]):
        raise recorder.refuse(f"pad = {tuple(pad)} adds inputs to the batch")
    if position != recorder.node_of(signal):
        shape = recorder.shapes[position]
        signal = Signal(position, shape, recorder.standard(shape), position)
    result = signal
    if any(pairs[1]):
        if mode != "constant" or value or min(pairs[1]) < 0:
            raise recorder.refuse(f"channels are padded with zeros only, got mode {mode!r} and {pairs[1]}")
        layer = PadChannels(recorder.label(), *pairs[1])
        result = recorder.add(layer, recorder.position(signal))
    if any(map(any, pairs[2:])):
        result = _padded_positions(recorder, result, "lowest" if value else mode, tuple(pairs[2:]))
    return result


def _padded_tokens(
    recorder: Recorder, signal: Signal, dim: int, pair: tuple[int, int], value: float
) -> Signal | None:
    """Zeros before and after positions of a tensor with heads; None where it has none."""
    heads = [d for d, own in enumerate(signal.layout) if any(f.axis == CHANNELS for f in own)]
    if len(heads) < 2 or value or not signal.layout[dim] or not lay.of_positions(signal.layout[dim]):
        return None
    signal = positions.with_own_axes(recorder, signal)
    axis = lay.axis_of(signal.layout[dim])
    if axis is None:
        return None
    pads = [pair if at == axis else (0, 0) for at in range(1, len(signal.shape.space) + 1)]
    made = recorder.add(Pad(recorder.label(), tuple(pads)), recorder.position(signal))
    own = lay.whole(axis, made.shape.space[axis - 1])
    return replace(made, layout=tuple(own if d == dim else old for d, old in enumerate(signal.layout)))


def _pad_channels_last(
    recorder: Recorder, signal: Signal, pairs: list[tuple[int, int]], mode: str, value: float
) -> Signal:
    """As of the same tensor with channels second."""
    last = len(pairs) - 1
    flat = [n for pair in reversed([pairs[0], pairs[last], *pairs[1:last]]) for n in pair]
    second = recorder.relaid(signal, (signal.layout[0], signal.layout[last], *signal.layout[1:last]))
    made = recorder.check(_pad(recorder, second, flat, mode, value))
    recorder.position(made)
    return recorder.relaid(made, (made.layout[0], *made.layout[2:], made.layout[1]))


def _padded_positions(
    recorder: Recorder, signal: Signal, mode: str, pairs: tuple[tuple[int, int], ...]
) -> Signal:
    """Positions around the image, kept until a convolution takes them, or else put there; or cut off."""
    modes: dict[str, Any] = {
        "constant": "zeros", "circular": "circular", "reflect": "reflect", "lowest": "lowest"
    }  # fmt: skip
    if mode not in modes:
        raise recorder.refuse(f"padding_mode must be 'zeros', 'circular' or 'reflect', got {mode!r}")
    kind = modes[mode]
    for extent, pair in zip(signal.shape.space, pairs, strict=True):
        if kind in ("circular", "reflect") and max(pair) > extent - (kind == "reflect"):
            raise recorder.refuse(f"pads {max(pair)} positions, {kind!r}, to an image of {extent}")
    position = recorder.position(signal)
    made = Signal(position, signal.shape, signal.layout, position, laid=recorder.here)
    made.padding = kind, pairs
    if min(map(min, pairs)) < 0:
        recorder.position(made)
    return made
