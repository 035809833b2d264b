"""Collects the graph's nodes while a model is read, and knows where in the model it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...activations import Activation, activation, catalogue
from ...base import checks
from ...base.isolation import converted
from ...errors import ActivationError, ModelError
from ...layers import ChannelShuffle, Flatten, Input, Layer, Nonlinearity, Pad, Shape, Sum, Transpose
from ...networks.graph import Node
from ..activations import from_torch
from . import layout as lay
from .layout import BATCH, CHANNELS, EXPANDED, Layout
from .values import Constant, Expression, Lazy, Mask, Operation, Signal
from .weights import Weights


class Recorder:
    """The nodes so far.

    Attributes:
        nodes, shapes: of the graph, each with its value's shape.
        weights: by the layers' names.
        batch: size of the batch dimension of every tensor.
        kind: the model's class.
        memory: addresses of the memory of the model's own tensors.
        parameters: the model's, by their names.
        opaque: modules that are one operation each (`Opaque`).
        activations: those of them that may be activations, by their numbers, with why they were not followed.
        path, module: name and class of the module that is being called; "" is the model.
        in_leaf: whether that is a module of torch's own with a forward pass of its own.
        operation, target: the ATen operation that is being read, its name as users know it and itself.
        once: whether the tensor that it takes is used by nothing else.
        takes_tokens: whether the model's input is token numbers.
        known: laws of parameters without values, by their names (`weightless`).
    """

    def __init__(self, shape: Shape, batch: int, kind: str) -> None:
        self.nodes: list[Node] = [Node(Input("input", shape))]
        self.shapes: list[Shape] = [shape]
        self.weights: dict[str, Weights] = {}
        self.batch = batch
        self.kind = kind
        self.memory: frozenset[int] = frozenset()
        self.parameters: Mapping[str, torch.Tensor] = {}
        self.opaque: Any = None
        self.activations: dict[int, str] = {}
        self.path, self.module, self.in_leaf = "", kind, False
        self.operation = ""
        self.target: Any = None
        self.once = False
        self.takes_tokens = False
        self.known: Mapping[str, Any] = {}
        self._names: Counter[str] = Counter({"input": 1})
        self._activations: dict[Any, Activation] = {}

    # --- where ---

    @property
    def place(self) -> str:
        """The module that is being called, for error messages."""
        return f"module {self.path!r} ({self.module})" if self.path else f"the model ({self.kind})"

    def refuse(self, problem: str) -> ModelError:
        """The error of something that cannot be read; `problem` begins with what it concerns."""
        if self.in_leaf:
            return ModelError(f"{self.place}: {problem}")
        return ModelError(f"function {self.operation!r} in {self.place}: {problem}")

    def label(self, owner: str = "") -> str:
        """A name for the next node that no other node has: that of the parameters' `owner`, if any."""
        return self.unique(owner or self.here)

    @property
    def here(self) -> str:
        """The operation that is being read: that of a module of torch's own is the module."""
        if self.in_leaf:
            return self.path or self.operation
        return f"{self.path}.{self.operation}" if self.path else self.operation

    def law_of(self, value: Constant) -> Any:
        """The law of a parameter without values, or of one that is the same in another order; else None."""
        names = [name for name in value.parameters if name in self.known]
        return self.known[names[0]] if len(names) == len(value.parameters) == 1 else None

    def unique(self, name: str) -> str:
        """`name`, with a number after it where it has been given before."""
        self._names[name] += 1
        count = self._names[name]
        return name if count == 1 else f"{name}#{count}"

    # --- nodes ---

    def add(self, layer: Layer, *inputs: int) -> Signal:
        """The value of a new node."""
        shape = layer.output_shape(*(self.shapes[source] for source in inputs))
        self.nodes.append(Node(layer, inputs))
        self.shapes.append(shape)
        position = len(self.nodes) - 1
        return Signal(position, shape, self.standard(shape), position)

    def standard(self, shape: Shape) -> Layout:
        """The layout of a graph's value of that shape."""
        return lay.standard(self.batch, shape)

    def check(self, signal: Any) -> Signal:
        """`signal`, if it is a tensor computed from the input that still has its value.

        Raises:
            ModelError: it is something else, or its memory was changed through another tensor.
        """
        if isinstance(signal, Lazy):
            signal = signal.settled(self)
        if not isinstance(signal, Signal):
            raise self.refuse(f"takes a tensor computed from the input, got {describe(signal)}")
        if signal.version != signal.storage.version:
            raise self.refuse("takes a tensor that was changed in place through another view of its memory")
        return signal

    def position(self, signal: Any) -> int:
        """The node whose value the tensor shows, in whatever layout; made now for an expression."""
        signal = self.check(signal)
        if signal.padding is not None:
            mode, pads = signal.padding
            if mode == "lowest":
                raise self.refuse("−∞ around an image is read only where a maximum takes it next")
            made = self.add(Pad(self.unique(signal.laid), pads, mode), self._materialise(signal))
            signal.position, signal.shape, signal.layout = made.position, made.shape, made.layout
            signal.root, signal.padding = made.root, None
            signal.expression, signal.slope = made.expression, made.slope
        return self._materialise(signal)

    def _materialise(self, signal: Signal) -> int:
        if signal.position is None:
            shape = self.shapes[signal.root]
            made = self.add(Nonlinearity(signal.name, self.activation_of(signal.expression)), signal.root)
            signal.position, signal.shape = made.position, shape
        assert signal.position is not None
        return signal.position

    def node_of(self, signal: Signal) -> int:
        """As `position`, padding or not."""
        return self._materialise(self.check(signal))

    def settled(self, signal: Any) -> Signal:
        """The tensor with its channels in the order of a graph's value, where one dimension has them all."""
        signal = self.check(signal)
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
        positions, channels = self._all_positions(signal.shape), lay.whole(CHANNELS, signal.shape.channels)
        batch = lay.whole(BATCH, self.batch)
        if set(signal.layout) != {batch, positions, channels} or len(signal.layout) != 3:
            raise self.refuse(f"takes tokens, got a tensor of shape {self.text(signal)}")
        layer = Transpose(self.unique(signal.laid or self.here), space or (signal.shape.channels,))
        made = self.add(layer, self.position(signal))
        new = {
            positions: lay.whole(CHANNELS, made.shape.channels),
            channels: self._all_positions(made.shape),
            batch: batch,
        }
        return replace(made, layout=tuple(new[dimension] for dimension in signal.layout))

    def _all_positions(self, shape: Shape) -> lay.Dimension:
        """All positions as one dimension."""
        return lay.joined([f for axis, n in enumerate(shape.space, 1) for f in lay.whole(axis, n)])

    def alike(self, first: Signal, second: Signal) -> tuple[Signal, Signal]:
        """Two tensors with their channels and positions laid out alike, where one has to be transposed."""
        first, second = self.settled(first), self.settled(second)
        if first.layout == second.layout or first.sizes != second.sizes:
            return first, second
        swapped = Shape(first.shape.positions, (first.shape.channels,))
        if (
            second.shape == swapped
            and len(second.layout) == 3
            and self.position(second) > self.position(first) > 0
        ):
            second = self.transposed(second, first.shape.space)
        elif (
            first.shape == Shape(second.shape.positions, (second.shape.channels,)) and len(first.layout) == 3
        ):
            first = self.transposed(first, second.shape.space)
        return first, second

    def image(self, signal: Any) -> int:
        """The node of a tensor (batch, channels, *positions); the input is taken in the shape it is given."""
        signal = self.settled(signal)
        if signal.padding is not None:
            return self.position(signal)
        if signal.layout == self.standard(signal.shape):
            return self.position(signal)
        if self._reshape_input(signal):
            return 0
        raise self.refuse(
            f"takes a tensor of shape (B, channels, positions), got one of shape {self.text(signal)} whose "
            "dimensions lie otherwise"
        )

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

    def text(self, signal: Any) -> str:
        """A tensor's shape for messages, the batch as B."""
        sizes = list(map(str, signal.sizes))
        if isinstance(signal, Signal) and signal.layout[:1] == (lay.whole(BATCH, self.batch),):
            sizes[0] = "B"
        return f"({', '.join(sizes)})"

    # --- functions entry by entry ---

    def activation_of(self, function: Any) -> Activation:
        """The activation of a module or of an expression, a built-in where one has the same values."""
        key = function if isinstance(function, Expression) else id(function)
        if key not in self._activations:
            try:
                if isinstance(function, torch.nn.Module):
                    found = activation(function)
                else:
                    found = _built_in(function) or from_torch(function)
            except ActivationError as error:
                raise self.refuse(str(error)) from error
            if not isinstance(function, Expression):
                return found
            self._activations[key] = found
        return self._activations[key]

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
        return self._deferred(first, expression)

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
        first, second = self.alike(first, second)
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


def describe(value: Any) -> str:
    """What an argument is, in a few words."""
    if isinstance(value, Constant):
        kind = "a parameter" if value.parameter else "a tensor"
        return f"{kind} of shape {value.sizes}" if value.sizes else f"{kind} of one number"
    if isinstance(value, Signal):
        return f"a tensor of shape ({', '.join(map(str, value.sizes))})"
    if isinstance(value, Mask):
        return "random numbers"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = checks.shown(value)
    return text if len(text) < checks.LONGEST_VALUE else type(value).__name__


_POINTS = np.concatenate([np.linspace(-7.3, 7.9, 101), [-30.0, 25.0]])


def _built_in(function: Callable[[Any], Any]) -> Activation | None:
    """The built-in activation with the same values, if there is one."""
    with torch.no_grad():
        values = function(torch.tensor(_POINTS))
    if not isinstance(values, torch.Tensor) or values.dtype != torch.float64:
        return None
    for entry in catalogue.ENTRIES.values():
        known = catalogue.build(entry)
        with np.errstate(all="ignore"):
            same = np.allclose(known(_POINTS), values.numpy(), rtol=1e-9, atol=1e-12)
        if same:
            return known
    return None
