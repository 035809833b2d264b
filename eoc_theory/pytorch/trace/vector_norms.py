"""Normalisation of vectors of channels as it is written out: by their mean, variance, mean square or length.

Each of these is kept as what it is of, until a tensor is divided by it: that is LayerNorm, RMSNorm or
division by the length, of all channels at a position or of those of each head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ...layers import ChannelNorm, Layer, LayerNorm, UnitLength
from .constants import number
from .layout import CHANNELS
from .readers import READERS
from .recorder import Recorder
from .values import Constant, Expression, Lazy, Signal

#: What may be added to a root instead of under it: the two differ where the root is about as small.
_LEAST = 1e-4
#: Where functions entry by entry are compared.
_POINTS = torch.linspace(-7.3, 7.9, 101, dtype=torch.float64)
_SAME = ("to", "_to_copy", "contiguous", "type_as", "expand", "expand_as", "alias")


def vector_dimension(signal: Signal, dim: Any, keepdim: bool) -> int | None:
    """The dimension of all channels, or of a head's, if it is the one that is reduced and kept; else None."""
    dims = [dim] if isinstance(dim, int) else list(dim or ())
    if len(dims) != 1 or not keepdim or signal.padding is not None:
        return None
    own, at = signal.layout[dims[0]], dims[0] % len(signal.layout)
    if len(own) != 1 or own[0][:2] != (CHANNELS, 1) or own[0].size == 1:
        return None
    return at


def _is_square(name: str, given: dict[str, Any], value: Any) -> bool:
    first, other = given.get("input"), given.get("other")
    return (
        name == "square"
        or (name == "pow" and number(given["exponent"]) == 2.0)
        or (name == "mul" and first is value and other is value)
    )


@dataclass(frozen=True, eq=False)
class Mean(Lazy):
    """The mean of vectors of channels, and its square.

    Attributes:
        signal, dim: the tensor, and its dimension along which the vectors lie.
        otherwise: makes it where it is used for something else than a norm.
    """

    signal: Signal
    dim: int
    otherwise: Callable[[], Signal]
    squared: bool = False
    made: list[Signal] = field(default_factory=list)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's."""
        return tuple(1 if d == self.dim else n for d, n in enumerate(self.signal.sizes))

    def read(self, recorder: Recorder, name: str, given: dict[str, Any]) -> Any:
        if name in _SAME and given.get("input") is self and not self.made:
            return self
        if not self.squared and _is_square(name, given, self):
            return replace(self, squared=True)
        if name == "sub" and given["other"] is self and not self.squared and number(given["alpha"]) == 1.0:
            value = given["input"]
            if isinstance(value, Signal) and _is_same(recorder, value, self.signal):
                return Centred(self.signal, self.dim)
            if isinstance(value, Spread):
                return value.read(recorder, name, given)
        return NotImplemented

    def settled(self, recorder: Recorder) -> Signal:
        if not self.made:
            self.made.append(self.otherwise())
        (mean,) = self.made
        if not self.squared:
            return mean
        square = Expression(torch.square, (mean.expression,))
        return Signal(None, mean.shape, mean.layout, mean.root, square, None, name=recorder.label())


