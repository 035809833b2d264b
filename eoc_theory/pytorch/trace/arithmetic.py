"""Sums, differences, multiples, products and copies of tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ...layers import ChannelScale, Product, Reciprocal
from . import layout as lay
from . import positions
from .channel_groups import laid_like
from .constants import number
from .layout import CHANNELS
from .randomness import masked
from .readers import reads
from .recorder import Recorder, describe
from .rotary import Turned
from .tokens import with_positions
from .values import Constant, Mask, Signal, Storage
from .weights import off_mean


@reads("add")
def _add(recorder: Recorder, input: Any, other: Any, alpha: Any = 1) -> Any:
    if isinstance(input, Mask) or isinstance(other, Mask):
        return _moved(recorder, input, other)
    left, right, alpha = number(input), number(other), number(alpha)
    if isinstance(left, Signal) and isinstance(right, Signal):
        return recorder.sum([(left, 1.0), (right, alpha)])
    if not isinstance(left, Signal):
        if alpha != 1:
            return recorder.elementwise(left, right, alpha=alpha)
        left, right = right, left
    return _shifted(
        recorder, left, right, alpha, lambda value: recorder.elementwise(left, value, alpha=alpha)
    )


@reads("sub")
def _sub(recorder: Recorder, input: Any, other: Any, alpha: Any = 1) -> Any:
    left, right, alpha = number(input), number(other), number(alpha)
    if isinstance(left, Signal) and isinstance(right, Signal):
        return recorder.sum([(left, 1.0), (right, -alpha)])
    if not isinstance(left, Signal):
        return recorder.elementwise(left, right, alpha=alpha)
    return _shifted(
        recorder, left, right, -alpha, lambda value: recorder.elementwise(left, value, alpha=alpha)
    )


@reads("rsub")
def _rsub(recorder: Recorder, input: Any, other: Any, alpha: Any = 1) -> Any:
    return recorder.elementwise(input, number(other), alpha=number(alpha))


def _shifted(recorder: Recorder, signal: Signal, value: Any, factor: float, by_number: Any) -> Signal:
    """A tensor plus what does not depend on the input."""
    if isinstance(value, Constant):
        signal = recorder.settled(signal)
        if value.is_zero and value.sizes == signal.sizes:
            return signal
        placed = with_positions(recorder, signal, value, factor)
        if placed is None and value.tensor.numel() > signal.shape.channels:
            signal = positions.with_own_axes(recorder, signal)
            placed = with_positions(recorder, signal, value, factor)
        if placed is not None:
            return placed
        value = _channelwise(recorder, signal, value)
    if not isinstance(value, torch.Tensor):
        return recorder.check(signal) if value == 0 else by_number(value)
    wrong = "" if recorder.only_structure else off_mean(value)
    if wrong:
        raise recorder.refuse(f"the numbers that are added {wrong}")
    shift = abs(factor) * float(value.double().square().mean().sqrt())
    layer = ChannelScale(recorder.label(), 1.0, shift)
    return replace(recorder.add(layer, recorder.position(signal)), layout=signal.layout)


def _channelwise(recorder: Recorder, signal: Signal, value: Constant) -> Any:
    """The number for all channels, or one for each as (channels,), that a tensor means beside `signal`."""
    tensor = value.tensor.detach()
    for d, n in enumerate(tensor.shape):
        if n > 1 and bool((tensor == tensor.narrow(d, 0, 1)).all()):
            tensor = tensor.narrow(d, 0, 1)
    sizes = (1,) * (len(signal.sizes) - tensor.dim()) + tuple(tensor.shape)
    if len(sizes) == len(signal.sizes):
        varies = [d for d, n in enumerate(sizes) if n > 1]
        fits = all(sizes[d] == signal.sizes[d] for d in varies)
        if fits and bool((tensor == tensor.reshape(-1)[0]).all()):
            return float(tensor.reshape(-1)[0])
        (first, *others) = varies or [0]
        dimension = signal.layout[first]
        if not others and lay.axis_of(dimension) == CHANNELS:
            return tensor.reshape(-1)
    raise recorder.refuse(f"takes numbers, for all channels or for each, got {describe(value)}")


@reads("mul")
def _mul(recorder: Recorder, input: Any, other: Any) -> Any:
    left, right = number(input), number(other)
    if isinstance(left, Mask) and isinstance(right, Mask):
        raise recorder.refuse("draws random numbers, which cannot be read")
    if isinstance(left, Mask) or isinstance(right, Mask):
        mask, value = (left, right) if isinstance(left, Mask) else (right, left)
        return masked(recorder, recorder.check(value), mask) if isinstance(value, Signal) else _times(
            recorder, mask, value
        )  # fmt: skip
    if isinstance(left, Signal) and isinstance(right, Signal):
        return _product(recorder, left, right)
    signal, factor = (left, right) if isinstance(left, Signal) else (right, left)
    signal = recorder.check(signal)
    if isinstance(factor, Constant):
        if factor.is_zero and factor.sizes == signal.sizes:
            return factor
        if _is_table(recorder, signal, factor):
            return Turned.of(signal).times(recorder, factor)
        signal = recorder.settled(signal)
        factor = _channelwise(recorder, signal, factor)
    if isinstance(factor, torch.Tensor):
        gain = float(factor.double().square().mean().sqrt())
        made = recorder.add(ChannelScale(recorder.label(), gain), recorder.position(signal))
        return replace(made, layout=signal.layout)
    # A written 0 makes zeros; a parameter that is 0 now is a factor.
    if factor == 0 and not isinstance(input, Constant) and not isinstance(other, Constant):
        return Constant(torch.zeros(()).expand(signal.sizes))
    return recorder.scaled(signal, factor)


def _is_table(recorder: Recorder, signal: Signal, value: Constant) -> bool:
    """Whether numbers differ between positions and between a head's channels, as sines and cosines do."""
    sizes = (1,) * (len(signal.sizes) - value.tensor.dim()) + tuple(value.tensor.shape)
    last = signal.layout[-1] if signal.layout else ()
    differ = any(lay.of_positions(d) for d, n in zip(signal.layout, sizes, strict=False) if n > 1)
    return differ and sizes[-1] > 1 and len(last) == 1 and last[0][:2] == (CHANNELS, 1)


