"""What refuses models that export would not see through."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ...errors import ModelError
from ..models import check_values, weight_classes


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
    seen: dict[int, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, weight_classes()):
            continue
        weight = module._parameters.get("weight", module._parameters.get("weight_orig"))
        if weight is None or is_lazy(weight):
            continue
        _check_numbers(name, module, weight)
        pointer = weight.data_ptr()
        if pointer and pointer in seen:
            raise ModelError(
                f"layers {seen[pointer]!r} and {name!r} share their weights, which cannot be read"
            )
        seen[pointer] = name


def _check_numbers(name: str, module: nn.Module, weight: torch.Tensor) -> None:
    where = f"layer {name!r} ({type(module).__name__})"
    if not weight.is_floating_point():
        kind = str(weight.dtype).removeprefix("torch.")
        raise ModelError(f"{where} must have weights of real floating-point numbers, got {kind}")
    if weight.layout is not torch.strided:
        raise ModelError(f"{where} must have dense weights, got layout {weight.layout}: use .to_dense()")
    if not weight.numel():
        raise ModelError(f"{where} must have weights, got shape {tuple(weight.shape)}")


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
