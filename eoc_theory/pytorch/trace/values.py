"""What flows through a model while it is read: tensors over graph values, constants, random masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ...errors import ModelError
from ...layers import Shape
from .layout import BATCH, Layout, extent_of


@dataclass(frozen=True)
class Operation:
    """An ATen operation by its name, so that it can be pickled."""

    name: str
    overload: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(getattr(torch.ops.aten, self.name), self.overload)(*args, **kwargs)

    @property
    def __name__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Expression:
    """A function of one tensor: `function` applied to expressions and constants.

    An expression without function is the tensor itself. It can be called, hashed and pickled.
    """

    function: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    def __call__(self, x: Any) -> Any:
        if self.function is None:
            return x
        args = [arg(x) if isinstance(arg, Expression) else arg for arg in self.args]
        kwargs = {key: arg(x) if isinstance(arg, Expression) else arg for key, arg in self.kwargs}
        return self.function(*args, **kwargs)

    @property
    def __name__(self) -> str:
        if self.function is None:
            return "x"
        name = getattr(self.function, "__name__", type(self.function).__name__)
        args = [arg.__name__ if isinstance(arg, Expression) else f"{arg}" for arg in self.args]
        return f"{name}({', '.join(args + [f'{key}={value}' for key, value in self.kwargs])})"


@dataclass
class Storage:
    """Memory that several tensors share; each change in place counts one more version."""

    version: int = 0


#: Mode ("lowest" is −∞), and (before, after) along each axis of positions.
Padding = tuple[Any, tuple[tuple[int, int], ...]]


class PaddingError(ModelError):
    """What is done with padding is no mask of attention."""


@dataclass(eq=False)
class Signal:
    """A tensor computed from the model's input.

    Attributes:
        position: of the graph's node whose value it shows; None while it is only known as an expression.
        shape: of that value.
        layout: of its dimensions over that value.
        root: the node of which it is a function entry by entry.
        expression: that function.
        slope: the factor, where the function is a multiplication by a number.
        padding: put around the node's value and not yet taken up by a convolution.
        storage, version: the memory, and its version when this tensor was made.
        name: for the node of an expression.
        laid: what gave it its layout, for the node of channels in another order.
        square_of: the tensor that it is the square of, where it was made as one.
    """

    position: int | None
    shape: Shape
    layout: Layout
    root: int
    expression: Expression = Expression()
    slope: float | None = 1.0
    padding: Padding | None = None
    storage: Storage = field(default_factory=Storage)
    version: int = 0
    name: str = ""
    laid: str = ""
    square_of: Signal | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's shape, the batch included."""
        sizes = tuple(map(extent_of, self.layout))
        if self.padding is None:
            return sizes
        around = ((0, 0), (0, 0), *self.padding[1])
        return tuple(n + sum(pads) for n, pads in zip(sizes, around, strict=True))

    @property
    def is_fixed(self) -> bool:
        """Whether it has no dimension of inputs: all have the same value."""
        return not any(factor.axis == BATCH for dimension in self.layout for factor in dimension)

    def sharing(self, other: Signal) -> Signal:
        """The same value in the memory of `other`."""
        return replace(self, storage=other.storage, version=other.storage.version)


class Lazy:
    """A tensor computed from the input that is part of something to be recognised as a whole."""

    #: Whether operations with what is said of padding are read here.
    takes_padding = False

    def read(self, recorder: Any, name: str, given: dict[str, Any]) -> Any:
        """The value of an operation with it; NotImplemented where it is to be settled first."""
        return NotImplemented

    def settled(self, recorder: Any) -> Signal:
        """The tensor that it is by itself.

        Raises:
            ModelError: it is none that can be read.
        """
        raise recorder.refuse("takes a part of something that cannot be read")


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the input.

    Attributes:
        tensor: its value.
        parameters: names of the model's parameters that it is computed from.
        parameter: the name of the parameter that it is, "" where it is computed.
        unmasked: the parameter that it is under a mask of zeros and ones, and that mask.
        known: of what is computed from what the model is told of padding: `tensor` is its value for patterns
            of padding (`Recorder.told`), and this what it is where nothing is padding.
    """

    tensor: torch.Tensor
    parameters: frozenset[str] = frozenset()
    parameter: str = ""
    unmasked: tuple[Constant, Constant] | None = None
    known: torch.Tensor | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def is_zero(self) -> bool:
        """Whether it is a tensor of zeros from no parameter."""
        return not self.parameters and not bool(self.tensor.any())


@dataclass(frozen=True, eq=False)
class Mask:
    """A tensor of random numbers: `scale` with probability `kept`, else 0, independent entries.

    Attributes:
        uniform: instead, uniform numbers between `kept` and `kept` + 1, of which floor makes such a mask.
    """

    sizes: tuple[int, ...]
    kept: float
    scale: float = 1.0
    uniform: bool = False


@dataclass(frozen=True, eq=False)
class Unreadable:
    """A tensor that no reader can make; an error once something that counts is computed from it.

    Attributes:
        storage: the memory that it may show a part of, if that is another tensor's.
    """

    error: ModelError
    storage: Storage | None = None
