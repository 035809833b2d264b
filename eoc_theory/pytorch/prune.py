"""Put masks on a torch model as ``torch.nn.utils.prune`` does, so that its tools keep working."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ..base import checks
from ..base.boundary import public
from ..base.isolation import all_or_nothing, converted
from ..errors import ArgumentError, ModelError
from .lazy import require_torch, torch
from .models import PrunableWeight, prunable_weights

Model = TypeVar("Model")


@public
def prune_(model: Model, masks: Mapping[str, Any]) -> Model:
    """Remove weights in place: each named layer's `weight` becomes `weight_orig` times `weight_mask`.

    Other parameters likewise: `in_proj_weight` of attention, `weight_ih_l0` of a recurrent layer, and what a
    parametrised weight is made from.

    The masks are a method of ``torch.nn.utils.prune``: state dicts hold them, deep copies keep them, training
    leaves what is removed at 0, ``torch.nn.utils.prune.remove`` makes them permanent, and a second call
    removes more. Unlike a model that was masked by torch alone, it can be deep-copied after a forward pass
    that recorded gradients, too.

    Args:
        model: a torch module.
        masks: by layer name, as in ``PruningMeasurement.masks``: arrays or tensors of the weight's shape,
            true (or 1) where a weight is kept. Layers that are not named are left alone.

    Returns:
        the same model.

    Raises:
        ArgumentError: masks that are no dict of arrays, a name that is no layer's, another shape, or values
            other than 0 and 1. ModelError: a unit of a weight under weight normalisation that is left nothing
            to normalise. The model is then left as it was.
    """
    require_torch()
    from .masks import Mask, refresh_attention

    # Whether a parameter enters products does not matter here: it is named.
    given: Any = model
    named = [id(p) for p in given.parameters()] if isinstance(given, torch.nn.Module) else ()
    layers = {w.label: w for w in prunable_weights(model, named, required=False)}
    if not isinstance(masks, Mapping):
        several = isinstance(masks, (tuple, list)) and any(isinstance(one, Mapping) for one in masks)
        raise ArgumentError(
            f"masks must be a dict of arrays by layer name, got {type(masks).__name__}"
            + (f" of {len(masks)} dicts (one for each sparsity? choose one)" if several else "")
        )
    ready = []
    for name, mask in masks.items():
        if name not in layers:
            some = ", ".join(list(layers)[:3])
            raise ArgumentError(f"masks must name layers of the model ({some}, …), got {checks.shown(name)}")
        weight = layers[name].tensor
        tensor = mask_tensor(name, mask, weight)
        if tensor.dtype != torch.bool and not bool(((tensor == 0) | (tensor == 1)).all()):
            raise ArgumentError(f"masks[{name!r}] must hold 0 and 1 (or booleans), got other values")
        ready.append((*_place(layers[name]), tensor.to(device=weight.device, dtype=weight.dtype)))
    with all_or_nothing(model):
        for module, parameter, tensor in ready:
            Mask.put(module, tensor, parameter)
        for name in masks:
            _check_made(layers[name])
        refresh_attention(model)
    return model


def _check_made(weight: PrunableWeight) -> None:
    """Raises ModelError where what is left of a parameter makes no weight: normalised, 0 becomes 0/0."""
    if weight.holder is None:
        return
    with torch.no_grad():
        # Of a double: to look at a spectral normalisation in training mode moves it.
        made = getattr(converted(weight.module).model, weight.attribute)
        if bool(made.isnan().any()) and not bool(weight.tensor.isnan().any()):
            raise ModelError(
                f"masks[{weight.name!r}] must leave a weight in every unit of {weight.parameter!r}, which is "
                "normalised unit by unit: remove the normalisation before "
                "(torch.nn.utils.parametrize.remove_parametrizations)"
            )


def mask_tensor(name: str, mask: Any, weight: Any) -> Any:
    """A user's mask of the layer `name` as a tensor of the shape of `weight`.

    Raises:
        ArgumentError: it is no array, or has another shape.
    """
    try:
        tensor = torch.as_tensor(checks.for_torch(mask))
    except Exception:
        kind = type(mask).__name__
        raise ArgumentError(f"masks[{name!r}] must be an array of 0 and 1, got {kind}") from None
    if tensor.shape != weight.shape:
        wanted, got = tuple(weight.shape), tuple(tensor.shape)
        raise ArgumentError(f"masks[{name!r}] must have shape {wanted}, got {got}")
    return tensor


def _place(weight: PrunableWeight) -> tuple[Any, str]:
    """The module and the name of the parameter that a mask goes to."""
    if weight.holder is not None:
        return weight.holder, weight.parameter.removesuffix("_orig")
    if not weight.is_plain:
        raise ModelError(
            f"layer {weight.name!r} makes its weight from {weight.parameter!r} by a hook, which a mask "
            "cannot go before: use torch.nn.utils.parametrizations"
        )
    return weight.module, weight.attribute
