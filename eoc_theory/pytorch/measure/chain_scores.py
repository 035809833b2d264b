"""Scores of a chain of Linear layers whose signals or gradients no floating-point format holds.

The same network and the same scores as in `eoc_theory.pytorch.measure.gradient_scores`, by matrices whose
power of two is carried apart. Where a signal has left the middle of double precision, an activation that is
not positively homogeneous acts as its limit there (`signal_limits`). Hess·g comes from Pearlmutter's forward
and backward derivatives along g (1994, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...activations import Activation, activation
from ...criteria.criterion import Criterion
from ...errors import EOCError, ModelError
from ...propagation.carried_values import OutOfRangeError, Value
from ...propagation.infinite_width import loss_gradient, softmax
from ...signals.limits import acting
from ..lazy import torch
from ..models import chain, is_linear_chain

Array = np.ndarray

#: Largest scores of a network that double precision holds with those that are much smaller.
HELD = (1e-250, 1e250)


@dataclass(frozen=True)
class ChainLayer:
    """A Linear layer's weights (N_out, N_in), biases (N_out,) or None, and the activation behind it."""

    name: str
    weights: Array
    biases: Array | None
    activation: Activation | None


@dataclass(frozen=True)
class _Seen:
    """A layer on the way forwards: its inputs (B, N_in), and φ' and φ'' (or None for 0) behind it."""

    inputs: Value
    slope: Array | None
    bend: Value | None


def chain_scores(
    layers: Sequence[ChainLayer], inputs: Array, targets: Array, criterion: Criterion
) -> list[Array]:
    """|W g| or W (H g) of every layer, all up to one common factor.

    What is smaller than the largest layer's by more than double precision holds is 0.

    Raises ModelError where an activation has no limit at the scale of its signal.
    """
    try:
        with np.errstate(all="ignore"):
            found = _scores(layers, inputs, targets, criterion)
            unit = max((score.exponent for score in found if score.values.any()), default=0)
            return [score.within(unit).values for score in found]
    except OutOfRangeError:
        raise ModelError("the signal of the model leaves the range of floats within one layer") from None


def _scores(layers: Sequence[ChainLayer], inputs: Array, targets: Array, criterion: Criterion) -> list[Value]:
    seen, logits = _forwards(layers, Value(inputs.astype(float)))
    probabilities_from = np.ldexp(logits.values, int(np.clip(logits.exponent, -1000, 900)))
    if criterion.temperature != 1.0:
        probabilities_from = probabilities_from / criterion.temperature
    errors = _backwards(layers, seen, Value(loss_gradient(probabilities_from, targets)))
    gradients = [_product(d.values.T, s.inputs, d.exponent) for d, s in zip(errors, seen, strict=True)]
    if criterion.needs == "gradient":
        return _scored(criterion, layers, gradients)
    along, moved = _forwards_along(layers, seen, gradients)
    p = softmax(probabilities_from)
    bent = moved.values - (p * moved.values).sum(axis=1, keepdims=True)
    top = Value(p * bent / len(inputs), moved.exponent).normalised()
    curved = _backwards_along(layers, seen, gradients, errors, along, top)
    return _scored(criterion, layers, curved)


def _scored(criterion: Criterion, layers: Sequence[ChainLayer], derivatives: Sequence[Value]) -> list[Value]:
    return [
        Value(criterion.score(layer.weights, d.values), d.exponent).normalised()
        for layer, d in zip(layers, derivatives, strict=True)
    ]


def _product(a: Array, b: Value, exponent: int = 0) -> Value:
    return Value(a @ b.values, b.exponent + exponent).normalised()


def _sum(*terms: Value) -> Value:
    unit = max((term.exponent for term in terms if term.values.any()), default=0)
    total = sum(term.within(unit).values for term in terms if term.values.any())
    return Value(np.zeros_like(terms[0].values) + total, unit).normalised()


def _forwards(layers: Sequence[ChainLayer], h: Value) -> tuple[list[_Seen], Value]:
    """What every layer saw, and the logits (B, classes)."""
    seen = []
    h = h.normalised()
    for layer in layers:
        y = Value(h.values @ layer.weights.T, h.exponent)
        if layer.biases is not None:
            y = _sum(y, Value(np.broadcast_to(layer.biases, y.values.shape)))
        y = y.normalised()
        if layer.activation is None:
            seen.append(_Seen(h, None, None))
            return seen, y
        outputs, slope, bend = _activated(layer.activation, layer.name, y)
        seen.append(_Seen(h, slope, bend))
        h = outputs.normalised()
    raise ModelError("the model must end with a Linear layer")


