"""Products with weights: fully connected layers, at one position or at each, and convolutions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from ...layers import Convolution, Dense, PaddingMode, PositionwiseDense, WeightLayer
from . import layout as lay
from .attention import product
from .layout import CHANNELS
from .readers import HINTS, reads
from .recorder import Recorder, describe
from .values import Constant, Signal
from .weights import Weights, read_weights, weights_of_law


def layer_name(parameter: str) -> str:
    """The name of the layer whose weights a parameter holds: the module's, "weight" for the model itself.

    A parameter with another name than "weight" (whatever a mask or a parametrisation makes of it) names the
    layer itself.
    """
    path, _, own = parameter.rpartition(".")
    if ".parametrizations." in f".{path}.":
        path, _, own = f".{path}".rpartition(".parametrizations.")
        path = path.removeprefix(".")
    own = own.removesuffix("_orig").removesuffix("_v")
    return (path or own) if own == "weight" else f"{path}.{own}" if path else own


def _weight_layer(recorder: Recorder, weight: Any, bias: Any, kernel: tuple[int, ...]) -> WeightLayer:
    """The law of weights of shape (outputs, inputs, *kernel)."""
    if not isinstance(weight, Constant):
        raise recorder.refuse(
            "products of two tensors are not described by the theory: weights must be parameters"
        )
    if not (bias is None or isinstance(bias, Constant)):
        raise recorder.refuse(f"takes parameters as biases, got {describe(bias)}")
    source = _source(recorder, weight)
    name = layer_name(source)
    if _is_silent(weight) and (bias is None or not bool(bias.tensor.any())):
        own = recorder.parameters[source].detach()
        weight = Constant(own.reshape(weight.sizes), frozenset({source}))
    weights = read_once(recorder, name, weight, bias)
    return WeightLayer(
        name, weights.fan_in, weights.shape[0], weights.sigma_w, weights.sigma_b, kernel=kernel
    )


def _is_silent(weight: Constant) -> bool:
    """Whether a factor of the weights, which is 0 now, makes all of them 0; the layer is multiplied by it."""
    return len(weight.parameters) > 1 and not bool(weight.tensor.any())


def _source(recorder: Recorder, weight: Constant) -> str:
    """The parameter that weights are, or are computed from."""
    if weight.parameter:
        return weight.parameter
    likely = [
        name for name in weight.parameters if recorder.parameters[name].numel() == weight.tensor.numel()
    ]
    if len(likely) != 1:
        found = (
            "several parameters" if likely else "parameters of other sizes" if weight.parameters else "none"
        )
        raise recorder.refuse(f"takes weights that come from one parameter of their size, got {found}")
    return likely[0]


def read_once(recorder: Recorder, name: str, weight: Constant, bias: Constant | None) -> Weights:
    """The law of a layer's weights, which may be used once.

    Raises:
        ModelError: they are used again, or are not what `read_weights` takes.
    """
    if name in recorder.weights:
        raise recorder.refuse("is called twice: weights that are used more than once cannot be read")
    law = recorder.law_of(weight)
    if law is not None:
        sigma_b = 0.0 if bias is None else float(bias.tensor.detach().double().square().mean().sqrt())
        if bias is not None and recorder.law_of(bias) is not None:
            sigma_b = recorder.law_of(bias).std
        weights = recorder.weights[name] = weights_of_law(name, weight.sizes, law.law, law.std, sigma_b)
        return weights
    parts = []
    for value in (weight, bias):
        own, mask = (value, None) if value is None or value.unmasked is None else value.unmasked
        parts += [None if own is None else own.tensor, None if mask is None else mask.tensor]
    weights = recorder.weights[name] = read_weights(name, *parts)
    return weights


@reads("linear")
def _linear(recorder: Recorder, input: Any, weight: Any, bias: Any = None) -> Any:
    signal = recorder.settled(input)
    if len(signal.layout) == 3 and lay.axis_of(signal.layout[-1]) != CHANNELS:
        signal = recorder.transposed(signal)
    if not signal.layout or signal.layout[-1] != lay.whole(CHANNELS, signal.shape.channels):
        raise recorder.refuse(
            f"Linear is read on vectors, or on the channels at each position, got a tensor of shape "
            f"{recorder.text(signal)} (flatten it before)"
        )
    position = recorder.position(signal)
    law = _weight_layer(recorder, weight, bias, ())
    kind = PositionwiseDense if signal.shape.space else Dense
    made = recorder.add(kind(law.name, law), position)
    made = replace(made, layout=(*signal.layout[:-1], lay.whole(CHANNELS, law.fan_out)))
    return recorder.scaled(made, 0.0) if _is_silent(weight) else made


@reads("matmul", "mm")
def _matmul(recorder: Recorder, input: Any, other: Any = None, mat2: Any = None) -> Any:
    weight = other if other is not None else mat2
    if isinstance(weight, Signal) and isinstance(input, Signal):
        return product(recorder, input, weight)
    if not isinstance(weight, Constant) or weight.tensor.dim() != 2 or not isinstance(input, Signal):
        raise recorder.refuse(f"cannot be read; {HINTS['matmul']}")
    return _linear(recorder, input, _transposed(weight))


@reads("addmm")
def _addmm(recorder: Recorder, input: Any, mat1: Any, mat2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    if beta != 1 or alpha != 1 or not isinstance(mat2, Constant):
        raise recorder.refuse(f"cannot be read with these arguments; {HINTS['matmul']}")
    return _linear(recorder, mat1, _transposed(mat2), input)


def _transposed(weight: Constant) -> Constant:
    return Constant(weight.tensor.T, weight.parameters)


def _convolution(
    recorder: Recorder, axes: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any,
    dilation: Any, groups: int,
) -> Signal:  # fmt: skip
    position, around = recorder.unpadded(input)
    if around is not None and around[0] == "lowest":
        recorder.position(input)
    shape = recorder.shapes[position]
    if len(shape.space) != axes:
        raise recorder.refuse(f"takes images over {axes} axes, got a tensor of shape {recorder.text(input)}")
    kernel = tuple(weight.sizes[2:])
    stride, dilation = (_each(value, axes) for value in (stride, dilation))
    pads = _pads(padding, kernel, dilation)
    mode = "zeros"
    if around is not None:
        mode, before = around
        if any(map(any, pads)) and mode != "zeros":
            raise recorder.refuse(f"pads with zeros what was padded with mode {mode!r} before")
        pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(pads, before, strict=True))
    law = _weight_layer(recorder, weight, bias, kernel)
    layer = Convolution(law.name, law, stride, pads, dilation, groups, cast(PaddingMode, mode))
    made = recorder.add(layer, position)
    return recorder.scaled(made, 0.0) if _is_silent(weight) else made


def _each(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * axes if len(values) == 1 else values


def _pads(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(before, after) along each axis; of an odd number that "same" needs, the last stands after."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((n, n) for n in _each(padding, len(kernel)))


def _register_convolutions(axes: int) -> None:
    @reads(f"conv{axes}d")
    def read(
        recorder: Recorder, input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        return _convolution(recorder, axes, input, weight, bias, stride, padding, dilation, groups)


_register_convolutions(1)
_register_convolutions(2)
