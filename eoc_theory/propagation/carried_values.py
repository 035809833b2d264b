"""Values of sampled networks beyond the range of floats: each node carries a power of two beside its values.

Where a value leaves the range it is divided by a power of two, which every linear or positively homogeneous
layer passes on. Biases are then added in the value's own unit, sums and concatenations made in that of their
largest input, and any other activation acts as its limit (`signal_limits`). A normalisation takes the scale
out. Ordinary values have the exponent 0, and nothing is different for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..activations import Activation
from ..layers import Layer, Nonlinearity, Weighted
from ..layers.sampled_weights import Draw
from ..networks.graph import Node
from ..signals.limits import WINDOW, limit

Array = np.ndarray

#: Powers of two of values that double precision holds with their squares' sums.
_HELD = 430


class OutOfRangeError(Exception):
    """Values beyond what the precision holds."""


@dataclass(frozen=True)
class Value:
    """values · 2^exponent."""

    values: Array
    exponent: int = 0

    def within(self, exponent: int) -> Value:
        """The same in the unit 2^exponent; what is far below vanishes."""
        if exponent == self.exponent:
            return self
        power = self.exponent - exponent
        if power > 0 and self.power + power > 1000:
            raise OutOfRangeError
        return Value(np.ldexp(self.values, max(power, -4000)), exponent)

    @property
    def power(self) -> float:
        """log₂ of the root mean square of `values` alone, −inf where all are 0."""
        peak = float(np.abs(self.values).max(initial=0.0))
        if not math.isfinite(peak):
            raise OutOfRangeError
        if peak == 0.0:
            return -math.inf
        return math.log2(peak) + 0.5 * math.log2(float(np.mean(np.square(self.values / peak))))

    def normalised(self) -> Value:
        """The same in a unit near the values."""
        power = self.power
        return self if power == -math.inf else self.within(self.exponent + math.floor(power))


@dataclass(frozen=True)
class Passage:
    """How a node's value was made, for the backward pass and for doing it again.

    Attributes:
        layer: what acted, the node's own or what it is at that scale.
        memory: what the layer keeps; None where `source` tells it.
        inputs: exponents that it saw its inputs in.
        made: exponent of what came out of it.
        exponent: exponent in which it is passed on.
        source: what a ReLU saw, where a normalisation before it keeps that anyway, and of a layer with
            weights what the ReLU before it saw.
        weights: of such a layer.
    """

    layer: Layer
    memory: Any
    inputs: tuple[int, ...]
    made: int
    exponent: int
    source: Array | None = None
    weights: Array | None = None

    def kept(self) -> Any:
        """The layer's memory."""
        if self.source is None:
            return self.memory
        if self.weights is None:
            return self.source > 0
        return self.weights, np.maximum(self.source, 0)

    def lean(self, value: Value, before: Passage | None) -> Passage:
        """The same, without what the node before, which made `value`, keeps as well: half of a network's
        memory.
        """
        if before is None or self.exponent or self.made or self.inputs != (0,):
            return self
        act = self.layer.nonlinearity
        if act is not None:
            is_relu = act.slopes == (0.0, 1.0)
            if is_relu and before.layer.normalises and _holds(before.memory, value.values):
                return replace(self, memory=None, source=value.values)
        elif self.layer.weighted is not None and before.layer.nonlinearity is not None:
            if before.source is not None:
                return replace(self, memory=None, source=before.source, weights=self.memory[0])
        return self


def _holds(memory: Any, values: Array) -> bool:
    """Whether the memory of a normalisation is these very values."""
    start = values.__array_interface__["data"][0]
    return isinstance(memory, tuple) and any(
        isinstance(part, np.ndarray)
        and part.size == values.size
        and part.__array_interface__["data"][0] == start
        for part in memory
    )


def pass_forwards(node: Node, inputs: Sequence[Value], draw: Draw) -> tuple[Value, Passage]:
    """A node's value, of values of any scale in double precision.

    Raises OutOfRangeError where a layer has no counterpart at that scale.
    """
    ordinary = all(one.exponent == 0 for one in inputs)
    layer, given, made = (node.layer, inputs, 0) if ordinary else _in_unit(node.layer, inputs)
    exponents = tuple(one.exponent for one in given)
    values, memory = layer.forward_values([one.values for one in given], draw)
    return Value(values, made), Passage(layer, memory, exponents, made, made)


def pass_again(passage: Passage, inputs: Sequence[Value], draw: Draw) -> tuple[Value, Passage]:
    """`pass_forwards` for slightly different inputs, with the same units, gates and choices."""
    given = [one.within(exponent).values for one, exponent in zip(inputs, passage.inputs, strict=True)]
    values, memory = passage.layer.repeat_values(given, draw, passage.kept())
    value = Value(values, passage.made).within(passage.exponent)
    return value, Passage(passage.layer, memory, passage.inputs, passage.made, passage.exponent)


def _in_unit(layer: Layer, inputs: Sequence[Value]) -> tuple[Layer, list[Value], int]:
    """What acts, on which inputs, and the exponent of what comes out."""
    alive = [one.exponent for one in inputs if one.values.any()]
    exponent = max(alive, default=0)
    given = [one.within(exponent) if one.values.any() else Value(one.values, exponent) for one in inputs]
    if layer.weighted is not None:
        return _biased(layer.weighted, given[0])
    if layer.is_homogeneous:
        return layer, given, exponent
    total = given[0].power + exponent
    if layer.nonlinearity is not None:
        return _activated(layer, layer.nonlinearity, given[0], total)
    if abs(total) <= _HELD:
        return layer, [given[0].within(0)], 0
    if layer.normalises and total > 0:
        # The number added to the variance is nothing beside it.
        return layer.in_unit(exponent), given, 0
    raise OutOfRangeError


def _biased(layer: Weighted, x: Value) -> tuple[Layer, list[Value], int]:
    sigma_b = layer.weight.sigma_b
    if sigma_b == 0.0:
        return layer, [x], x.exponent
    # In a unit in which biases are ordinary numbers; where the signal is larger they may vanish.
    unit = max(x.exponent, math.frexp(sigma_b)[1])
    unit = 0 if unit <= 0 and abs(math.frexp(sigma_b)[1]) <= _HELD else unit
    weight = replace(layer.weight, sigma_b=max(math.ldexp(sigma_b, -unit), np.finfo(float).tiny))
    return layer.with_weight(weight), [x.within(unit)], unit


def _activated(layer: Layer, act: Activation, x: Value, total: float) -> tuple[Layer, list[Value], int]:
    if act.is_homogeneous:
        return layer, [x], x.exponent
    if abs(2 * total) > WINDOW[1]:
        found = limit(act, large=total > 0)
        if found is not None:
            return Nonlinearity(layer.name, found), [x], x.exponent
    if not total <= _HELD:
        raise OutOfRangeError
    return layer, [x.within(0)], 0
