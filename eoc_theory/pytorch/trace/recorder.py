"""Collects the graph's nodes while a model is read: layouts of tensors, and functions entry by entry."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from ...base.isolation import converted
from ...layers import (
    ChannelShuffle,
    FixedValue,
    Flatten,
    Input,
    Matrix,
    Nonlinearity,
    Shape,
    Sum,
    Transpose,
)
from ...networks.graph import Node
from . import layout as lay
from . import positions
from .layout import BATCH, CHANNELS, EXPANDED, Layout
from .nodes import Nodes, describe
from .values import Constant, Expression, Operation, Signal

__all__ = ["Recorder", "describe"]


class Recorder(Nodes):
    """The nodes so far, and what tensors in their layouts become."""

    # --- layouts ---

    def settled(self, signal: Any) -> Signal:
        """The tensor with its channels in the order of a graph's value, where one dimension has them all."""
        signal = positions.deepened(self, self.check(signal))
        for dimension in signal.layout:
            if lay.axis_of(dimension) == CHANNELS and len(dimension) > 1:
                if lay.extent_of(dimension) == signal.shape.channels:
                    return self._shuffled(signal, dimension)
        return signal

    def _shuffled(self, signal: Signal, dimension: lay.Dimension) -> Signal:
        """Its channels put into the order in which the dimension has them."""
        by_stride = sorted(dimension, key=lambda factor: -factor.stride)
        order = tuple(by_stride.index(factor) for factor in dimension)
        layer = ChannelShuffle(self.unique(signal.laid or self.here), tuple(f.size for f in by_stride), order)
        made = self.add(layer, self.position(signal))
        natural = lay.whole(CHANNELS, signal.shape.channels)
        # The tensor itself is so from now on: others that take it need no node of their own.
        signal.layout = tuple(natural if d is dimension else d for d in signal.layout)
        signal.position, signal.root, signal.slope = made.position, made.root, made.slope
        signal.expression = made.expression
        return signal

    def transposed(self, signal: Signal, space: tuple[int, ...] | None = None) -> Signal:
        """The tensor with its positions as the channels of a graph's value, its channels as the positions.

        Args:
            space: extents of the new positions; None: one axis.

        Raises:
            ModelError: its dimensions are no such two, and the batch.
        """
        places, channels = self._all_positions(signal.shape), lay.whole(CHANNELS, signal.shape.channels)
        batch = lay.whole(BATCH, self.batch)
        if {*signal.layout, ()} != {batch, places, channels, ()} or signal.layout.count(()) > (
            len(signal.layout) - 3 + (not places) + (not channels)
        ):  # fmt: skip
            raise self.refuse(f"takes tokens, got a tensor of shape {self.text(signal)}")
        layer = Transpose(self.unique(signal.laid or self.here), space or (signal.shape.channels,))
        made = self.add(layer, self.position(signal))
        new = {
            places: lay.whole(CHANNELS, made.shape.channels),
            channels: self._all_positions(made.shape),
            batch: batch,
        }
        return replace(made, layout=tuple(new.get(dimension, ()) for dimension in signal.layout))

    def given(self, value: Constant, *, channels_last: bool) -> Signal | None:
        """Numbers (1 or B, channels, *positions), the same for every input, as a node's value.

        With `channels_last` (1 or B, *positions, channels), or without the first of these dimensions.
        """
        tensor = value.tensor.detach().double()
        if tensor.dim() < (2 if channels_last else 3):
            return None
        alike = tensor.shape[0] in (1, self.batch) and bool((tensor == tensor[:1]).all())
        first: lay.Dimension | None = lay.whole(BATCH, tensor.shape[0])
        if channels_last and (tensor.dim() < 3 or not alike):
            tensor, alike, first = tensor[None], True, None
        if not alike:
            return None
        tensor = tensor.movedim(-1, 1) if channels_last else tensor
        table = Matrix.of(tensor[0].flatten(1).numpy())
        made = self.add(FixedValue(self.label(), table, tuple(tensor.shape[2:])), 0)
        own, *space = made.layout[1:]
        rest = [*space, own] if channels_last else [own, *space]
        return replace(made, layout=tuple(rest if first is None else [first, *rest]))

    def batched(self, signal: Signal) -> Signal:
        """A tensor that is the same for all inputs, as one for each of them."""
        if not signal.is_fixed or signal.layout[:1] != ((),):
            return signal
        return replace(signal, layout=(lay.whole(BATCH, self.batch), *signal.layout[1:]))

    def upright(self, signal: Signal) -> Signal:
        """The tensor with positions as its channels, where it has one channel and these in their place."""
        every = self._all_positions(signal.shape)
        if signal.shape.channels > 1 or not every or len(signal.layout) < 2 or signal.layout[1] != every:
            return signal
        return self.transposed(signal)

    def _all_positions(self, shape: Shape) -> lay.Dimension:
        """All positions as one dimension."""
        return lay.joined([f for axis, n in enumerate(shape.space, 1) for f in lay.whole(axis, n)])

    def alike(self, first: Signal, second: Signal, *, spread: bool = False) -> tuple[Signal, Signal]:
        """Two tensors with their channels and positions laid out alike, where one has to be moved for that.

        With `spread` one of extent 1 along positions is repeated over the other's.
        """
        first, second = self.settled(first), self.settled(second)
        if first.is_fixed != second.is_fixed and len(first.layout) == len(second.layout):
            first, second = self.batched(first), self.batched(second)
        if first.layout == second.layout and first.shape == second.shape:
            return first, second
        swapped = Shape(first.shape.positions, (first.shape.channels,))
        if positions.have_channels_alike(first, second):
            # As many channels as positions are no channels in the place of positions.
            return (
                self._moved_alike(first, second) if spread or first.sizes == second.sizes else (first, second)
            )
        if (
            second.shape == swapped
            and len(second.layout) == 3
            and self.position(second) > self.position(first) > 0
        ):
            return first, self.transposed(second, first.shape.space)
        if first.shape == Shape(second.shape.positions, (second.shape.channels,)) and len(first.layout) == 3:
            return self.transposed(first, second.shape.space), second
        return self._moved_alike(first, second) if spread or first.sizes == second.sizes else (first, second)

    def _moved_alike(self, first: Signal, second: Signal) -> tuple[Signal, Signal]:
        """Positions of the later value in the order of the earlier one's, or of the smaller one's."""
        wider = first.shape.positions - second.shape.positions
        if wider > 0 or (wider == 0 and (second.position or 0) >= (first.position or 0)):
            return first, positions.like(self, second, first) or second
        return positions.like(self, first, second) or first, second

    def image(self, signal: Any) -> int:
        """The node of a tensor (batch, channels, *positions); the input is taken in the shape it is given."""
        signal = self.batched(self.settled(signal))
        if signal.padding is not None:
            return self.position(signal)
        if signal.layout == self.standard(signal.shape):
            return self.position(signal)
        if self._reshape_input(signal):
            return 0
        moved = positions.as_image(self, signal) or self._of_swapped(signal)
        if moved is not None:
            return self.position(moved)
        raise self.refuse(
            f"takes a tensor of shape (B, channels, positions), got one of shape {self.text(signal)} whose "
            "dimensions lie otherwise"
        )

    def _of_swapped(self, signal: Signal) -> Signal | None:
        """A tensor (batch, positions, channels) with its channels as the positions; None where it is none."""
        own = [lay.axis_of(dimension) for dimension in signal.layout[1:]]
        if len(own) != 2 or own[1] != CHANNELS or own[0] == CHANNELS:
            return None
        return self.transposed(signal)

    def unpadded(self, signal: Any) -> tuple[int, Any]:
        """The node with a tensor's value (batch, channels, *positions) before padding, and the padding."""
        signal = self.check(signal)
        if signal.padding is None:
            return self.image(signal), None
        return self._materialise(signal), signal.padding

    def _reshape_input(self, signal: Signal) -> bool:
        """Take the input as an image instead of a vector, if nothing else has been computed yet."""
        batch, *rest = signal.sizes
        if signal.position != 0 or len(self.nodes) > 1 or batch != self.batch or not rest:
            return False
        order = [factor for dimension in signal.layout for factor in dimension]
        if lay.joined(order) != lay.joined([f for d in self.standard(signal.shape) for f in d]):
            return False
        shape = Shape(rest[0], tuple(rest[1:]))
        self.nodes[0] = Node(Input("input", shape))
        self.shapes[0] = shape
        return True

    def relaid(self, signal: Signal, layout: Layout) -> Signal:
        """The tensor in another layout; one of vectors is flattened."""
        batch = lay.whole(BATCH, self.batch)
        repeated = any(factor.axis == EXPANDED for dimension in layout for factor in dimension)
        if repeated and len(layout) < 4:
            raise self.refuse("takes repeated entries, which are read in the heads of attention only")
        if len(layout) == 2 and layout[0] == batch and signal.shape.space:
            if signal.padding is not None:
                self.position(signal)
            made = self.add(Flatten(self.label()), self.position(signal))
            return replace(made, layout=(batch, lay.flat(layout[1], signal.shape)), laid=self.here)
        if signal.padding is not None:
            self.position(signal)
        return replace(signal, layout=layout, laid=self.here)

    # --- functions entry by entry ---

    def nonlinearity(self, signal: Any, module: torch.nn.Module) -> Signal:
        """A known activation of a tensor; after another one, of what that one takes."""
        signal = self.check(signal)
        expression = Expression(_Frozen(module), (signal.expression,))
        if signal.position is None:
            return self._deferred(signal, expression)
        position, act = self.position(signal), None
        if signal.slope is None and signal.root != position:
            position, act = signal.root, self.activation_of(expression)
        made = self.add(Nonlinearity(self.label(), act or self.activation_of(module)), position)
        return replace(made, root=signal.root, expression=expression, slope=None, layout=signal.layout)

    def scaled(self, signal: Any, factor: float) -> Signal:
        """A multiplication by a number."""
        signal = self.check(signal)
        if not math.isfinite(factor):
            raise self.refuse(f"takes finite numbers, got {factor}")
        if factor == 1.0:
            return signal
        expression = Expression(torch.mul, (signal.expression, factor))
        if signal.position is None:
            return self._deferred(signal, expression)
        made = self.add(Sum(self.label(), (factor,)), self.position(signal))
        slope = None if signal.slope is None else factor * signal.slope
        return replace(made, root=signal.root, expression=expression, slope=slope, layout=signal.layout)

    def elementwise(self, *args: Any, **kwargs: Any) -> Signal:
        """The operation at hand, of tensors that are themselves functions of one node's value entry by entry.

        Raises:
            ModelError: they are functions of several nodes' values.
        """
        signals = [self.check(a) for a in (*args, *kwargs.values()) if isinstance(a, Signal)]
        if not signals:
            raise self.refuse("takes tensors computed from the input")
        first = signals[0]
        for signal in signals[1:]:
            if signal.root != first.root or signal.layout != first.layout:
                raise self.refuse(
                    f"tensors of shapes {self.text(first)} and {self.text(signal)} that come from different "
                    "layers may be added, subtracted, multiplied and concatenated, nothing else"
                )
        if any(signal.padding is not None for signal in signals):
            self.position(first)
        schema = self.target._schema
        function = Operation(
            schema.name.partition("::")[2].rstrip("_"), self.target._overloadname or "default"
        )
        expression = Expression(
            function, tuple(map(self._operand, args)), tuple((k, self._operand(v)) for k, v in kwargs.items())
        )
        made = self._deferred(first, expression)
        if _squares(function.name, args):
            made.square_of = first
        return made

    def _operand(self, value: Any) -> Any:
        if isinstance(value, Signal):
            return value.expression
        if isinstance(value, Constant) and value.tensor.numel() == 1:
            return value.tensor.detach().item()
        if not isinstance(value, (int, float, str, bool, type(None))):
            raise self.refuse(f"takes numbers beside the tensor, got {describe(value)}")
        return value

    def _deferred(self, signal: Signal, expression: Expression) -> Signal:
        return Signal(None, signal.shape, signal.layout, signal.root, expression, None, name=self.label())

    def sum(self, terms: list[tuple[Any, float]]) -> Signal:
        """Σ factor · tensor."""
        (first, a), (second, b) = terms
        first, second = self.alike(first, second, spread=True)
        signals = [(first, a), (second, b)]
        if first.layout != second.layout:
            raise self.refuse(
                f"adds tensors of shapes {self.text(first)} and {self.text(second)} whose channels or "
                "positions do not lie alike"
            )
        if first.root == second.root and (first.slope is None or second.slope is None):
            # One function of one value, e.g. x + sin(x): the two terms are not independent.
            left = Expression(torch.mul, (first.expression, a)) if a != 1.0 else first.expression
            right = Expression(torch.mul, (second.expression, b)) if b != 1.0 else second.expression
            return self._deferred(first, Expression(torch.add, (left, right)))
        coefficients: dict[int, float] = {}
        for signal, factor in signals:
            position = self.position(signal)
            layer = self.nodes[position].layer
            while isinstance(layer, Sum) and len(layer.coefficients) == 1:
                (position,), factor = self.nodes[position].inputs, factor * layer.coefficients[0]
                layer = self.nodes[position].layer
            coefficients[position] = coefficients.get(position, 0.0) + factor
        made = self.add(Sum(self.label(), tuple(coefficients.values())), *coefficients)
        if len(coefficients) > 1:
            return replace(made, layout=first.layout)
        ((position, factor),) = coefficients.items()
        expression = Expression(torch.mul, (Expression(), factor))
        return replace(made, root=position, slope=factor, expression=expression, layout=first.layout)


def _squares(name: str, args: tuple[Any, ...]) -> bool:
    """Whether an operation makes the square of its first argument."""
    base, exponent = (*args, None, None)[:2]
    return name == "square" or (name == "pow" and isinstance(exponent, (int, float)) and exponent == 2) or (
        name == "mul" and exponent is base
    )  # fmt: skip


class _Frozen:
    """A module's function, without parameters' gradients, equal to that of the same module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = converted(module, "cpu", torch.float64).model.eval()
        self.__name__ = type(module).__name__.lower()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x.clone())  # a module that works in place would change x for other terms

    def _key(self) -> tuple[Any, ...]:
        settings = {k: v for k, v in self.module.__dict__.items() if isinstance(v, (int, float, str))}
        tensors = [float(p.detach().sum()) for p in self.module.parameters()]
        return type(self.module), tuple(sorted(settings.items())), tuple(tensors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())