def _activated(act: Activation, name: str, y: Value) -> tuple[Value, Array, Value | None]:
    """φ, φ' and φ'' of y."""
    power = 2 * (y.power + y.exponent) if y.values.any() else 0.0
    found = act if act.is_homogeneous else acting(act, power, name)
    if found is not None:
        return Value(found(y.values), y.exponent), found.derivative(1)(y.values), None
    plain = y.within(0).values
    return Value(act(plain)), act.derivative(1)(plain), Value(act.derivative(2)(plain))


def _backwards(layers: Sequence[ChainLayer], seen: Sequence[_Seen], top: Value) -> list[Value]:
    """δ at every layer's outputs, (B, N_out)."""
    delta = top.normalised()
    found = [delta]
    for index in range(len(layers) - 1, 0, -1):
        slope = seen[index - 1].slope
        delta = Value((delta.values @ layers[index].weights) * slope, delta.exponent).normalised()
        found.append(delta)
    return found[::-1]


def _forwards_along(
    layers: Sequence[ChainLayer], seen: Sequence[_Seen], along: Sequence[Value]
) -> tuple[list[tuple[Value, Value]], Value]:
    """The derivatives of every layer's inputs and outputs as the weights move along `along`; the logits'."""
    moved = Value(np.zeros_like(seen[0].inputs.values))
    found = []
    for layer, own, step in zip(layers, seen, along, strict=True):
        outputs = _sum(
            Value(moved.values @ layer.weights.T, moved.exponent),
            _product(own.inputs.values, Value(step.values.T, step.exponent), own.inputs.exponent),
        )
        found.append((moved, outputs))
        if own.slope is None:
            break
        moved = Value(outputs.values * own.slope, outputs.exponent).normalised()
    return found, found[-1][1]


def _backwards_along(
    layers: Sequence[ChainLayer],
    seen: Sequence[_Seen],
    along: Sequence[Value],
    errors: Sequence[Value],
    moved: Sequence[tuple[Value, Value]],
    top: Value,
) -> list[Value]:
    """(H v) of every layer for v = `along`, from the derivative of δ at the logits."""
    change, found = top, []
    for index in range(len(layers) - 1, -1, -1):
        delta, own = errors[index], seen[index]
        found.append(
            _sum(
                _product(change.values.T, own.inputs, change.exponent),
                _product(delta.values.T, moved[index][0], delta.exponent),
            )
        )
        if index:
            weights, before = layers[index].weights, seen[index - 1]
            back = _sum(
                Value(change.values @ weights, change.exponent),
                _product(delta.values, along[index], delta.exponent),
            )
            terms = [Value(back.values * before.slope, back.exponent)]
            if before.bend is not None:
                arrived = (delta.values @ weights) * before.bend.values
                outputs = moved[index - 1][1]
                terms.append(Value(arrived * outputs.values, delta.exponent + outputs.exponent).normalised())
            change = _sum(*terms)
    return found[::-1]


def needs_carrying(top: float) -> bool:
    """Whether the size of the largest score says that double precision may not hold them."""
    return not HELD[0] < top < HELD[1]


def layers_of(model: Any, weights: Sequence[Any]) -> list[ChainLayer] | None:
    """The layers of a torch model that is a chain of Linear layers and known activations; None of another."""

    if not is_linear_chain(model, weights):
        return None
    found: list[ChainLayer] = []
    masks = {id(weight.module): weight.mask for weight in weights}
    passing = (torch.nn.Flatten, torch.nn.Identity)
    for name, module in chain(model):
        if isinstance(module, torch.nn.Linear):
            if found and found[-1].activation is None:
                found[-1] = replace(found[-1], activation=activation("identity"))
            mask = masks[id(module)]
            matrix = module.weight.detach() if mask is None else _original(module) * mask
            bias = None if module.bias is None else _numbers(module.bias)
            found.append(ChainLayer(name, _numbers(matrix), bias, None))
        elif isinstance(module, torch.nn.Dropout) and not module.training:
            continue
        elif not isinstance(module, passing):
            try:
                act = activation(module)
            except EOCError:
                return None
            if not found or found[-1].activation is not None:
                return None
            found[-1] = replace(found[-1], activation=act)
    return found if found and found[-1].activation is None else None


def _original(module: Any) -> Any:
    return getattr(module, "weight_orig", module.weight).detach()


def _numbers(tensor: Any) -> Array:
    return tensor.detach().cpu().double().numpy()
