"""Functions, operators and tensor methods of a traced model, each as nodes of the graph.

A reader takes the recorder and the call's own arguments, tensors being `Signal`s, under the parameter names
that torch gives them.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional

from ..errors import ModelError
from ..layers import (
    AdaptiveAveragePool,
    AveragePool,
    Concatenate,
    Dropout,
    Flatten,
    MaxPool,
    PadChannels,
    Shape,
    Subsample,
)  # fmt: skip
from .recorder import Recorder, describe, number
from .signals import Signal, Zeros

Reader = Callable[..., Any]
READERS: dict[str, Reader] = {}
_PLACES = (torch, functional, torch._C._nn, torch.special, operator, torch.Tensor)

#: What to do instead, for functions that are common and cannot be read.
HINTS = {
    "softmax": "the theory takes logits: give the model without it",
    "log_softmax": "the theory takes logits: give the model without it",
    "softmin": "the theory takes logits: give the model without it",
    "detach": "it cuts the gradient",
    "linear": "weights must be those of a torch.nn.Linear module",
    "conv1d": "weights must be those of a torch.nn.Conv1d module",
    "conv2d": "weights must be those of a torch.nn.Conv2d module",
    "batch_norm": "use the module torch.nn.BatchNorm1d or BatchNorm2d",
    "layer_norm": "use the module torch.nn.LayerNorm",
    "group_norm": "use the module torch.nn.GroupNorm",
    "instance_norm": "use the module torch.nn.InstanceNorm1d or InstanceNorm2d",
    "matmul": "products of two tensors (attention) are not described by the theory",
    "bmm": "products of two tensors (attention) are not described by the theory",
    "scaled_dot_product_attention": "attention is not described by the theory",
}


def reads(*names: str) -> Callable[[Reader], Reader]:
    """Register a reader for functions, operators and tensor methods of these names."""

    def register(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(names, reader))
        return reader

    return register


def call(recorder: Recorder, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value of a function, or of the tensor method that a string names.

    Raises:
        ModelError: it cannot be read, or not with these arguments.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", repr(target))
    if isinstance(target, str):
        name = target.strip("_") if target.startswith("__") else target
    elif target is getattr and len(args) > 1:
        recorder.operation = str(args[1])
        raise ModelError(f"tensor attribute {args[1]!r} in {recorder.place} cannot be read")
    elif not any(getattr(place, name, None) is target for place in _PLACES):
        origin = getattr(target, "__module__", None)
        recorder.operation = name
        raise recorder.refuse(f"cannot be read ({origin}.{name})" if origin else "cannot be read")
    recorder.operation = name = name.strip()
    in_place = name in _IN_PLACE_OPERATORS or (name.endswith("_") and not name.endswith("__"))
    base = _IN_PLACE_OPERATORS.get(name, name.rstrip("_"))
    in_place = bool(kwargs.get("inplace")) or in_place
    recorder.operation = base
    reader = READERS.get(base)
    if reader is None:
        raise recorder.refuse(_unknown(base, args))
    if "inplace" not in inspect.signature(reader).parameters:
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    try:
        bound = inspect.signature(reader).bind(recorder, *args, **kwargs)
    except TypeError as error:
        raise recorder.refuse(f"cannot be read with these arguments: {error}") from None
    in_place = in_place or bool(bound.arguments.get("inplace"))
    result = reader(*bound.args, **bound.kwargs)
    if in_place and isinstance(args[0], Signal) and isinstance(result, Signal):
        return overwrite(recorder, args[0], result)
    return result


def overwrite(recorder: Recorder, signal: Signal, result: Signal) -> Signal:
    """What an operation in place leaves: the tensor itself, now with the result's value."""
    if result is not signal:
        signal.take(result)
    return signal


def _unknown(name: str, args: tuple[Any, ...]) -> str:
    hint = HINTS.get(name)
    return f"cannot be read{f'; {hint}' if hint else ''}"


