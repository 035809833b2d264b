"""Activations and other functions of single entries."""

from __future__ import annotations

from typing import Any

import torch

from .constants import number
from .readers import READERS, Reader, reads
from .recorder import Recorder, describe

#: torch.nn class, and its parameters by the names that ATen gives them.
ACTIVATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("ReLU", ()), "relu6": ("ReLU6", ()), "leaky_relu": ("LeakyReLU", ("negative_slope",)),
    "selu": ("SELU", ()), "celu": ("CELU", ("alpha",)), "gelu": ("GELU", ("approximate",)),
    "silu": ("SiLU", ()), "mish": ("Mish", ()), "tanh": ("Tanh", ()), "sigmoid": ("Sigmoid", ()),
    "log_sigmoid": ("LogSigmoid", ()), "softplus": ("Softplus", ("beta", "threshold")),
    "hardtanh": ("Hardtanh", ("min_val", "max_val")), "hardswish": ("Hardswish", ()),
    "hardsigmoid": ("Hardsigmoid", ()), "hardshrink": ("Hardshrink", ("lambd",)),
    "softshrink": ("Softshrink", ("lambd",)), "threshold": ("Threshold", ("threshold", "value")),
}  # fmt: skip


def _reader(name: str, parameters: tuple[str, ...]) -> Reader:
    def read(recorder: Recorder, input: Any, **given: Any) -> Any:
        values = {key: number(given[key]) for key in parameters if key in given}
        return recorder.nonlinearity(input, getattr(torch.nn, name)(**values))

    return read


READERS.update({key: _reader(*value) for key, value in ACTIVATIONS.items()})


@reads("elu")
def _elu(recorder: Recorder, input: Any, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Any:
    if number(scale) == number(input_scale) == 1.0:
        return recorder.nonlinearity(input, torch.nn.ELU(number(alpha)))
    return recorder.elementwise(input, alpha, scale, input_scale)


@reads("prelu")
def _prelu(recorder: Recorder, input: Any, weight: Any) -> Any:
    slope = number(weight)
    if not isinstance(slope, float):
        raise recorder.refuse(f"takes one slope for all channels, got {describe(weight)}")
    return recorder.nonlinearity(input, torch.nn.LeakyReLU(slope))


@reads("rrelu")
def _rrelu(
    recorder: Recorder, input: Any, lower: Any = 1 / 8, upper: Any = 1 / 3, training: bool = False
) -> Any:
    lower, upper = number(lower), number(upper)
    if training and lower != upper:
        raise recorder.refuse("RReLU has random slopes in training mode; in evaluation mode it can be read")
    return recorder.nonlinearity(input, torch.nn.LeakyReLU((lower + upper) / 2))
