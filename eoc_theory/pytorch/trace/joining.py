"""Concatenation and padding."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ...layers import Concatenate, PadChannels
from . import layout as lay
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
    if first.layout[dim] != lay.whole(CHANNELS, first.shape.channels):
        raise recorder.refuse(f"is read along the channels, got dimension {dim}")
    others = [t.layout[:dim] + t.layout[dim + 1 :] for t in signals]
    if any(other != others[0] for other in others):
        raise recorder.refuse(
            f"takes tensors that lie alike, got shapes {' and '.join(map(recorder.text, signals[:3]))}"
        )
    before = after = 0
    seen: list[int] = []
    for tensor in tensors:
        if isinstance(tensor, Signal):
            if after:
                raise recorder.refuse("zeros between tensors cannot be read; before and after them they can")
            seen.append(recorder.position(recorder.settled(tensor)))
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


@reads("pad", "constant_pad_nd")
def _pad(recorder: Recorder, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    signal = recorder.settled(input)
    pad = list(pad)
    value = 0.0 if value is None else number(value)
    if mode == "constant" and value not in (0.0, -math.inf):
        raise recorder.refuse(f"pads with zeros only, got value {value}")
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    pairs += [(0, 0)] * (len(signal.sizes) - len(pairs))
    pairs.reverse()  # torch names the last dimension first
    if not any(map(any, pairs)):
        return signal
    recorder.image(signal)
    if any(pairs[0]):
        raise recorder.refuse(f"pad = {tuple(pad)} adds inputs to the batch")
    result = signal
    if any(pairs[1]):
        if mode != "constant" or value or min(pairs[1]) < 0:
            raise recorder.refuse(f"channels are padded with zeros only, got mode {mode!r} and {pairs[1]}")
        layer = PadChannels(recorder.label(), *pairs[1])
        result = recorder.add(layer, recorder.position(signal))
    if any(map(any, pairs[2:])):
        result = _padded_positions(recorder, result, "lowest" if value else mode, tuple(pairs[2:]))
    return result


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