def _product(recorder: Recorder, left: Signal, right: Signal) -> Signal:
    """Two tensors' product entry by entry; one may be a factor for all positions, or for all channels."""
    left, right = recorder.check(left), recorder.check(right)
    if left.root == right.root and left.layout == right.layout:
        return recorder.elementwise(left, right)
    left, right = recorder.alike(recorder.upright(left), recorder.upright(right))
    left, right = _spread(recorder, left, right), _spread(recorder, right, left)
    left, right = _grouped(recorder, left, right), _grouped(recorder, right, left)
    if len(left.layout) == len(right.layout):
        for value, gate in ((left, right), (right, left)):
            if all(own in (whole, ()) for whole, own in zip(value.layout, gate.layout, strict=True)):
                made = recorder.add(
                    Product(recorder.label()), recorder.position(value), recorder.position(gate)
                )
                return replace(made, layout=value.layout)
    raise recorder.refuse(
        f"multiplies tensors of shapes {recorder.text(left)} and {recorder.text(right)}: they must be "
        "alike, or one a factor for all positions or all channels"
    )


def _spread(recorder: Recorder, value: Signal, other: Signal) -> Signal:
    """A tensor of one position, or of some axes alone, as large as a factor that differs between positions.

    One position of every channel, or one channel, is a factor as it is.
    """
    positions_of = value.shape.positions, other.shape.positions
    partly = 1 < positions_of[0] < positions_of[1]
    crossed = positions_of[0] == 1 < positions_of[1] and value.shape.channels > other.shape.channels
    if not (partly or crossed) or len(value.layout) != len(other.layout):
        return value
    wanted = tuple(
        own if own and own != lay.of_positions(own) else lay.of_positions(factor)
        for own, factor in zip(value.layout, other.layout, strict=True)
    )
    moved = positions.like(recorder, value, replace(other, layout=wanted))
    return value if moved is None else moved


