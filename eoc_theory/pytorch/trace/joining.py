"""Concatenation and padding."""

from __future__ import annotations

from typing import Any

import torch

from ...layers import Concatenate, PadChannels  # fmt: skip
from .functions import reads
from .recorder import Recorder, describe, number
from .reshaping import dimensions
from .signals import Signal, Zeros


def _is_zero_tensor(value: Any) -> bool:
    return isinstance(value, Zeros) or (
        isinstance(value, torch.Tensor) and value.numel() > 1 and not bool(value.any())
    )


@reads("cat", "concat", "concatenate")
def _cat(recorder: Recorder, tensors: Any, dim: int = 0, **kwargs: Any) -> Any:
    dim = kwargs.get("axis", dim)
    if not isinstance(tensors, (tuple, list)):
        raise recorder.refuse(f"takes a list of tensors, got {describe(tensors)}")
    signals = [t for t in tensors if isinstance(t, Signal)]
    first = recorder.check(signals[0])
    (axis,) = dimensions(recorder, first, dim)
    if axis != 1:
        raise recorder.refuse(f"is read along the channels (dimension 1), got dimension {dim}")
    before = after = 0
    seen: list[int] = []
    for tensor in tensors:
        if isinstance(tensor, Signal):
            if after:
                raise recorder.refuse("zeros between tensors cannot be read; before and after them they can")
            seen.append(recorder.position(tensor))
        elif _is_zero_tensor(tensor):
            sizes = tensor.sizes if isinstance(tensor, Zeros) else tuple(tensor.shape[1:])
            if sizes[1:] != first.sizes[1:]:
                raise recorder.refuse(f"takes tensors of one extent, got zeros of shape {sizes}")
            if seen:
                after += sizes[0]
            else:
                before += sizes[0]
        else:
            raise recorder.refuse(f"takes tensors computed from the input, got {describe(tensor)}")
    made = recorder.add(Concatenate(recorder.label()), *seen) if len(seen) > 1 else None
    if before or after:
        position = seen[0] if made is None else recorder.position(made)
        return recorder.add(PadChannels(recorder.label(), before, after), position)
    return first if made is None else made


@reads("pad")
def _pad(recorder: Recorder, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    signal = recorder.check(input)
    pad = list(pad)
    if len(pad) % 2 or not all(isinstance(n, int) for n in pad):
        raise recorder.refuse(f"takes pairs of whole numbers, got {describe(pad)}")
    if mode == "constant" and value is not None and number(value) != 0.0:
        raise recorder.refuse(f"pads with zeros only, got value {value}")
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    if min(pad, default=0) < 0:
        raise recorder.refuse(f"cuts positions or channels (pad = {tuple(pad)}), which cannot be read")
    pairs += [(0, 0)] * (len(signal.sizes) + 1 - len(pairs))
    pairs.reverse()  # torch names the last dimension first
    if len(pairs) != len(signal.sizes) + 1 or any(pairs[0]):
        raise recorder.refuse(f"pad = {tuple(pad)} does not fit a tensor of shape {recorder.text(signal)}")
    result = signal
    if any(pairs[1]):
        if mode != "constant":
            raise recorder.refuse(f"channels are padded with zeros only, got mode {mode!r}")
        layer = PadChannels(recorder.label(), *pairs[1])
        result = recorder.add(layer, recorder.position(signal))
    if any(before or after for before, after in pairs[2:]):
        result = pad_positions(recorder, result, mode, tuple(pairs[2:]))
    return result


def pad_positions(recorder: Recorder, signal: Any, mode: str, pairs: tuple[tuple[int, int], ...]) -> Signal:
    """Positions around the image, kept until a convolution takes them."""
    signal = recorder.check(signal)
    modes = {"constant": "zeros", "zeros": "zeros", "circular": "circular", "reflect": "reflect"}
    if mode not in modes:
        raise recorder.refuse(f"mode must be 'constant', 'circular' or 'reflect', got {mode!r}")
    position = recorder.position(signal)
    made = Signal(position, signal.shape, position)
    made.padding = modes[mode], pairs
    return made
