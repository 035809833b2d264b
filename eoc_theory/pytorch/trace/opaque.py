"""Modules that are read as a whole, whatever their forward pass does: those of classes that users registered,
and activations of which no graph of operations can be made.

While a model is exported each stands for one operation of its own, which carries the module's number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ...activations import activation
from ...base.isolation import converted
from ...errors import ActivationError, ModelError
from ...layers import Shape
from ...layers.register import ModuleKind, kind_of_class, layer_of
from .linear import read_once
from .readers import reads
from .recorder import Recorder
from .values import Constant, Signal

_LIBRARY = torch.library.Library("eoc_theory", "DEF")
_LIBRARY.define("module(Tensor[] inputs, int number, SymInt[] sizes) -> Tensor")


def _shaped(inputs: list[torch.Tensor], number: int, sizes: list[int]) -> torch.Tensor:
    return inputs[0].new_empty(sizes)


_LIBRARY.impl("module", _shaped, "CompositeExplicitAutograd")


class Opaque:
    """Stands in for the forward passes of some modules while a model is exported.

    Attributes:
        modules: those modules, by their numbers.
    """

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self._before: dict[int, Any] = {}

    def registered(self, model: nn.Module) -> None:
        """Stand in for all modules of registered classes that have that class's forward pass."""
        for name, module in model.named_modules():
            kind = registered_kind(module)
            if kind is not None:
                self.add(module, _output_sizes(kind, module, name))

    def add(self, module: nn.Module, sizes: Callable[..., tuple[int, ...]]) -> None:
        """Stand in for a module that makes tensors of these sizes of tensors."""
        number = len(self.modules)
        self.modules.append(module)

        def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
            tensors = [*args, *kwargs.values()]
            return torch.ops.eoc_theory.module(tensors, number, list(sizes(*tensors)))

        self._before[number] = module.__dict__.get("forward")
        module.__dict__["forward"] = forward

    def activation(self, module: nn.Module) -> None:
        """Stand in for what may be an activation."""
        self.add(module, lambda x: tuple(x.shape))

    def restore(self) -> None:
        """Give the modules their own forward passes back."""
        for number, forward in self._before.items():
            self.modules[number].__dict__.pop("forward")
            if forward is not None:
                self.modules[number].__dict__["forward"] = forward

    def __contains__(self, module: object) -> bool:
        return any(module is other for other in self.modules)


def registered_kind(module: nn.Module) -> ModuleKind | None:
    """What users said of the module's class; None where a subclass computes something else."""
    kind = kind_of_class(type(module))
    if kind is None or "forward" in module.__dict__:
        return None
    same = all(getattr(type(module), m) is getattr(kind.base, m) for m in ("forward", "__call__"))
    return kind if same else None


def _output_sizes(kind: ModuleKind, module: nn.Module, name: str) -> Callable[..., tuple[int, ...]]:
    def sizes(*tensors: torch.Tensor) -> tuple[int, ...]:
        shapes = tuple(Shape(int(t.shape[1]), tuple(map(int, t.shape[2:]))) for t in tensors)
        layer = layer_of(kind, module, name or "weight", shapes)
        weight = module._parameters.get("weight", module._parameters.get("weight_orig"))
        if layer.weighted is not None and weight is not None:
            wanted = layer.weighted.weight.weight_shape
            if tuple(weight.shape) != wanted:
                raise ModelError(
                    f"module {name!r} ({type(module).__name__}): has a weight of shape "
                    f"{tuple(weight.shape)}, and the layer registered for it one of shape {wanted}"
                )
        made = layer.output_shape(*shapes)
        return (int(tensors[0].shape[0]), made.channels, *made.space)

    return sizes


@reads("module")
def _module(recorder: Recorder, inputs: Any, number: int) -> Any:
    recorder.in_leaf = True
    assert recorder.opaque is not None
    module = recorder.opaque.modules[number]
    kind = kind_of_class(type(module))
    if kind is not None and number not in recorder.activations:
        return _described(recorder, kind, module, [recorder.image(value) for value in inputs])
    (signal,) = inputs
    signal = recorder.check(signal)
    if not _acts_entry_by_entry(module, signal.sizes[1:]):
        raise ModelError(f"{recorder.place}: forward cannot be traced: {recorder.activations[number]}")
    return recorder.nonlinearity(signal, module)


def _described(recorder: Recorder, kind: ModuleKind, module: nn.Module, inputs: list[int]) -> Signal:
    """The value of the layer that a user's class is."""
    name = (recorder.path or "weight") if kind.weights else recorder.label()
    layer = layer_of(kind, module, name, tuple(recorder.shapes[i] for i in inputs))
    weighted = layer.weighted
    if weighted is None:
        return recorder.add(layer, *inputs)
    weights = read_once(recorder, name, _own(module, name, "weight"), _own(module, name, "bias"))
    scales = replace(weighted.weight, name=name, sigma_w=weights.sigma_w, sigma_b=weights.sigma_b)
    return recorder.add(weighted.with_weight(scales), *inputs)


def _own(module: nn.Module, name: str, kind: str) -> Any:
    """A parameter, under the mask that torch.nn.utils.prune put on it; None where there is none."""
    own = module._parameters
    if own.get(kind) is not None:
        return Constant(own[kind].detach())  # type: ignore[union-attr]
    original, mask = own.get(f"{kind}_orig"), module._buffers.get(f"{kind}_mask")
    if original is not None and mask is not None:
        weight, mask = Constant(original.detach()), Constant(mask)
        return Constant(weight.tensor * mask.tensor, unmasked=(weight, mask))
    if kind == "weight":
        raise ModelError(
            f"layer {name!r} ({type(module).__name__}) has no parameter {kind!r}: only plain ones and those "
            "under a mask of torch.nn.utils.prune can be read"
        )
    return None


def _acts_entry_by_entry(module: nn.Module, sizes: tuple[int, ...]) -> bool:
    """Whether a module is one function of every entry, tried on numbers of the shape that it gets.

    Its gradient must be that function's derivative: a straight-through estimator's is not.
    """
    try:
        act = activation(module)
        frozen = converted(module, "cpu", torch.float64).model.eval()
        generator = torch.Generator().manual_seed(0)
        x = 2.0 * torch.randn(3, *sizes, generator=generator, dtype=torch.float64)
        x.requires_grad_()
        with torch.enable_grad():
            y = frozen(x)
            (slope,) = torch.autograd.grad(y.sum(), x)
        points = x.detach().numpy()
        return (
            y.shape == x.shape
            and bool(np.allclose(y.detach().numpy(), act(points), rtol=1e-9, atol=1e-9))
            and bool(np.allclose(slope.numpy(), act.derivative(1)(points), rtol=1e-5, atol=1e-6))
        )
    except (ActivationError, RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return False
