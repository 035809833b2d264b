"""The nodes of a graph while a model is read, and where in the model it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ...activations import Activation, activation, catalogue
from ...base import checks
from ...errors import ActivationError, ModelError
from ...layers import Input, Layer, Nonlinearity, Pad, Shape
from ...networks.graph import Node
from ..activations import from_torch
from . import layout as lay
from .layout import BATCH, Layout
from .values import Constant, Expression, Lazy, Mask, Signal
from .weights import Weights


class Nodes:
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
        inputs: nodes of vectors of token numbers that are the model's inputs; `absent` are those that it is
            read without, by node.
        patterns: whether what tells a token number from others is read as what is said of padding; else the
            number is taken to be absent.
        told: what says which tokens are padding (`known.Told`).
        known: laws of parameters without values, by their names (`weightless`).
        only_structure: whether what is added to signals may have any mean.
        ranked: names of the weights that pruning ranks.
        gathered: positions of values in another order, by node, extents and order.
        looked_up: tokens' rows of tables, by the tables' names.
        rotations: angles of what has been found to be rotations, by what they do.
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
        self.inputs: set[int] = set()
        self.absent: dict[int, set[int]] = {}
        self.patterns = False
        self.told: dict[Any, Any] = {}
        self.known: Mapping[str, Any] = {}
        self.only_structure = False
        self.ranked: frozenset[str] = frozenset()
        self.gathered: dict[tuple[int, tuple[int, ...], bytes], Signal] = {}
        self.looked_up: dict[str, tuple[int, Signal]] = {}
        self.rotations: dict[Any, Any] = {}
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

    def text(self, signal: Any) -> str:
        """A tensor's shape for messages, the batch as B."""
        sizes = list(map(str, signal.sizes))
        if isinstance(signal, Signal) and signal.layout[:1] == (lay.whole(BATCH, self.batch),):
            sizes[0] = "B"
        return f"({', '.join(sizes)})"

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
