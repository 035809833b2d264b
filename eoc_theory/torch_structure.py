"""The graph of a torch model whatever its weights are: for what is about to set or to scale them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .errors import ModelError
from .torch_models import PrunableWeight, prunable_weights, require_torch

if TYPE_CHECKING:
    from .graph import Graph

#: Extents tried for a convolutional model without example_input; which activation follows which layer does
#: not depend on them.
EXTENTS = (32, 224, 28, 64, 96, 128, 256, 299)


def structure(
    model: Any, example_input: Any = None, *, fresh: bool = False
) -> tuple[Graph, dict[str, PrunableWeight]]:
    """How a model's layers hang together, and its weight tensors by the names of the graph's weight layers.

    The tracer reads laws from weights and refuses what has none (weights that are 0, diverged, or
    delta-orthogonal). Here the model is traced with normal weights in their place, and given its own back.

    Args:
        example_input: as `eoc_theory.tracing.trace` takes it; None: vectors, or images of usual extents.
        fresh: also put neutral biases and normalisation parameters in place; else the graph's normalisation
            layers say what the model's are.

    Raises:
        ModelError: the model cannot be traced.
    """
    from .tracing import trace

    weights = {w.name or "weight": w for w in prunable_weights(model)}
    shapes = [example_input] if example_input is not None else _guesses(model, weights)
    errors = []
    with _stand_ins(model, list(weights.values()), fresh):
        for shape in shapes:
            try:
                return trace(model, shape), weights
            except ModelError as error:
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise ModelError(f"example_input is needed; with inputs of shape {shapes[0]}: {errors[0]}") from errors[0]


def normalisations(model: Any) -> list[Any]:
    """The model's normalisation modules."""
    torch = require_torch()
    nn = torch.nn
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    return [module for module in model.modules() if isinstance(module, kinds)]


def _guesses(model: Any, weights: dict[str, PrunableWeight]) -> list[Any]:
    """Shapes of inputs to try for the layer that runs first."""
    from .tracing import first_layer

    first = first_layer(model) or next(iter(weights.values())).module
    axes = first.weight.ndim - 2
    if not axes:
        return [None]
    return [(2, first.in_channels, *(extent,) * axes) for extent in EXTENTS]


@contextlib.contextmanager
def _stand_ins(model: Any, weights: list[PrunableWeight], fresh: bool) -> Iterator[None]:
    """Normal weights in place of the model's, and no mask; its own tensors are only put aside."""
    torch = require_torch()
    generator = torch.Generator().manual_seed(0)
    tables = []
    made: dict[int, Any] = {}

    def replace(table: dict[str, Any], name: str, value: Any) -> None:
        tables.append((table, name, table[name]))
        table[name] = value

    def parameter(like: Any, fill: float | None = None) -> Any:
        # Weights that share memory go on sharing it, so that the tracer sees it.
        key = like.data_ptr() if fill is None and like.numel() else 0
        if key not in made or not key:
            value = torch.empty(like.shape, dtype=torch.float32)
            value = value.normal_(0.0, 1 / math.sqrt(math.prod(like.shape[1:])), generator=generator)
            value = value if fill is None else torch.full(like.shape, fill)
            made[key] = torch.nn.Parameter(value.to(like.device, like.dtype), requires_grad=False)
        return made[key]

    try:
        for weight in weights:
            own, buffers = weight.module._parameters, weight.module._buffers
            replace(own, weight.parameter, parameter(weight.tensor))
            if weight.mask is not None:
                replace(buffers, "weight_mask", torch.ones_like(weight.mask))
            if fresh and own.get("bias") is not None:
                replace(own, "bias", parameter(own["bias"], 0.0))
        for module in normalisations(model) if fresh else ():
            for name, value in (("weight", 1.0), ("bias", 0.0)):
                if module._parameters.get(name) is not None:
                    replace(module._parameters, name, parameter(module._parameters[name], value))
            for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
                if module._buffers.get(name) is not None:
                    replace(module._buffers, name, torch.full_like(module._buffers[name], value))
        yield
    finally:
        for table, name, value in reversed(tables):
            table[name] = value
