"""Normalisation over the batch, an input's entries, its channels, or groups of these."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...layers import BatchNorm, ChannelNorm, GroupNorm, Layer, LayerNorm, Length, Softmax, UnitLength
from . import layout as lay
from . import positions
from .constants import number
from .layout import BATCH, CHANNELS
from .readers import HINTS, reads
from .recorder import Recorder, describe
from .values import Constant, Lazy, Signal
from .vector_norms import Spread, of_heads, vector_dimension
from .weights import off_mean


def _rms(recorder: Recorder, value: Any, default: float) -> float:
    if value is None:
        return default
    if not isinstance(value, Constant):
        raise recorder.refuse(f"takes parameters for γ and β, got {describe(value)}")
    return math.sqrt(float(value.tensor.detach().double().square().mean()))


def _shift(recorder: Recorder, value: Any) -> float:
    """The root mean square of β."""
    rms = _rms(recorder, value, 0.0)
    wrong = off_mean(value.tensor.detach()) if rms > 0.0 and not recorder.only_structure else ""
    if wrong:
        raise recorder.refuse(f"the entries of β {wrong}")
    return rms


def _label(recorder: Recorder, weight: Any) -> str:
    """The name of the module that owns γ, where one does."""
    owner, _, own = weight.parameter.rpartition(".") if isinstance(weight, Constant) else ("", "", "")
    return recorder.label(owner if own == "weight" else "")


def _with_channels_second(recorder: Recorder, input: Any) -> Signal:
    signal = recorder.settled(input)
    wanted = lay.whole(CHANNELS, signal.shape.channels)
    if len(signal.layout) < 2 or signal.layout[1] != wanted:
        raise recorder.refuse(
            f"takes channels as the second dimension, got a tensor of shape {recorder.text(signal)} that has "
            "them elsewhere"
        )
    return signal


def _made(recorder: Recorder, layer: Layer, signal: Signal) -> Signal:
    return replace(recorder.add(layer, recorder.position(signal)), layout=signal.layout)


@reads("batch_norm")
def _batch_norm(
    recorder: Recorder, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any,
    training: bool, eps: float,
) -> Any:  # fmt: skip
    signal = _with_channels_second(recorder, input)
    variance = 1.0
    if not training:
        if not isinstance(running_var, Constant):
            raise recorder.refuse(f"takes buffers for its statistics, got {describe(running_var)}")
        variance = float(running_var.tensor.double().mean())
    gain, shift = _rms(recorder, weight, 1.0), _shift(recorder, bias)
    layer = BatchNorm(_label(recorder, weight), bool(training), gain, shift, variance, eps)
    return _made(recorder, layer, signal)


@reads("layer_norm")
def _layer_norm(
    recorder: Recorder, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    signal = recorder.settled(input)
    gain, shift = _rms(recorder, weight, 1.0), _shift(recorder, bias)
    if len(normalized_shape) == 1 and len(signal.layout) == 3 and lay.axis_of(signal.layout[-1]) == 1:
        # Tokens whose channels a graph would take for positions.
        signal = recorder.transposed(signal)
    over = signal.layout[len(signal.layout) - len(normalized_shape) :]
    factors = [factor for dimension in over for factor in dimension]
    sizes = {axis: 1 for axis in range(len(signal.shape.space) + 1)}
    for factor in factors:
        sizes[factor.axis] = sizes.get(factor.axis, 1) * factor.size
    extents = (signal.shape.channels, *signal.shape.space)
    if all(sizes[axis] == extent for axis, extent in enumerate(extents)) and sizes.get(BATCH, 1) == 1:
        return _made(recorder, LayerNorm(_label(recorder, weight), gain, shift, eps), signal)
    if over == (lay.whole(CHANNELS, signal.shape.channels),):
        return _made(recorder, ChannelNorm(_label(recorder, weight), gain, shift, eps), signal)
    heads = of_heads(recorder, signal, normalized_shape, weight, bias, eps, True)
    if heads is not None:
        return heads
    raise recorder.refuse(
        f"LayerNorm over {tuple(normalized_shape)} of a tensor of shape {recorder.text(signal)} cannot be "
        "read; over all but the batch, over the channels, or over a head's, it can"
    )


@reads("group_norm")
def _group_norm(
    recorder: Recorder, input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    return _grouped(recorder, input, num_groups, weight, bias, eps)


@reads("instance_norm")
def _instance_norm(
    recorder: Recorder, input: Any, weight: Any, bias: Any, use_input_stats: bool, eps: float
) -> Any:
    if not use_input_stats:
        raise recorder.refuse("InstanceNorm with running statistics cannot be read in evaluation mode")
    channels = recorder.check(input).shape.channels
    return _grouped(recorder, input, channels, weight, bias, eps)


def _grouped(recorder: Recorder, input: Any, groups: int, weight: Any, bias: Any, eps: float) -> Signal:
    signal = _with_channels_second(recorder, input)
    if signal.layout[0] != lay.whole(BATCH, recorder.batch):
        raise recorder.refuse("mixes the inputs of a batch")
    if signal.shape.size == groups:
        raise recorder.refuse(
            f"normalises single values of shape {recorder.text(signal)}, which leaves zeros"
        )
    gain, shift = _rms(recorder, weight, 1.0), _shift(recorder, bias)
    return _made(recorder, GroupNorm(_label(recorder, weight), groups, gain, shift, eps), signal)


# --- over the root mean square ---


@reads("rms_norm", "_fused_rms_norm")
def _rms_norm(
    recorder: Recorder, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> Any:
    signal = recorder.settled(input)
    eps = torch.finfo(torch.float32).eps if eps is None else float(eps)
    heads = of_heads(recorder, signal, normalized_shape, weight, None, eps, False)
    if heads is not None:
        return [heads, None] if recorder.operation == "_fused_rms_norm" else heads
    if signal.layout[len(signal.layout) - len(normalized_shape) :] != (
        lay.whole(CHANNELS, signal.shape.channels),
    ):
        raise recorder.refuse(
            f"RMSNorm is read over the channels, or a head's, got {tuple(normalized_shape)}"
        )
    layer = ChannelNorm(_label(recorder, weight), _rms(recorder, weight, 1.0), 0.0, eps, centred=False)
    made = _made(recorder, layer, signal)
    # With γ one operation has two results, of which the second is 1/rms.
    return [made, None] if recorder.operation == "_fused_rms_norm" else made


# --- to length 1 ---


@dataclass(frozen=True, eq=False)
class Lengths(Lazy):
    """Lengths of channels over all positions, the last dimension of a tensor, kept as one; at least `eps`."""

    signal: Signal
    layer: UnitLength

    def read(self, recorder: Recorder, name: str, given: dict[str, Any]) -> Any:
        if name in ("clamp_min", "clamp", "maximum"):
            least = number(given.get("min", given.get("other")))
            if isinstance(least, float) and given.get("max") is None:
                return replace(self, layer=replace(self.layer, eps=max(self.layer.eps, least)))
        if name in ("expand", "expand_as", "to", "_to_copy"):
            return self
        if name == "div" and given["other"] is self:
            value = recorder.check(given["input"])
            if recorder.position(value) == recorder.position(self.signal) and (
                value.layout == self.signal.layout
            ):
                return _made(recorder, replace(self.layer, name=recorder.label()), value)
        return NotImplemented


@reads("linalg_vector_norm", "norm")
def _norm(
    recorder: Recorder, input: Any, ord: Any = 2, p: Any = 2, dim: Any = None, keepdim: bool = False
) -> Any:
    signal = recorder.check(input)
    dims = [dim] if isinstance(dim, int) else list(dim or ())
    if (number(ord), number(p)) == (2.0, 2.0) and keepdim:
        at = vector_dimension(signal, dim, keepdim)
        if at is not None:
            return Spread(signal, at, factor=float(signal.sizes[at]), power=0.5)
        length = _of_channels(recorder, signal, [d % len(signal.sizes) for d in dims])
        if length is not None:
            return length
    if (number(ord), number(p)) != (2.0, 2.0) or not keepdim or [d % len(signal.sizes) for d in dims] != [
        len(signal.sizes) - 1
    ]:  # fmt: skip
        raise recorder.refuse("is read over the last dimension, to bring vectors to length 1")
    (*_, last), every = signal.layout, lay.places(signal.layout, signal.shape.space)
    if last and last == lay.of_positions(last) and lay.extent_of(last) == every.size:
        return Lengths(signal, UnitLength("", 1, True, 0.0))
    raise recorder.refuse(f"is read over a head's channels or all positions, got {recorder.text(signal)}")


def _of_channels(recorder: Recorder, signal: Signal, dims: list[int]) -> Signal | None:
    """The length of each channel over all axes of an image, where these are the dimensions."""
    channels = lay.whole(CHANNELS, signal.shape.channels)
    rest = [own for d, own in enumerate(signal.layout) if d not in dims]
    if len(dims) < 2 or rest != [lay.whole(BATCH, recorder.batch), channels]:
        return None
    made = recorder.add(Length(recorder.label()), recorder.position(signal))
    return replace(made, layout=tuple(() if d in dims else own for d, own in enumerate(signal.layout)))


# --- to a sum of 1 ---


@reads("softmax", "_softmax")
def _softmax(recorder: Recorder, input: Any, dim: int, **rest: Any) -> Any:
    return normalised(recorder, recorder.settled(input), dim)


def normalised(recorder: Recorder, signal: Signal, dim: int) -> Signal:
    """The softmax along a dimension."""
    dim %= len(signal.sizes)
    if lay.of_positions(signal.layout[dim]):
        signal = positions.with_own_axes(recorder, signal)
    dimension, shape = signal.layout[dim], signal.shape
    if len(dimension) != 1 or dimension[0].axis == BATCH or (
        dimension == lay.whole(CHANNELS, shape.channels) and not shape.space
    ):  # fmt: skip
        raise recorder.refuse(f"cannot be read; {HINTS['softmax']}")
    ((axis, inner, size),) = dimension
    extents = (shape.channels, *shape.space)
    if axis != CHANNELS:
        inner = math.prod(extents[axis + 1 :])
    whole = shape.channels if axis == CHANNELS else shape.positions
    layer = Softmax(recorder.label(), (whole // (size * inner), size, inner), axis != CHANNELS)
    return _made(recorder, layer, signal)
