"""The shapes of a model's inputs and outputs, as far as its layers and the data show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import ModelError
from ..networks.architecture import Architecture
from ..signals.data import DataSummary
from .loading import as_several
from .models import chain, prunable_weights, require_torch, taken, weight_classes
from .trace import first_layer


def shown_input(model: Any, data: Any = None, example_input: Any = None) -> Any:
    """Inputs that show the shape of one: `example_input` or those of `data`; None where nothing does.

    None too for a network that takes vectors: images given to it are flattened.
    """
    if example_input is not None:
        return example_input
    inputs = inputs_of(data)
    if inputs is None or isinstance(inputs, (tuple, Mapping)):
        return inputs
    return None if vector_features(model, inputs) else inputs


def inputs_of(data: Any) -> Any:
    """The inputs of (inputs, targets), or of what can be read again, several as a tuple or dict; or None."""
    if data is None or isinstance(data, (DataSummary, Iterator)):
        return None
    if hasattr(data, "kwargs") and hasattr(data, "part"):  # a batch
        return data.args[0] if len(data.args) == 1 and not data.kwargs else None
    try:
        args, named, _ = as_several(data)
        if len(args) == 1 and not named:
            return args[0]
        return dict(named) if not args else args if not named else None
    except Exception:  # said where the data are used
        return None


def vector_features(model: Any, inputs: Any = None) -> int | None:
    """How many features the vectors have that a model takes; None where it does not take vectors.

    It takes them where the layer that it runs first is Linear, with as many features as one of `inputs` has
    numbers: one with other features may be applied along an axis.
    """
    if not prunable_weights(model, required=False):
        return None
    try:
        shape = () if inputs is None else tuple(np.shape(inputs))
    except Exception:  # rows of unequal length, or what cannot be looked at
        return None
    first = first_layer(model, shape if len(shape) > 1 and min(shape) > 0 else None)
    if first is None:
        # Nothing is known of a forward pass that cannot be followed: its layers are taken to be in order.
        first = prunable_weights(model)[0].module
        if not isinstance(first, weight_classes()):
            return None
    features, axes = taken(first)
    if axes:
        return None
    fits = inputs is None or int(np.prod(shape[1:])) == features
    return features if fits or outputs_of(model) is not None else None


def outputs_of(model: Any) -> int | None:
    """Outputs of a chain of layers whose last one with weights is Linear; None for any other model."""
    weights = prunable_weights(model, required=False)
    if not weights:
        return None
    last = weights[-1].module
    try:
        in_a_row = any(module is last for _, module in chain(model))
    except ModelError:
        return None
    return last.out_features if in_a_row and isinstance(last, require_torch().nn.Linear) else None


def example_shape(net: Architecture) -> tuple[int, ...]:
    """The shape of a batch of one input of an architecture's."""
    return (1, net.input_shape.channels, *net.input_shape.space)
