"""Weights times numbers, in place: how a change of scales is carried out on a real model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.isolation import all_or_nothing
from ..errors import ModelError
from ..propagation.observed import Runs
from .lazy import torch
from .models import PrunableWeight, prunable_weights


def multiply_(model: Any, factors: Mapping[str, float], units: Mapping[str, Runs]) -> None:
    """Multiply weights of a model in place, those that a mask removed staying 0.

    Args:
        factors: by the names that predictions and measurements have for the weights.
        units: output units that the factor is for, by the same names; of others it is for all.

    Raises:
        ModelError: no torch module, or weights that it does not have, that have other units, or that are
            made from others (weight normalisation). The model is then left as it was.
    """
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    own = {id(parameter) for parameter in model.parameters()}
    known = {w.label: w for w in prunable_weights(model, own, required=False)}
    for name in factors:
        if name not in known:
            raise ModelError(f"model must have the weights {name!r}, which the change is for")
        if not known[name].is_plain:
            raise ModelError(f"layer {name!r} makes its weight from others: multiply before that")
    with all_or_nothing(model):
        for name, factor in factors.items():
            multiply_weight(known[name], float(factor), units.get(name, ()))


def multiply_weight(weight: PrunableWeight, factor: float, runs: Runs = ()) -> None:
    """Multiply one weight in place, or the output units in `runs` alone.

    Raises:
        ModelError: it has fewer units.
    """
    axis = weight.unit_axes[1]
    count = weight.tensor.shape[axis]
    if any(not 0 <= start < stop <= count for start, stop in runs):
        raise ModelError(f"layer {weight.name!r} must have the output units {runs}, got {count} units")
    with torch.no_grad():
        for start, stop in runs or ((0, count),):
            weight.tensor.narrow(axis, start, stop - start).mul_(factor)
        if weight.mask is not None:
            weight.tensor.mul_(weight.mask)
            # The product that the next forward pass would make anyway, for who reads it before.
            setattr(weight.module, weight.attribute, weight.tensor * weight.mask)
