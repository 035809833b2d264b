"""What refuses models that export would not see through."""

from __future__ import annotations

from torch import nn

from ...errors import ModelError
from ..models import PrunableWeight, check_apart, check_numbers, check_values, weight_classes


def check_whole(model: nn.Module) -> None:
    """Refuse what export would pass over: backward hooks, compiled and scripted modules, shared weights."""
    for name, module in model.named_modules():
        check_values(name, module)
        where = f"module {name!r} ({type(module).__name__})"
        if hasattr(module, "_orig_mod"):
            raise ModelError(f"{where}: give the model before torch.compile")
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            raise ModelError(f"{where} cannot be read: give the model inside, .module")
        tensors = [p for p in module._parameters.values() if p is not None]
        if module._backward_hooks or module._backward_pre_hooks or any(p._backward_hooks for p in tensors):
            raise ModelError(f"{where} has a backward hook, which may change its gradients: remove it")
    _check_apart(model)


def _check_apart(model: nn.Module) -> None:
    """Refuse layers whose weights are another one's."""
    seen: dict[int, PrunableWeight] = {}
    shared = ""
    for name, module in model.named_modules():
        if not isinstance(module, weight_classes()):
            continue
        own = "weight" if "weight" in module._parameters else "weight_orig"
        tensor = module._parameters.get(own)
        if tensor is None:
            continue
        weight = PrunableWeight(name, module, own)
        check_numbers(weight)
        first = seen.setdefault(id(tensor), weight)
        if first is not weight and not shared:
            shared = f"layers {first.name!r} and {name!r} share their weights, which cannot be read"
    check_apart(list(seen.values()))
    if shared:
        raise ModelError(shared)


def layers_with_weights(model: nn.Module) -> list[str]:
    """Names of the layers whose weights pruning ranks, as the graph gives them.

    Raises:
        ModelError: there are none.
    """
    names = [
        name or "weight" for name, module in model.named_modules() if isinstance(module, weight_classes())
    ]
    if not names and not any(p.dim() > 1 for p in model.parameters()):
        raise ModelError("model has no Linear or convolution layer")
    return names
