"""Activations from torch modules and functions, and back.

torch is imported at module level, so this module is imported only where a torch object is met or asked for.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..activations import catalogue
from ..activations.core import HIGHEST_ORDER, Activation, Array
from ..activations.numerical import from_callable
from ..base.isolation import converted, isolated
from ..errors import ActivationError

# --- from torch ---


@isolated
def from_torch(spec: Any) -> Activation:
    """The activation of a torch module or function.

    Modules of torch's own classes (and of subclasses that keep their ``forward``) are read with their
    parameters; everything else is evaluated in float64 without gradients, as a numerical callable.

    Raises:
        ActivationError: it is not elementwise, or a PReLU has a slope for each channel.
    """
    if isinstance(spec, type):
        try:
            spec = spec()
        except TypeError as error:
            raise ActivationError(
                f"give an instance of {spec.__name__}, with its parameters: {error}"
            ) from None
    if isinstance(spec, torch.nn.Module):
        return _from_module(spec)
    return _from_function(spec)


def _from_module(module: Any) -> Activation:
    if _is_plain(module, torch.nn.PReLU):
        weight = module.weight
        if weight.numel() != 1:
            raise ActivationError(f"PReLU must have one slope for all channels, got {weight.numel()}")
        return catalogue.build(catalogue.ENTRIES["leaky_relu"], (float(weight.detach().item()),))
    if _is_plain(module, torch.nn.RReLU):
        return catalogue.build(catalogue.ENTRIES["rrelu"], (module.lower, module.upper))
    for entry in catalogue.ENTRIES.values():
        if entry.torch and _is_plain(module, getattr(torch.nn, entry.torch)):
            values = [getattr(module, name, default) for name, default in entry.parameters.items()]
            return catalogue.build(entry, [v if isinstance(v, str) else float(v) for v in values])
    frozen = converted(module, "cpu", torch.float64).model.eval()
    return _numerical(frozen, type(module).__name__, lambda: copy.deepcopy(module), module)


def _is_plain(module: torch.nn.Module, kind: type) -> bool:
    """Whether the module computes what `kind` computes: a subclass with another forward is something else."""
    return isinstance(module, kind) and type(module).forward is kind.forward  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def _from_function(function: Callable[..., Any]) -> Activation:
    """The activation of a torch function."""
    name = getattr(function, "__name__", type(function).__name__)
    entry = catalogue.find(name.removeprefix("special_"))
    if entry is not None:
        built_in, points = catalogue.build(entry), np.linspace(-7.3, 7.9, 31)
        try:
            same = np.allclose(_call(function, points), built_in(points), rtol=1e-12, atol=1e-14)
        except Exception:
            same = False
        # The name alone proves nothing; torch's softplus is the smooth one only up to its threshold.
        if same:
            return built_in
    return _numerical(function, name, lambda: _FunctionModule(function), function)


def _call(function: Callable[..., Any], x: Array) -> Any:
    with torch.no_grad():
        result = function(torch.tensor(x, dtype=torch.float64))
    if not isinstance(result, torch.Tensor):
        raise TypeError(f"expected a tensor, got {type(result).__name__}")
    return result.numpy()


def _numerical(function: Callable[..., Any], name: str, make: Callable[[], Any], source: Any) -> Activation:
    def evaluate(x: Array) -> Any:
        return _call(function, x)

    evaluate.__name__ = name
    return dataclasses.replace(from_callable(evaluate), name=name, make_torch=make, source=source)


class _FunctionModule(torch.nn.Module):
    """A torch function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


# --- to torch ---


def to_torch(activation: Activation) -> torch.nn.Module:
    """A new module that computes the activation: torch's own, of torch operations, or calling NumPy."""
    if activation.make_torch is not None:
        return activation.make_torch()
    if activation.torch_class is not None:
        name, arguments = activation.torch_class
        return getattr(torch.nn, name)(**arguments)
    if activation.expression is not None:
        return ExpressionModule(activation)
    return NumPyModule(activation)


class ExpressionModule(torch.nn.Module):
    """An expression in torch operations, one branch between each pair of kinks."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self._branches = _torch_branches(activation)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.activation,)

    def extra_repr(self) -> str:
        return self.activation.name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, _, first = self._branches[0]
        result = first(x if len(self._branches) == 1 else x.clamp(max=self._branches[0][1]))
        for low, high, branch in self._branches[1:]:
            inside = x.clamp(min=low, max=high if math.isfinite(high) else None)
            result = torch.where(x > low, branch(inside), result)
        return result


_TORCH_FUNCTIONS: dict[str, Any] = {
    "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "sin": torch.sin, "cos": torch.cos,
    "tan": torch.tan, "tanh": torch.tanh, "sinh": torch.sinh, "cosh": torch.cosh, "asinh": torch.asinh,
    "atan": torch.atan, "erf": torch.erf, "erfc": torch.erfc, "Erfc": torch.erfc, "Logistic": torch.sigmoid,
    "Log1p": torch.log1p, "Expm1": torch.expm1, "Tanh": torch.tanh, "Softplus": torch.nn.functional.softplus,
    "Sech": lambda u: 2.0 * torch.exp(-u.abs()) / (1.0 + torch.exp(-2.0 * u.abs())),
}  # fmt: skip


def _torch_branches(
    activation: Activation,
) -> list[tuple[float, float, Callable[[torch.Tensor], torch.Tensor]]]:
    import sympy as sp

    from ..activations.stable import rewrite
    from ..activations.symbolic import split, x

    branches = []
    for branch in split(activation.expression, activation.name):
        expression = rewrite(branch.expression)
        numbers = [n for n in sp.preorder_traversal(expression) if n.is_number and not n.is_Integer]
        expression = expression.xreplace({n: sp.N(n, 17) for n in numbers})
        function = sp.lambdify(x, expression, modules=[_TORCH_FUNCTIONS])
        if not expression.has(x):
            function = _constant(float(expression))
        branches.append((branch.low, branch.high, function))
    return branches


def _constant(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    # The product keeps the graph, so that the derivative is 0 and not missing.
    return lambda x: 0.0 * x + value


class NumPyModule(torch.nn.Module):
    """An activation evaluated by NumPy on the CPU, with its derivatives up to order 3 for autograd."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def extra_repr(self) -> str:
        return self.activation.name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _evaluate(x, self.activation, 0)


class _NumPyFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, activation: Activation, order: int) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.activation, ctx.order = activation, order
        values = activation.derivative(order)(x.detach().to("cpu", torch.float64).numpy())
        return torch.as_tensor(values, dtype=x.dtype, device=x.device)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        if ctx.order == HIGHEST_ORDER:
            raise ActivationError(f"{ctx.activation.name} has derivatives up to order {HIGHEST_ORDER}")
        return grad * _evaluate(x, ctx.activation, ctx.order + 1), None, None


def _evaluate(x: torch.Tensor, activation: Activation, order: int) -> torch.Tensor:
    result = _NumPyFunction.apply(x, activation, order)
    assert isinstance(result, torch.Tensor)
    return result
