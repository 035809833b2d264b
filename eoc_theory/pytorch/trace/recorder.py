"""Collects the graph's nodes while a model is traced, and knows where in the model it is."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from ...activations import Activation, activation, catalogue
from ...base import checks
from ...base.isolation import converted
from ...errors import ActivationError, ModelError
from ...layers import Identity, Input, Layer, Nonlinearity, Shape, Sum
from ...networks.graph import Node
from ..activations import from_torch
from .signals import Expression, Signal, Zeros
from .weights import Weights


class Recorder:
    """The nodes so far.

    Attributes:
        nodes, shapes: of the graph, each with its value's shape.
        weights: by the layers' names.
        batch: size of the batch dimension of every tensor.
        kind: the model's class.
        note: what was assumed of the input, for errors.
        stack: names and types of the modules that are being called, outermost first.
        operation: the function, or the leaf module's name, that is being read.
    """

    def __init__(self, shape: Shape, batch: int, kind: str, note: str = "") -> None:
        self.nodes: list[Node] = [Node(Input("input", shape))]
        self.shapes: list[Shape] = [shape]
        self.weights: dict[str, Weights] = {}
        self.batch = batch
        self.note = note
        self.kind = kind
        self.stack: list[tuple[str, str]] = []
        self.operation = ""
        self.in_leaf = False
        self._names: Counter[str] = Counter({"input": 1})

    # --- where ---

    @property
    def place(self) -> str:
        """The module that is being called, for error messages."""
        name, kind = self.stack[-1] if self.stack else ("", self.kind)
        return f"module {name!r} ({kind})" if name else f"the model ({kind})"

    def refuse(self, problem: str) -> ModelError:
        """The error of something that cannot be read; `problem` begins with what it concerns."""
        if self.in_leaf:
            return ModelError(f"{self.place}: {problem}")
        return ModelError(f"function {self.operation!r} in {self.place}: {problem}")

    def label(self) -> str:
        """A name for the next node that no other node has."""
        path = self.stack[-1][0] if self.stack else ""
        name = path if self.in_leaf else f"{path}.{self.operation}" if path else self.operation
        return self.unique(name)

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
        return Signal(position, shape, position)

    def view(self, signal: Signal, made: Signal) -> Signal:
        """`made`, sharing the memory of `signal`."""
        made.storage, made.version = signal.storage, signal.storage.version
        return made

    def same(self, signal: Signal) -> Signal:
        """Another tensor with the value and the memory of `signal`, behind a node of its own."""
        position = self.position(signal)
        return self.view(signal, self.add(Identity(self.label()), position))

    def check(self, signal: Any) -> Signal:
        """`signal`, if it is a tensor of the model that still has its value.

        Raises:
            ModelError: it is something else, or its memory was changed through another tensor.
        """
        if not isinstance(signal, Signal):
            raise self.refuse(f"takes a tensor computed from the input, got {describe(signal)}")
        if signal.version != signal.storage.version:
            raise self.refuse("takes a tensor that was changed in place through another view of its memory")
        return signal

    def position(self, signal: Any) -> int:
        """The node with the tensor's value, made now where the tensor is an expression so far."""
        signal = self.check(signal)
        if signal.padding is not None:
            raise self.refuse("padded positions are read only where a convolution takes them next")
        if signal.hidden or signal.merged:
            raise self.refuse(f"takes tensors with all their axes, got one of shape {self.text(signal)}")
        return self._materialise(signal)

    def unpadded(self, signal: Any) -> tuple[int, tuple[str, tuple[tuple[int, int], ...]] | None]:
        """The node with the tensor's value before padding, and the padding."""
        signal = self.check(signal)
        if signal.padding is None:
            return self.position(signal), None
        return self._materialise(signal), signal.padding

    def pooled(self, signal: Any) -> int:
        """As `position`, for operations that know of axes the tensor no longer has."""
        signal = self.check(signal)
        if signal.padding is not None:
            return self.position(signal)
        return self._materialise(signal)

    def _materialise(self, signal: Signal) -> int:
        if signal.position is None:
            shape = self.shapes[signal.root]
            made = self.add(Nonlinearity(signal.name, self.activation_of(signal.expression)), signal.root)
            signal.position, signal.shape = made.position, shape
        assert signal.position is not None
        return signal.position

    def text(self, signal: Signal) -> str:
        """A tensor's shape for messages, the batch as B."""
        return f"({', '.join(['B', *map(str, signal.sizes)])})"

    # --- functions entry by entry ---

    def activation_of(self, function: Any) -> Activation:
        """The activation of a module or of an expression, a built-in where one has the same values."""
        try:
            if isinstance(function, torch.nn.Module):
                return activation(function)
            return _built_in(function) or from_torch(function)
        except ActivationError as error:
            raise self.refuse(str(error)) from error

    def nonlinearity(self, signal: Any, module: torch.nn.Module) -> Signal:
        """A known activation of a tensor."""
        signal = self.check(signal)
        expression = Expression(_Frozen(module), (signal.expression,))
        if signal.position is None:
            return self._deferred(signal, expression)
        made = self.add(Nonlinearity(self.label(), self.activation_of(module)), self.pooled(signal))
        made.root, made.expression, made.slope = signal.root, expression, None
        made.hidden, made.merged = signal.hidden, signal.merged
        return made

    def scaled(self, signal: Any, factor: float) -> Signal:
        """A multiplication by a number."""
        signal = self.check(signal)
        if not math.isfinite(factor):
            raise self.refuse(f"takes finite numbers, got {factor}")
        expression = Expression(torch.mul, (signal.expression, factor))
        if signal.position is None:
            return self._deferred(signal, expression)
        made = self.add(Sum(self.label(), (factor,)), self.pooled(signal))
        made.root, made.expression = signal.root, expression
        made.hidden, made.merged = signal.hidden, signal.merged
        made.slope = None if signal.slope is None else factor * signal.slope
        return made

    def elementwise(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Signal:
        """A function of tensors that are themselves functions of one node's value, entry by entry.

        Raises:
            ModelError: they are functions of several nodes' values.
        """
        signals = [self.check(a) for a in (*args, *kwargs.values()) if isinstance(a, Signal)]
        if not signals:
            raise self.refuse("takes tensors computed from the input")
        first = signals[0]
        for signal in signals[1:]:
            if signal.root != first.root or signal.sizes != first.sizes:
                raise self.refuse(
                    f"tensors of shapes {self.text(first)} and {self.text(signal)} that come from different "
                    "layers may be added, subtracted and concatenated, nothing else"
                )
        if any(signal.padding is not None for signal in signals):
            self.position(first)

        def operand(value: Any) -> Any:
            if isinstance(value, Signal):
                return value.expression
            value = number(value) if not isinstance(value, (bool, str, type(None))) else value
            if isinstance(value, (torch.Tensor, Zeros)) or not isinstance(
                value, (int, float, str, bool, type(None))
            ):
                raise self.refuse(f"takes numbers beside the tensor, got {describe(value)}")
            return value

        expression = Expression(
            function,
            tuple(operand(a) for a in args),
            tuple((key, operand(a)) for key, a in kwargs.items()),
        )
        return self._deferred(first, expression)

    def _deferred(self, signal: Signal, expression: Expression) -> Signal:
        return Signal(
            None, signal.shape, signal.root, expression, None, signal.hidden, signal.merged, name=self.label()
        )

    def sum(self, terms: list[tuple[Any, float]]) -> Signal:
        """Σ factor · tensor."""
        signals = [(self.check(signal), factor) for signal, factor in terms]
        (first, a), (second, b) = signals
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
        if len(coefficients) == 1:
            ((position, factor),) = coefficients.items()
            made.root, made.slope = position, factor
            made.expression = Expression(torch.mul, (Expression(), factor))
        return made

    def reshape_input(self, shape: Shape) -> Signal | None:
        """The input as an image instead of a vector, if nothing else has been computed yet."""
        if len(self.nodes) > 1 or shape.size != self.shapes[0].size:
            return None
        self.nodes[0] = Node(Input("input", shape))
        self.shapes[0] = shape
        return Signal(0, shape, 0)


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


def number(value: Any) -> Any:
    """A float for whatever holds one number, anything else unchanged."""
    if isinstance(value, (bool, np.bool_)):
        return value
    if isinstance(value, (int, float, np.integer, np.floating)):
        return float(value)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value.detach())
    if isinstance(value, np.ndarray) and value.size == 1:
        return float(value.item())
    return value


def whole_numbers(recorder: Recorder, values: Iterable[Any]) -> list[int]:
    """Python's integers for whatever counts as one, NumPy's among them."""
    values = list(values)
    try:
        return [operator.index(value) for value in values]
    except TypeError:
        raise recorder.refuse(f"takes whole numbers, got {describe(tuple(values))}") from None


def describe(value: Any) -> str:
    """What an argument is, in a few words."""
    if isinstance(value, torch.Tensor):
        kind = "a parameter" if isinstance(value, torch.nn.Parameter) else "a tensor"
        return f"{kind} of shape {tuple(value.shape)}"
    if isinstance(value, Signal):
        return f"a tensor of shape ({', '.join(['B', *map(str, value.sizes)])})"
    if isinstance(value, Zeros):
        return "zeros"
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
