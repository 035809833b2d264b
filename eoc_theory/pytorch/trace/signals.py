"""The values that flow through a model while it is traced: shapes and origins instead of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...layers import Shape


@dataclass(frozen=True)
class Expression:
    """A torch function of one tensor: `function` applied to expressions and constants.

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


@dataclass(eq=False)
class Signal:
    """A tensor of the traced model.

    Attributes:
        position: of the graph's node whose value it is; None while it is only known as an expression.
        shape: of that value.
        root: the node of which it is a function entry by entry.
        expression: that function.
        slope: the factor, where the function is a multiplication by a number.
        hidden: axes of positions, each of extent 1, that the tensor no longer has.
        merged: whether its axes of positions are one.
        padding: mode and (before, after) along each axis of positions, put around the node's value and not
            yet taken up by a convolution.
        storage, version: the memory, and its version when this tensor was made.
        name: for the node of an expression.
    """

    position: int | None
    shape: Shape
    root: int
    expression: Expression = Expression()
    slope: float | None = 1.0
    hidden: frozenset[int] = frozenset()
    merged: bool = False
    padding: tuple[str, tuple[tuple[int, int], ...]] | None = None
    storage: Storage = field(default_factory=Storage)
    version: int = 0
    name: str = ""

    @property
    def space(self) -> tuple[int, ...]:
        """Extent of every axis of positions, padding included."""
        if self.padding is None:
            return self.shape.space
        return tuple(n + sum(pad) for n, pad in zip(self.shape.space, self.padding[1], strict=True))

    @property
    def axes(self) -> list[int]:
        """The axes of positions that the tensor has."""
        return [axis for axis in range(len(self.shape.space)) if axis not in self.hidden]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's shape without its batch dimension."""
        if self.merged:
            return (self.shape.channels, math.prod(self.space))
        return (self.shape.channels, *(self.space[axis] for axis in self.axes))

    def take(self, other: Signal) -> None:
        """Become `other`, in the same memory: what an operation in place does."""
        for key in (
            "position",
            "shape",
            "root",
            "expression",
            "slope",
            "hidden",
            "merged",
            "padding",
            "name",
        ):
            setattr(self, key, getattr(other, key))
        self.storage.version += 1
        self.version = self.storage.version


@dataclass(frozen=True)
class Zeros:
    """A tensor of zeros; its shape without the batch dimension."""

    sizes: tuple[int, ...]
