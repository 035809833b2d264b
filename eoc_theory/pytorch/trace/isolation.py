"""What refuses models that tracing would not see through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.fx import Proxy
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.overrides import TorchFunctionMode

from ...base.isolation import RandomStates
from ...errors import ModelError
from ..models import check_values, prunable_weights, weight_classes
from .recorder import Recorder


def check_whole(model: nn.Module) -> None:
    """Refuse what tracing would pass over: hooks, compiled and scripted modules, weights that are shared."""
    for name, module in model.named_modules():
        check_values(name, module)
        where = f"module {name!r} ({type(module).__name__})"
        if hasattr(module, "_orig_mod"):
            raise ModelError(f"{where}: give the model before torch.compile")
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        for hook in hooks:
            if not isinstance(hook, BasePruningMethod):
                kind = getattr(hook, "__name__", type(hook).__name__)
                raise ModelError(
                    f"{where} has a forward hook, {kind}, which may change its values: remove it"
                )
        tensors = [p for p in module._parameters.values() if p is not None]
        if module._backward_hooks or module._backward_pre_hooks or any(p._backward_hooks for p in tensors):
            raise ModelError(f"{where} has a backward hook, which may change its gradients: remove it")
    prunable_weights(model)  # refuses parametrisations
    seen: dict[int, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, weight_classes()):
            continue
        weight = module._parameters.get("weight", module._parameters.get("weight_orig"))
        if weight is None or is_lazy(weight):
            continue
        pointer = 0 if weight.device.type == "meta" else weight.data_ptr()
        if pointer and pointer in seen:
            raise ModelError(
                f"layers {seen[pointer]!r} and {name!r} share their weights, which cannot be read"
            )
        seen[pointer] = name


@contextlib.contextmanager
def no_draws() -> Iterator[None]:
    """Refuse models that draw random numbers outside of dropout modules, and give the states back."""
    states = RandomStates()
    try:
        yield
        if not states.same():
            raise ModelError("model draws random numbers in its forward pass, which cannot be read")
    finally:
        states.restore()


class Guard(TorchFunctionMode):
    """Refuses operations that would change the model's own tensors."""

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        tensors = [*model.parameters(), *model.buffers()]
        self.memory = {t.untyped_storage().data_ptr() for t in tensors if t.device.type != "meta"}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        inner = name.strip("_")
        changes = (name.endswith("_") and not name.endswith("__")) or inner in _CHANGING
        if changes and args and isinstance(args[0], torch.Tensor) and not isinstance(args[0], Proxy):
            if args[0].device.type != "meta" and args[0].untyped_storage().data_ptr() in self.memory:
                self.recorder.operation = inner
                raise self.recorder.refuse("changes a tensor of the model, which cannot be read")
        return func(*args, **(kwargs or {}))


_CHANGING = {"setitem", "iadd", "isub", "imul", "itruediv", "ipow", "idiv", "iand", "ior", "set_data"}
