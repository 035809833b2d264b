"""Functions, operators and tensor methods of a traced model, each as nodes of the graph.

A reader takes the recorder and the call's own arguments, tensors being `Signal`s, under the parameter names
that torch gives them.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ...errors import ModelError
from .recorder import Recorder
from .signals import Signal

Reader = Callable[..., Any]
READERS: dict[str, Reader] = {}
_PLACES: tuple[Any, ...] = (
    torch, functional, torch._C._nn, torch.special, operator, torch.Tensor,  # type: ignore[reportAttributeAccessIssue]
)  # fmt: skip

#: Operators that change their left side, and what they compute.
_IN_PLACE_OPERATORS = {
    "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "ipow": "pow"
}  # fmt: skip

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
    in_place = name in _IN_PLACE_OPERATORS or (name.endswith("_") and not name.endswith("__"))
    base = _IN_PLACE_OPERATORS.get(name, name.rstrip("_"))
    in_place = in_place or bool(kwargs.get("inplace"))
    recorder.operation = base
    reader = READERS.get(base)
    if reader is None:
        hint = HINTS.get(base)
        raise recorder.refuse(f"cannot be read; {hint}" if hint else "cannot be read")
    if "inplace" not in inspect.signature(reader).parameters:
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    try:
        bound = inspect.signature(reader).bind(recorder, *args, **kwargs)
    except TypeError as error:
        raise recorder.refuse(f"cannot be read with these arguments: {error}") from None
    in_place = in_place or bool(bound.arguments.get("inplace"))
    result = reader(*bound.args, **bound.kwargs)
    if in_place and args and isinstance(args[0], Signal) and isinstance(result, Signal):
        return overwrite(args[0], result)
    return result


def overwrite(signal: Signal, result: Signal) -> Signal:
    """What an operation in place leaves: the tensor itself, now with the result's value."""
    if result is not signal:
        signal.take(result)
    return signal
