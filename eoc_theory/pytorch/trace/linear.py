"""Products with weights: fully connected layers, at one position or at each, and convolutions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from ...errors import ModelError
from ...layers import Convolution, Dense, FixedFilter, Pad, PaddingMode, PositionwiseDense, WeightLayer
from . import layout as lay
from . import positions
from .attention import product
from .layout import BATCH, CHANNELS
from .readers import HINTS, reads
from .recorder import Recorder, describe
from .values import Constant, Signal
from .weights import Weights, off_mean, read_weights, weights_of_law


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
    _check_biases(recorder, name, bias)
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


def _check_biases(recorder: Recorder, name: str, bias: Constant | None) -> None:
    if bias is None or recorder.only_structure:
        return
    law = recorder.law_of(bias)
    wrong = off_mean(bias.tensor.detach()) if law is None else f"have mean {law.mean:.4g}" if law.mean else ""
    if wrong:
        raise ModelError(f"the biases of layer {name!r} {wrong}")


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
    if axes == 2 and _has_windows(recorder, input):
        return _of_windows(recorder, input, weight, bias, stride, padding, dilation, groups)
    position, around = recorder.unpadded(input)
    if around is not None and around[0] == "lowest":
        recorder.position(input)
    shape = recorder.shapes[position]
    taps = _taps(weight, shape.channels, groups) if bias is None else None
    if taps is not None and len(taps) == len(shape.space):
        position = recorder.position(input)
        each = (_each(value, axes) for value in (stride, padding, dilation))
        return recorder.add(FixedFilter(recorder.label(), taps, *each), position)
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
    if isinstance(input, Signal) and input.is_fixed:
        made = replace(made, layout=((), *made.layout[1:]))
    return recorder.scaled(made, 0.0) if _is_silent(weight) else made


def _has_windows(recorder: Recorder, input: Any) -> bool:
    """Whether windows of an image stand in the dimension of the inputs."""
    signal = recorder.check(input)
    batch, windows = signal.layout[0][:1], signal.layout[0][1:]
    positions_alone = all(own == lay.of_positions(own) for own in (windows, *signal.layout[2:]))
    return (
        batch == lay.whole(BATCH, recorder.batch) and bool(windows) and positions_alone
        and len(signal.layout) == 4 and signal.padding is None
    )  # fmt: skip


def _of_windows(
    recorder: Recorder, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    groups: int,
) -> Signal:  # fmt: skip
    """The convolution of windows, each with zeros around it, one below the other as one image, without what
    lies across two of them."""
    signal = recorder.settled(input)
    if signal.layout[1] != lay.whole(CHANNELS, signal.shape.channels):
        raise recorder.refuse(f"takes channels second, got a tensor of shape {recorder.text(signal)}")
    dimensions = signal.layout[0][1:], *signal.layout[2:]
    count, height, _ = space = tuple(map(lay.extent_of, dimensions))
    image = positions.gathered(
        recorder, signal, lay.places(dimensions, signal.shape.space).reshape(-1), space
    )
    kernel, (down, _) = tuple(weight.sizes[2:]), _each(stride, 2)
    apart, (before, after) = _each(dilation, 2), (rows := _pads(padding, kernel, _each(dilation, 2)))[0]
    kept = (height + before + after - apart[0] * (kernel[0] - 1) - 1) // down + 1
    # Windows begin where the filter does.
    rows = (before, after + -(height + before + after) % down), rows[1]
    padded = recorder.add(Pad(recorder.label(), ((0, 0), *rows)), recorder.position(image))
    _, each, columns = padded.shape.space
    whole = positions.gathered(recorder, padded, np.arange(padded.shape.positions), (count * each, columns))
    made = _convolution(recorder, 2, whole, weight, bias, stride, 0, dilation, groups)
    position, columns = recorder.position(made), made.shape.space[1]
    starts = (each // down * np.arange(count)[:, None] + np.arange(kept)).reshape(-1)
    table = (starts[:, None] * columns + np.arange(columns)).reshape(-1)
    image = Signal(position, made.shape, recorder.standard(made.shape), position)
    cut = positions.gathered(recorder, image, table, (count * kept, columns))
    batch, channels, _, across = cut.layout
    windows = lay.joined([lay.Factor(1, kept, count)])
    return replace(cut, layout=((*batch, *windows), channels, lay.whole(1, kept), across))


def _taps(weight: Any, channels: int, groups: int) -> tuple[tuple[float, ...], ...] | None:
    """Numbers along each axis whose products every channel is convolved with; None where it is no such."""
    if not isinstance(weight, Constant) or weight.parameters or weight.sizes[:2] != (channels, 1) or (
        groups != channels
    ):  # fmt: skip
        return None
    tensor = weight.tensor.detach().double()
    if not bool((tensor == tensor[:1]).all()):
        return None
    filter = tensor[0, 0].numpy()
    if filter.ndim == 1:
        return (tuple(map(float, filter)),)
    at = np.unravel_index(np.argmax(np.abs(filter)), filter.shape)
    if filter[at] == 0.0:
        return None
    rows, columns = filter[:, at[1]], filter[at[0]] / filter[at]
    if not np.allclose(np.outer(rows, columns), filter, rtol=1e-5, atol=1e-6 * abs(filter[at])):
        return None
    return tuple(map(float, rows)), tuple(map(float, columns))


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
