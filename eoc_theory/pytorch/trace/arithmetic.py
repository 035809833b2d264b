"""Sums, differences, multiples and copies of tensors."""

from __future__ import annotations

from typing import Any

import torch

from .functions import reads
from .recorder import Recorder, describe, number
from .signals import Signal, Zeros


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