def _grouped(recorder: Recorder, value: Signal, other: Signal) -> Signal:
    """A tensor with its channels as a larger one's, where groups of these share them or lie otherwise."""
    channels, whole = value.shape.channels, other.shape.channels
    if channels > whole or (channels == whole and (value.position or 0) <= (other.position or 0)):
        return value
    own = [d for d, dimension in enumerate(value.layout) if any(f.axis == CHANNELS for f in dimension)]
    theirs = [other.layout[d] for d in own if d < len(other.layout)]
    if [value.layout[d] for d in own] == theirs and channels == whole:
        return value
    return laid_like(recorder, value, other) or value


@reads("div")
def _div(recorder: Recorder, input: Any, other: Any, rounding_mode: Any = None) -> Any:
    left, right = number(input), number(other)
    if rounding_mode is not None:
        raise recorder.refuse(f"rounding_mode {rounding_mode!r} cannot be read")
    if isinstance(right, float):
        if right == 0:
            raise recorder.refuse("divides by 0")
        return (
            _times(recorder, left, 1.0 / right)
            if isinstance(left, Mask)
            else recorder.scaled(left, 1.0 / right)
        )
    if isinstance(left, Signal) and isinstance(right, Signal) and left.root != right.root:
        return _product(recorder, left, _reciprocal(recorder, right))
    return recorder.elementwise(left, right)


def _reciprocal(recorder: Recorder, signal: Signal) -> Signal:
    signal = recorder.settled(signal)
    made = recorder.add(Reciprocal(recorder.label()), recorder.position(signal))
    return replace(made, layout=signal.layout)


@reads("neg")
def _neg(recorder: Recorder, input: Any) -> Any:
    return recorder.scaled(input, -1.0)


@reads("addcmul")
def _addcmul(recorder: Recorder, input: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Any:
    product = _mul(recorder, tensor1, tensor2)
    return _add(recorder, input, product if value == 1 else _mul(recorder, product, value))


def _times(recorder: Recorder, mask: Mask, factor: Any) -> Mask:
    """A random mask times a number."""
    factor = number(factor)
    if not isinstance(factor, float) or mask.uniform:
        raise recorder.refuse("draws random numbers, which cannot be read")
    return replace(mask, scale=mask.scale * factor)


def _moved(recorder: Recorder, input: Any, other: Any) -> Mask:
    """Uniform numbers plus a number, of which floor makes a mask."""
    mask, value = (input, other) if isinstance(input, Mask) else (other, input)
    value = number(value)
    if not isinstance(value, float) or not mask.uniform or not 0.0 <= mask.kept + value <= 1.0:
        raise recorder.refuse("draws random numbers, which cannot be read")
    return replace(mask, kept=mask.kept + value)


@reads("contiguous", "to", "_to_copy", "type_as", "alias", "positive")
def _same_value(recorder: Recorder, input: Any) -> Any:
    return recorder.check(input)


@reads("clone")
def _clone(recorder: Recorder, input: Any) -> Any:
    return replace(recorder.check(input), storage=Storage(), version=0)


@reads("zeros_like")
def _zeros_like(recorder: Recorder, input: Any) -> Any:
    return Constant(torch.zeros(()).expand(recorder.check(input).sizes))


@reads("new_zeros")
def _new_zeros(recorder: Recorder, input: Any, size: Any) -> Any:
    return Constant(torch.zeros(()).expand(tuple(size)))


@reads("empty_like", "new_empty")
def _new_empty(recorder: Recorder, input: Any, size: Any = None) -> Any:
    return Constant(torch.zeros(()).expand(tuple(size) if size is not None else recorder.check(input).sizes))