_IN_PLACE_OPERATORS = {
    "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "ipow": "pow"
}  # fmt: skip

# --- sums and factors ---


def _is_zero_tensor(value: Any) -> bool:
    return isinstance(value, Zeros) or (
        isinstance(value, torch.Tensor) and value.numel() > 1 and not bool(value.any())
    )


@reads("add", "radd")
def _add(recorder: Recorder, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    left, right, alpha = number(input), number(other), number(alpha)
    if isinstance(left, Signal) and isinstance(right, Signal):
        return recorder.sum([(left, 1.0), (right, alpha)])
    if not isinstance(left, Signal):
        left, right = right, left
    if isinstance(right, Zeros) and right.sizes == recorder.check(left).sizes:
        return left
    return recorder.elementwise(torch.add, (left, right), {} if alpha == 1 else {"alpha": alpha})


@reads("sub", "subtract")
def _sub(recorder: Recorder, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    left, right, alpha = number(input), number(other), number(alpha)
    if isinstance(left, Signal) and isinstance(right, Signal):
        return recorder.sum([(left, 1.0), (right, -alpha)])
    return recorder.elementwise(torch.sub, (left, right), {} if alpha == 1 else {"alpha": alpha})


@reads("rsub")
def _rsub(recorder: Recorder, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    return _sub(recorder, other, input, alpha=alpha)


@reads("mul", "multiply", "rmul")
def _mul(recorder: Recorder, input: Any, other: Any) -> Any:
    left, right = number(input), number(other)
    if isinstance(left, Signal) and isinstance(right, Signal):
        return recorder.elementwise(torch.mul, (left, right), {})
    signal, factor = (left, right) if isinstance(left, Signal) else (right, left)
    if isinstance(factor, float) and isinstance(signal, Signal):
        # A written 0 makes zeros; a parameter that is 0 now is a factor.
        if factor == 0 and not isinstance(input, torch.Tensor) and not isinstance(other, torch.Tensor):
            return Zeros(recorder.check(signal).sizes)
        return recorder.scaled(signal, factor)
    raise recorder.refuse(f"multiplies by numbers only, got {describe(factor)}")


@reads("div", "truediv", "divide", "true_divide")
def _div(recorder: Recorder, input: Any, other: Any, *, rounding_mode: Any = None) -> Any:
    left, right = number(input), number(other)
    if rounding_mode is not None:
        raise recorder.refuse(f"rounding_mode {rounding_mode!r} cannot be read")
    if isinstance(left, Signal) and isinstance(right, float):
        if right == 0:
            raise recorder.refuse("divides by 0")
        return recorder.scaled(left, 1.0 / right)
    return recorder.elementwise(torch.div, (left, right), {})


@reads("rtruediv", "rdiv")
def _rdiv(recorder: Recorder, input: Any, other: Any) -> Any:
    return _div(recorder, other, input)


@reads("neg", "negative")
def _neg(recorder: Recorder, input: Any) -> Any:
    return recorder.scaled(input, -1.0)


@reads("pos", "positive", "clone", "contiguous", "float", "double", "half", "bfloat16", "to", "type", "cpu",
       "cuda", "type_as", "requires_grad", "requires_grad_")  # fmt: skip
def _same_value(recorder: Recorder, input: Any, *args: Any, **kwargs: Any) -> Any:
    signal = recorder.check(input)
    if recorder.operation == "clone":
        copy = Signal(signal.position, signal.shape, signal.root)
        copy.take(signal)
        return copy
    return signal


@reads("zeros_like")
def _zeros_like(recorder: Recorder, input: Any, **kwargs: Any) -> Any:
    return Zeros(recorder.check(input).sizes)


# --- activations ---

#: torch.nn class and its parameters, in the order in which the function takes them.
ACTIVATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("ReLU", ()), "relu6": ("ReLU6", ()), "leaky_relu": ("LeakyReLU", ("negative_slope",)),
    "elu": ("ELU", ("alpha",)), "selu": ("SELU", ()), "celu": ("CELU", ("alpha",)),
    "gelu": ("GELU", ()), "silu": ("SiLU", ()), "mish": ("Mish", ()), "tanh": ("Tanh", ()),
    "sigmoid": ("Sigmoid", ()), "expit": ("Sigmoid", ()), "logsigmoid": ("LogSigmoid", ()),
    "softplus": ("Softplus", ("beta", "threshold")), "softsign": ("Softsign", ()),
    "hardtanh": ("Hardtanh", ("min_val", "max_val")), "hardswish": ("Hardswish", ()),
    "hardsigmoid": ("Hardsigmoid", ()), "hardshrink": ("Hardshrink", ("lambd",)),
    "softshrink": ("Softshrink", ("lambd",)), "tanhshrink": ("Tanhshrink", ()),
    "threshold": ("Threshold", ("threshold", "value")),
}  # fmt: skip


def _activation_reader(name: str, parameters: tuple[str, ...]) -> Reader:
    def read(recorder: Recorder, input: Any, *args: Any, inplace: bool = False, **kwargs: Any) -> Any:
        if len(args) == len(parameters) + 1 and isinstance(args[-1], bool):
            args, inplace = args[:-1], args[-1]
        values = {**dict(zip(parameters, args, strict=False)), **kwargs}
        try:
            if len(args) > len(parameters):
                raise TypeError(f"{len(args)} values besides the tensor")
            module = getattr(torch.nn, name)(**{k: number(v) for k, v in values.items()})
        except TypeError as error:
            raise recorder.refuse(f"cannot be read with these arguments: {error}") from None
        result = recorder.nonlinearity(input, module)
        return overwrite(recorder, input, result) if inplace else result

    return read


READERS.update({key: _activation_reader(*value) for key, value in ACTIVATIONS.items()})


@reads("prelu")
def _prelu(recorder: Recorder, input: Any, weight: Any) -> Any:
    slope = number(weight)
    if not isinstance(slope, float):
        raise recorder.refuse(f"takes one slope for all channels, got {describe(weight)}")
    return recorder.nonlinearity(input, torch.nn.LeakyReLU(slope))


@reads("rrelu")
def _rrelu(
    recorder: Recorder, input: Any, lower: Any = 1 / 8, upper: Any = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> Any:  # fmt: skip
    if training:
        raise recorder.refuse("has random slopes in training mode")
    return recorder.nonlinearity(input, torch.nn.LeakyReLU((number(lower) + number(upper)) / 2))


_ELEMENTWISE = (
    "abs", "absolute", "acos", "asin", "asinh", "atan", "clamp", "clamp_max", "clamp_min", "clip", "cos", "cosh",
    "erf", "erfc", "exp", "exp2", "expm1", "ge", "gt", "le", "log", "log1p", "lt", "logical_and",
    "logical_not", "logical_or", "maximum", "minimum", "pow", "reciprocal", "rsqrt", "sign", "sin", "sinc",
    "sinh", "sqrt", "square", "tan", "where", "xlogy", "logaddexp", "heaviside",
)  # fmt: skip


def _elementwise_reader(name: str) -> Reader:
    function = getattr(torch, name)

    def read(recorder: Recorder, *args: Any, **kwargs: Any) -> Any:
        if (
            name == "where"
            and isinstance(args[0], Signal)
            and recorder.operation == "where"
            and len(args) != 3
        ):
            raise recorder.refuse("takes a condition and two values")
        return recorder.elementwise(function, args, kwargs)

    return read


READERS.update({name: _elementwise_reader(name) for name in _ELEMENTWISE})

# --- dropout ---


@reads("dropout")
def _dropout(
    recorder: Recorder, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False,
    train: bool | None = None,
) -> Any:  # fmt: skip
    return dropout(recorder, input, p, training if train is None else train)


@reads("dropout1d", "dropout2d", "dropout3d", "feature_dropout")
def _dropout_channels(
    recorder: Recorder, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    return dropout(recorder, input, p, training, channelwise=True)


@reads("alpha_dropout", "feature_alpha_dropout")
def _alpha_dropout(
    recorder: Recorder, input: Any, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Any:
    if training and p > 0:
        raise recorder.refuse("cannot be read in training mode")
    return recorder.same(input)


def dropout(recorder: Recorder, input: Any, p: float, training: bool, channelwise: bool = False) -> Signal:
    """Dropout, the identity in evaluation mode."""
    p = float(p)
    if not training or p == 0:
        return recorder.same(input)
    if p >= 1:
        raise recorder.refuse("drops everything (p = 1)")
    position = recorder.position(input)
    if channelwise and not recorder.shapes[position].space:
        raise recorder.refuse("drops whole channels of images, got vectors")
    return recorder.add(Dropout(recorder.label(), p, True, channelwise), position)


# --- pooling ---


def per_axis(recorder: Recorder, name: str, value: Any, axes: int) -> tuple[int, ...]:
    """A setting along each axis from one for all of them or one for each."""
    values = tuple(value) if isinstance(value, Iterable) else (value,) * axes
    if len(values) == 1:
        values *= axes
    if len(values) != axes or not all(isinstance(v, int) for v in values):
        raise recorder.refuse(f"{name} must be {axes} whole numbers, got {describe(value)}")
    return values


def _axes(recorder: Recorder, signal: Any, wanted: int | None) -> int:
    axes = len(recorder.check(signal).shape.space)
    if axes == 0 or (wanted is not None and axes != wanted):
        what = "images or sequences" if wanted is None else f"values with {wanted} axes of positions"
        raise recorder.refuse(f"takes {what}, got a tensor of shape {recorder.text(signal)}")
    return axes


def average_pool(
    recorder: Recorder, input: Any, axes: int, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: Any,
) -> Signal:  # fmt: skip
    """Means over windows."""
    _axes(recorder, input, axes)
    if divisor_override is not None:
        raise recorder.refuse(f"divisor_override = {divisor_override} cannot be read")
    kernel = per_axis(recorder, "kernel_size", kernel_size, axes)
    stride = kernel if stride is None or stride == [] else per_axis(recorder, "stride", stride, axes)
    padding = per_axis(recorder, "padding", padding, axes)
    layer = AveragePool(recorder.label(), kernel, stride, padding, bool(ceil_mode), bool(count_include_pad))
    return recorder.add(layer, recorder.position(input))


def max_pool(
    recorder: Recorder, input: Any, axes: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Signal:  # fmt: skip
    """Maxima over windows."""
    _axes(recorder, input, axes)
    if return_indices:
        raise recorder.refuse("return_indices = True cannot be read")
    kernel = per_axis(recorder, "kernel_size", kernel_size, axes)
    stride = kernel if stride is None or stride == [] else per_axis(recorder, "stride", stride, axes)
    padding = per_axis(recorder, "padding", padding, axes)
    dilation = per_axis(recorder, "dilation", dilation, axes)
    layer = MaxPool(recorder.label(), kernel, stride, padding, dilation, bool(ceil_mode))
    return recorder.add(layer, recorder.position(input))


def adaptive_average_pool(recorder: Recorder, input: Any, axes: int, output_size: Any) -> Signal:
    """Means over windows that give an output of a certain extent."""
    _axes(recorder, input, axes)
    output = _output_size(recorder, input, axes, output_size)
    return recorder.add(AdaptiveAveragePool(recorder.label(), output), recorder.position(input))


def adaptive_max_pool(
    recorder: Recorder, input: Any, axes: int, output_size: Any, return_indices: bool = False
) -> Signal:
    """Maxima over windows that give an output of a certain extent, which must divide the input's."""
    _axes(recorder, input, axes)
    output = _output_size(recorder, input, axes, output_size)
    space = recorder.check(input).shape.space
    if return_indices or any(n % m for n, m in zip(space, output, strict=True)):
        raise recorder.refuse(f"cannot be read for outputs {output} that do not divide the input {space}")
    kernel = tuple(n // m for n, m in zip(space, output, strict=True))
    layer = MaxPool(recorder.label(), kernel, kernel, (0,) * axes, (1,) * axes)
    return recorder.add(layer, recorder.position(input))


def _output_size(recorder: Recorder, input: Any, axes: int, output_size: Any) -> tuple[int, ...]:
    sizes = tuple(output_size) if isinstance(output_size, Iterable) else (output_size,) * axes
    if len(sizes) == 1:
        sizes *= axes
    space = recorder.check(input).shape.space
    if len(sizes) != axes:
        raise recorder.refuse(f"output_size must be {axes} whole numbers, got {describe(output_size)}")
    return tuple(n if size is None else int(size) for n, size in zip(space, sizes, strict=True))


def _register_pools(axes: int) -> None:
    @reads(f"avg_pool{axes}d")
    def read_average(
        recorder: Recorder, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None,
    ) -> Any:  # fmt: skip
        return average_pool(recorder, input, axes, kernel_size, stride, padding, ceil_mode,
                            count_include_pad, divisor_override)  # fmt: skip

    @reads(f"max_pool{axes}d", f"max_pool{axes}d_with_indices")
    def read_max(
        recorder: Recorder, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
        dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        return max_pool(recorder, input, axes, kernel_size, stride, padding, dilation, ceil_mode,
                        return_indices)  # fmt: skip

    @reads(f"adaptive_avg_pool{axes}d")
    def read_adaptive(recorder: Recorder, input: Any, output_size: Any) -> Any:
        return adaptive_average_pool(recorder, input, axes, output_size)

    @reads(f"adaptive_max_pool{axes}d")
    def read_adaptive_max(
        recorder: Recorder, input: Any, output_size: Any, return_indices: bool = False
    ) -> Any:
        return adaptive_max_pool(recorder, input, axes, output_size, return_indices)


_register_pools(1)
_register_pools(2)


def _dimensions(recorder: Recorder, signal: Signal, dim: Any) -> list[int]:
    """Torch's dimensions, counted from 0 for the batch."""
    ndim = len(signal.sizes) + 1
    dims = [dim] if isinstance(dim, int) else list(dim)
    if not all(isinstance(d, int) and -ndim <= d < ndim for d in dims):
        raise recorder.refuse(
            f"dimension {dim!r} does not exist in a tensor of shape {recorder.text(signal)}"
        )
    return [d % ndim for d in dims]


def _over_positions(recorder: Recorder, signal: Signal, dim: Any) -> list[int]:
    """The axes of positions that torch's dimensions name."""
    dims = None if dim is None else _dimensions(recorder, signal, dim)
    if not dims or min(dims) < 2:
        raise recorder.refuse(
            f"is read over positions only, not over {'everything' if not dims else f'dimension {min(dims)}'} "
            f"of a tensor of shape {recorder.text(signal)}"
        )
    return [signal.axes[d - 2] for d in dims]


def _reduce(recorder: Recorder, signal: Signal, axes: list[int], keepdim: bool) -> Signal:
    position = recorder.pooled(signal)
    space = recorder.shapes[position].space
    if any(space[axis] > 1 for axis in axes):
        output = tuple(1 if axis in axes else n for axis, n in enumerate(space))
        made = recorder.add(AdaptiveAveragePool(recorder.label(), output), position)
    else:
        made = recorder.view(signal, Signal(position, recorder.shapes[position], position))
    made.hidden = signal.hidden
    return made if keepdim else hide(recorder, made, axes)


def hide(recorder: Recorder, signal: Signal, axes: Iterable[int]) -> Signal:
    """Without axes of extent 1; a tensor that has none left is a vector."""
    hidden = signal.hidden | frozenset(axes)
    if signal.shape.space and len(hidden) == len(signal.shape.space):
        made = recorder.add(Flatten(recorder.label()), recorder.pooled(signal))
        return recorder.view(signal, made)
    made = Signal(recorder.pooled(signal), signal.shape, signal.root, signal.expression, signal.slope, hidden)
    return recorder.view(signal, made)


@reads("mean")
def _mean(
    recorder: Recorder, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    signal = recorder.check(input)
    return _reduce(recorder, signal, _over_positions(recorder, signal, dim), keepdim)


@reads("sum")
def _sum(recorder: Recorder, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    signal = recorder.check(input)
    axes = _over_positions(recorder, signal, dim)
    count = math.prod(signal.shape.space[axis] for axis in axes)
    return recorder.scaled(_reduce(recorder, signal, axes, keepdim), float(count))


@reads("amax")
def _amax(recorder: Recorder, input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    signal = recorder.check(input)
    axes = _over_positions(recorder, signal, dim)
    position = recorder.position(signal)
    space = recorder.shapes[position].space
    kernel = tuple(n if axis in axes else 1 for axis, n in enumerate(space))
    layer = MaxPool(recorder.label(), kernel, kernel, (0,) * len(space), (1,) * len(space))
    made = recorder.add(layer, position)
    return made if keepdim else hide(recorder, made, axes)


# --- shapes ---


@reads("flatten")
def _flatten(recorder: Recorder, input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    signal = recorder.check(input)
    ndim = len(signal.sizes) + 1
    start, end = _dimensions(recorder, signal, (start_dim, end_dim))
    if start == end and start > 0:
        return signal
    if start == 0:
        raise recorder.refuse(f"start_dim = {start_dim} mixes the inputs of a batch: use 1")
    if (start, end) != (1, ndim - 1):
        raise recorder.refuse(
            f"dimensions {start} to {end} of a tensor of shape {recorder.text(signal)} cannot be made one; "
            "all but the batch can"
        )
    return flattened(recorder, signal)


def flattened(recorder: Recorder, signal: Signal) -> Signal:
    """All entries as one vector."""
    if len(signal.sizes) == 1:
        return signal
    if signal.padding is not None:
        recorder.position(signal)
    return recorder.view(signal, recorder.add(Flatten(recorder.label()), recorder.pooled(signal)))


@reads("view", "reshape")
def _view(recorder: Recorder, input: Any, *shape: Any, **kwargs: Any) -> Any:
    signal = recorder.check(input)
    wanted = kwargs.get("shape", kwargs.get("size", shape))
    if len(wanted) == 1 and isinstance(wanted[0], Iterable):
        wanted = tuple(wanted[0])
    return reshaped(recorder, signal, wanted)


@reads("view_as", "reshape_as")
def _view_as(recorder: Recorder, input: Any, other: Any) -> Any:
    return reshaped(recorder, recorder.check(input), (recorder.batch, *recorder.check(other).sizes))


def reshaped(recorder: Recorder, signal: Signal, wanted: Iterable[Any]) -> Signal:
    """A tensor in another shape, if it is a vector, or the input as an image.

    Raises:
        ModelError: any other shape.
    """
    sizes = list(wanted)
    total = recorder.batch * math.prod(signal.sizes)
    if not all(isinstance(n, int) for n in sizes) or sizes.count(-1) > 1:
        raise recorder.refuse(f"takes whole numbers, got {describe(tuple(sizes))}")
    rest = math.prod(n for n in sizes if n != -1)
    sizes = [total // rest if n == -1 and rest else n for n in sizes]
    shown = f"({', '.join(map(str, sizes))})"
    if math.prod(sizes) != total:
        raise recorder.refuse(f"shape {shown} does not fit a tensor of shape {recorder.text(signal)}")
    if sizes[0] != recorder.batch:
        raise recorder.refuse(
            f"shape {shown} mixes the inputs of a batch of {recorder.batch} with shape {recorder.text(signal)}"
        )
    if tuple(sizes[1:]) == signal.sizes:
        return signal
    if len(sizes) == 2:
        return flattened(recorder, signal)
    if signal.position == 0 and len(sizes) > 1:
        image = recorder.reshape_input(Shape(sizes[1], tuple(sizes[2:])))
        if image is not None:
            return recorder.view(signal, image)
    raise recorder.refuse(
        f"a tensor of shape {recorder.text(signal)} cannot be given the shape (B, "
        f"{', '.join(map(str, sizes[1:]))}); only the input can be, and all can be vectors"
    )


@reads("squeeze")
def _squeeze(recorder: Recorder, input: Any, dim: Any = None) -> Any:
    signal = recorder.check(input)
    if dim is None:
        dims = [d for d, n in enumerate(signal.sizes, 1) if n == 1]
        if 1 in dims:
            raise recorder.refuse(f"takes away the channels of a tensor of shape {recorder.text(signal)}")
    else:
        dims = [d for d in _dimensions(recorder, signal, dim) if d > 0 and signal.sizes[d - 1] == 1]
    if not dims:
        return signal
    if min(dims) < 2:
        raise recorder.refuse(f"takes away the channels of a tensor of shape {recorder.text(signal)}")
    if signal.padding is not None:
        recorder.position(signal)
    return hide(recorder, signal, [signal.axes[d - 2] for d in dims])


@reads("unsqueeze")
def _unsqueeze(recorder: Recorder, input: Any, dim: int) -> Any:
    signal = recorder.check(input)
    ndim = len(signal.sizes) + 2
    at = dim % ndim
    sizes = [recorder.batch, *signal.sizes]
    sizes.insert(at, 1)
    return reshaped(recorder, signal, sizes)


@reads("getitem")
def _getitem(recorder: Recorder, input: Any, index: Any) -> Any:
    signal = recorder.check(input)
    index = list(index) if isinstance(index, tuple) else [index]
    ndim = len(signal.sizes) + 1
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index[at : at + 1] = [slice(None)] * (ndim - len(index) + 1)
    index += [slice(None)] * (ndim - len(index))
    refused = recorder.refuse(
        f"of {describe(tuple(index))} from a tensor of shape {recorder.text(signal)} cannot be read; steps over "
        "positions can (x[:, :, ::2, ::2])"
    )
    if len(index) != ndim:
        raise refused
    steps, gone = [1] * len(signal.shape.space), []
    for d, (part, n) in enumerate(zip(index, (recorder.batch, *signal.sizes), strict=True)):
        if isinstance(part, int) and d > 1 and n == 1 and part in (0, -1):
            gone.append(signal.axes[d - 2])
        elif isinstance(part, slice) and all(
            isinstance(v, (int, type(None))) for v in (part.start, part.stop)
        ):
            start, stop, step = part.indices(n)
            if start != 0 or (stop < n) or (d < 2 and step != 1) or step < 1:
                raise refused
            if d > 1:
                steps[signal.axes[d - 2]] = step
        else:
            raise refused
    result = signal
    if any(step > 1 for step in steps):
        position = recorder.position(signal)
        result = recorder.view(signal, recorder.add(Subsample(recorder.label(), tuple(steps)), position))
    return hide(recorder, result, gone) if gone else result


# --- joining and padding ---


@reads("cat", "concat", "concatenate")
def _cat(recorder: Recorder, tensors: Any, dim: int = 0, **kwargs: Any) -> Any:
    dim = kwargs.get("axis", dim)
    if not isinstance(tensors, (tuple, list)):
        raise recorder.refuse(f"takes a list of tensors, got {describe(tensors)}")
    signals = [t for t in tensors if isinstance(t, Signal)]
    first = recorder.check(signals[0])
    (axis,) = _dimensions(recorder, first, dim)
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
