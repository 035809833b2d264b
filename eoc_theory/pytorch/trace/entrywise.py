"""Activations and other functions of single entries, and dropout."""

from __future__ import annotations

from typing import Any

import torch

from ...layers import Dropout  # fmt: skip
from .functions import READERS, Reader, overwrite, reads
from .recorder import Recorder, describe, number
from .signals import Signal

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
        return overwrite(input, result) if inplace else result

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
    "abs", "absolute", "acos", "asin", "asinh", "atan", "clamp", "clamp_max", "clamp_min", "clip", "cos",
    "cosh",    "erf", "erfc", "exp", "exp2", "expm1", "ge", "gt", "le", "log", "log1p", "lt", "logical_and",
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
