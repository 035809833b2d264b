"""The graph of a torch model, whatever its weights are: for functions that set or scale them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..base.isolation import Twin
from ..errors import ModelError
from .lazy import torch
from .models import PrunableWeight, prunable_weights, taken, weight_attributes
from .trace import first_layer, trace

if TYPE_CHECKING:
    from ..networks.graph import Graph

#: Extents tried for a convolutional model without example_input; which activation follows which layer does
#: not depend on them.
EXTENTS = (32, 224, 28, 64, 96, 128, 256, 299)


def structure(
    model: Any, example_input: Any = None, *, fresh: bool = False
) -> tuple[Graph, dict[str, PrunableWeight]]:
    """How a model's layers are connected, and its weight tensors by the names of the graph's weight layers.

    The tracer reads laws from weights and refuses what has none (weights that are 0, diverged, or
    delta-orthogonal). Here a double of the model with normal weights is traced.

    Args:
        example_input: as `eoc_theory.pytorch.trace.trace` takes it; None: vectors, or images of usual
            extents.
        fresh: also put neutral biases and normalisation parameters in place; else the graph's normalisation
            layers say what the model's are.

    Raises:
        ModelError: the model cannot be traced.
    """
    weights = {w.label: w for w in prunable_weights(model)}
    check_unshared(model, weights)
    shapes = [example_input] if example_input is not None else _guesses(model, weights)
    errors = []
    double = _stand_in(model, list(weights.values()), fresh)
    for shape in shapes:
        try:
            return trace(double, shape, only_structure=True), weights
        except ModelError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise ModelError(f"example_input is needed; with inputs of shape {shapes[0]}: {errors[0]}") from errors[0]


def check_unshared(model: Any, weights: dict[str, PrunableWeight]) -> None:
    """Refuse layers whose weights are another one's: `prunable_weights` names each tensor once."""
    owners = {id(weight.tensor): weight.module for weight in weights.values()}
    for name, module in model.named_modules():
        for attribute in weight_attributes(module):
            own = module._parameters.get(attribute, module._parameters.get(f"{attribute}_orig"))
            if owners.get(id(own), module) is not module:
                raise ModelError(
                    f"layer {name!r} shares its weights with another layer, which cannot be read"
                )


def normalisations(model: Any) -> list[Any]:
    """The model's normalisation modules."""
    nn = torch.nn
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    return [module for module in model.modules() if isinstance(module, kinds)]


def _guesses(model: Any, weights: dict[str, PrunableWeight]) -> list[Any]:
    """Shapes of inputs to try for the layer that runs first."""
    first = first_layer(model) or next(iter(weights.values())).module
    channels, axes = taken(first)
    if not axes:
        return [None]
    return [(2, channels, *(extent,) * axes) for extent in EXTENTS]


def _stand_in(model: Any, weights: list[PrunableWeight], fresh: bool) -> Any:
    """A double of the model with normal weights, and without masks."""
    generator = torch.Generator().manual_seed(0)
    filled: dict[int, float | None] = {}
    # Weights that share memory go on sharing it, so that the tracer sees it.
    normal: dict[int, Any] = {}
    for weight in weights:
        normal[weight.tensor.data_ptr()] = None
        filled[id(weight.mask)] = 1.0
        filled[id(weight.module._parameters.get("bias"))] = 0.0 if fresh else None
    for module in normalisations(model) if fresh else ():
        for table in (module._parameters, module._buffers):
            values = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
            filled |= {id(table.get(name)): value for name, value in values.items()}

    def like(own: Any, made: Any) -> Any:
        is_parameter = isinstance(own, torch.nn.Parameter)
        return torch.nn.Parameter(made, requires_grad=False) if is_parameter else made

    def replacement(own: Any) -> Any:
        value = filled.get(id(own))
        if value is not None:
            return like(own, torch.full_like(own, value))
        if not isinstance(own, torch.nn.Parameter) or own.data_ptr() not in normal or not own.numel():
            return like(own, own.detach().clone())
        if normal[own.data_ptr()] is None:
            drawn = torch.empty(own.shape, dtype=torch.float32)
            drawn.normal_(0.0, 1 / math.sqrt(math.prod(own.shape[1:])), generator=generator)
            made = torch.nn.Parameter(drawn.to(own.device, own.dtype), requires_grad=False)
            normal[own.data_ptr()] = made
        return normal[own.data_ptr()]

    return Twin(model, replacement).model