@dataclass(frozen=True, eq=False)
class Centred(Lazy):
    """Vectors of channels less their mean.

    Attributes:
        factors: what they are multiplied by before they are divided by their standard deviation.
    """

    signal: Signal
    dim: int
    squared: bool = False
    factors: tuple[Any, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's."""
        return self.signal.sizes

    def read(self, recorder: Recorder, name: str, given: dict[str, Any]) -> Any:
        first, other = given.get("input"), given.get("other")
        if name in _SAME and first is self:
            return self
        if not self.squared and not self.factors and _is_square(name, given, self):
            return replace(self, squared=True)
        if name == "mean" and self.squared:
            same = vector_dimension(self.signal, given["dim"], given["keepdim"]) == self.dim
            return Spread(self.signal, self.dim, centred=True) if same else NotImplemented
        if name in ("mul", "div") and not self.squared:
            value = other if first is self else first
            if isinstance(value, Spread):
                return value.read(recorder, name, given)
            if name == "mul" and isinstance(value, (Constant, int, float)):
                return replace(self, factors=(*self.factors, value))
        return NotImplemented

    def settled(self, recorder: Recorder) -> Signal:
        raise recorder.refuse(
            "subtracts the mean over channels, which is read where the standard deviation divides next"
        )


@dataclass(frozen=True, eq=False)
class Spread(Lazy):
    """(factor · V + eps)^power, with V the variance of vectors of channels, or their mean square.

    Attributes:
        centred: whether the mean is subtracted: V is the variance.
        least: the root √(factor · V + eps) is no smaller than that.
    """

    signal: Signal
    dim: int
    centred: bool = False
    factor: float = 1.0
    eps: float = 0.0
    power: float = 1.0
    least: float = 0.0

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's."""
        return tuple(1 if d == self.dim else n for d, n in enumerate(self.signal.sizes))

    def read(self, recorder: Recorder, name: str, given: dict[str, Any]) -> Any:
        first, other = given.get("input"), given.get("other")
        rest = other if first is self else first
        if name in _SAME and first is self:
            return self
        if name in ("rsqrt", "sqrt", "pow", "reciprocal"):
            exponent = {"rsqrt": -0.5, "sqrt": 0.5, "reciprocal": -1.0}.get(name)
            exponent = number(given["exponent"]) if exponent is None else exponent
            return replace(self, power=self.power * exponent) if isinstance(exponent, float) else (
                NotImplemented
            )  # fmt: skip
        if name in ("clamp_min", "clamp", "maximum"):
            return self._at_least(number(given.get("min", other)), given.get("max"))
        if name == "add":
            return self._plus(number(rest))
        if name == "sub" and isinstance(other, Mean) and first is self:
            fits = other.squared and _is_same(recorder, other.signal, self.signal)
            plain = (self.centred, self.factor, self.eps, self.power) == (False, 1.0, 0.0, 1.0)
            return replace(self, centred=True) if fits and plain else NotImplemented
        if name in ("mul", "div"):
            value = number(rest)
            if isinstance(value, float) and value > 0.0 and (name == "mul" or first is self):
                return self._times(value if name == "mul" else 1.0 / value)
            if self.power == (-0.5 if name == "mul" else 0.5) and not (name == "div" and first is self):
                return self._dividing(recorder, rest)
        return NotImplemented

    def _plus(self, value: Any) -> Any:
        if not isinstance(value, float) or value < 0.0 or self.least:
            return NotImplemented
        if self.power == 1.0:
            return replace(self, eps=self.eps + value)
        if self.power == 0.5 and value <= _LEAST:
            return replace(self, eps=self.eps + value**2)
        return NotImplemented

    def _at_least(self, least: Any, most: Any) -> Any:
        if not isinstance(least, float) or most is not None or self.power not in (0.5, 1.0):
            return NotImplemented
        return replace(self, least=max(self.least, least if self.power == 0.5 else math.sqrt(least)))

    def _times(self, value: float) -> Spread:
        """Times a number, which is taken under the power."""
        root = value ** (0.5 / self.power)
        return replace(self, factor=self.factor * root**2, eps=self.eps * root**2, least=self.least * root)

    def _dividing(self, recorder: Recorder, value: Any) -> Any:
        """What is multiplied by 1/root, or divided by the root."""
        factors: tuple[Any, ...] = ()
        if isinstance(value, Centred) and self.centred and not value.squared:
            value, factors = value.signal, value.factors
        elif self.centred:
            raise recorder.refuse("divides by a standard deviation what is not less its mean")
        ratio = _ratio(recorder, recorder.check(value), self.signal)
        if ratio is None:
            raise recorder.refuse("divides a tensor by the root mean square of another one")
        made = recorder.scaled(self._normalised(recorder, self.signal), ratio)
        for factor in factors:
            made = READERS["mul"](recorder, made, factor)
        return made

    def _normalised(self, recorder: Recorder, signal: Signal) -> Signal:
        count, channels = signal.sizes[self.dim], signal.shape.channels
        eps, name = self.eps / self.factor, recorder.label()
        layer: Layer
        if count == channels and not self.least:
            layer = ChannelNorm(name, 1.0, 0.0, eps, self.centred)
            if self.centred and not signal.shape.space:
                layer = LayerNorm(name, 1.0, 0.0, eps)
            scale = 1.0 / math.sqrt(self.factor)
        else:
            scale = math.sqrt(count / self.factor)
            heads = channels // count
            layer = UnitLength(name, heads, False, self.least * scale, self.centred, count * eps)
        made = recorder.add(layer, recorder.position(signal))
        return recorder.scaled(replace(made, layout=signal.layout), scale)


def _is_same(recorder: Recorder, signal: Signal, other: Signal) -> bool:
    """Whether both are the same tensor."""
    return signal.layout == other.layout and recorder.position(signal) == recorder.position(other)


def _ratio(recorder: Recorder, signal: Signal, other: Signal) -> float | None:
    """The number of which a tensor is the multiple of another one; None where it is none."""
    if signal is other or _is_same(recorder, signal, other):
        return 1.0
    if signal.layout != other.layout or signal.root != other.root:
        return None
    with torch.no_grad():
        mine, theirs = signal.expression(_POINTS), other.expression(_POINTS)
    at = int(theirs.abs().argmax())
    ratio = float(mine[at] / theirs[at])
    alike = math.isfinite(ratio) and torch.allclose(mine, ratio * theirs, rtol=1e-9, atol=1e-12)
    return ratio if alike else None


def mean_square(signal: Signal, dim: Any, keepdim: bool) -> Spread | None:
    """The mean over vectors of channels, where the tensor is the square of another one; else None."""
    at = vector_dimension(signal, dim, keepdim)
    if at is None:
        return None
    source = signal.square_of
    return None if source is None or source.layout != signal.layout else Spread(source, at)


def of_heads(
    recorder: Recorder, signal: Signal, sizes: Any, weight: Any, bias: Any, eps: float, centred: bool
) -> Signal | None:
    """LayerNorm or RMSNorm over the last dimension, where it holds a head's channels; else None."""
    at = vector_dimension(signal, -1, True) if len(sizes) == 1 else None
    if at is None or signal.sizes[at] == signal.shape.channels:
        return None
    made = Spread(signal, at, centred, eps=eps)._normalised(recorder, signal)
    made = made if weight is None else READERS["mul"](recorder, made, weight)
    return made if bias is None else READERS["add"](recorder, made, bias)
