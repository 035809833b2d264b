"""Real networks in torch: building them from a description, and reading the chain of layers of a model.

Nothing here imports torch when the module is imported; a missing torch is a :class:`MissingDependencyError`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from . import checks
from .errors import MissingDependencyError, ModelError

if TYPE_CHECKING:
    import torch


class LayerLike(Protocol):
    """What a weight layer's description must say for a torch layer to be built from it."""

    @property
    def name(self) -> str: ...
    @property
    def fan_in(self) -> int: ...
    @property
    def fan_out(self) -> int: ...
    @property
    def sigma_w(self) -> float: ...
    @property
    def sigma_b(self) -> float: ...
    @property
    def law(self) -> str: ...
    @property
    def activation(self) -> Any: ...


@dataclass(frozen=True)
class PrunableWeight:
    """One weight tensor that pruning ranks: its layer's name, the module, and the parameter's own name."""

    name: str
    module: torch.nn.Module
    parameter: str  # "weight", or "weight_orig" where torch.nn.utils.prune holds it already

    @property
    def tensor(self) -> torch.Tensor:
        return getattr(self.module, self.parameter)

    @property
    def mask(self) -> torch.Tensor | None:
        """The mask that torch.nn.utils.prune put there, or None."""
        return getattr(self.module, "weight_mask", None) if self.parameter == "weight_orig" else None

    @property
    def full_name(self) -> str:
        """The parameter's name in ``model.named_parameters()``."""
        return f"{self.name}.{self.parameter}" if self.name else self.parameter


def require_torch() -> Any:
    """The torch module.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    try:
        import torch
    except ImportError as missing:
        raise MissingDependencyError(
            "this needs torch, which is not installed: pip install 'eoc-theory[torch]'"
        ) from missing
    return torch


def build(layers: Sequence[LayerLike], *, seed: int = 0, dtype: Any = None, device: Any = None) -> Any:
    """A fully connected torch network drawn from the initialisation law of `layers`.

    W^l_ij has standard deviation σ_w/√fan_in (``law`` "normal" or "uniform"), b^l_i ~ N(0, σ_b²); layers that share a
    module's name prefix, e.g. "layers.0", "layers.1", become ``model.layers[0]``, …. No bias is made where σ_b = 0
    for every layer would make it idle: biases are then zeros, so that training can still use them.

    Args:
        layers: weight layers from input to output, each with the activation that follows it (None: none).
        seed: of a generator of its own; torch's global random state is neither used nor moved.
        dtype, device: of the parameters (default float32 on the CPU).

    Returns:
        ``torch.nn.Sequential`` whose parameters are named "<layer name>.weight" and "<layer name>.bias".
    """
    torch = require_torch()
    generator = torch.Generator().manual_seed(checks.integer("seed", seed, 0))
    stack: OrderedDict[str, Any] = OrderedDict()
    for index, layer in enumerate(layers):
        prefix, _, leaf = layer.name.rpartition(".")
        if prefix != layers[0].name.rpartition(".")[0] or not leaf or "." in prefix:
            raise ModelError(f"layer names must be like 'layers.0', 'layers.1', …, got {layer.name!r}")
        # skip_init: torch's own initialisation would draw every weight a second time for nothing.
        linear = torch.nn.utils.skip_init(torch.nn.Linear, layer.fan_in, layer.fan_out, dtype=dtype)
        fill_(linear.weight, linear.bias, layer.fan_in, layer.sigma_w, layer.sigma_b, layer.law, generator)
        stack[leaf] = linear
        if layer.activation is not None:
            stack[f"activation{index}"] = layer.activation.to_torch()
    body = torch.nn.Sequential(stack)
    prefix = layers[0].name.rpartition(".")[0]
    model = torch.nn.Sequential(OrderedDict([(prefix, body)])) if prefix else body
    return model.to(device) if device is not None else model


def fill_(
    weight: Any, bias: Any, fan_in: int, sigma_w: float, sigma_b: float, law: str, generator: Any
) -> None:
    """Draw a weight tensor and its bias (or None) in place: std σ_w/√fan_in by `law`, and N(0, σ_b²)."""
    torch = require_torch()
    scale = sigma_w / math.sqrt(fan_in)
    with torch.no_grad():
        if checks.one_of("law", law, ("normal", "uniform")) == "normal":
            weight.normal_(0.0, scale, generator=generator)
        else:
            weight.uniform_(-math.sqrt(3.0) * scale, math.sqrt(3.0) * scale, generator=generator)
        if bias is not None and sigma_b > 0:
            bias.normal_(0.0, sigma_b, generator=generator)
        elif bias is not None:
            bias.zero_()


def prunable_weights(model: Any) -> list[PrunableWeight]:
    """The weight tensors of the model's Linear and convolution layers, in module order; shared ones once.

    Raises:
        ModelError: the object is not a torch module or has no such layer.
    """
    torch = require_torch()
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    found: list[PrunableWeight] = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, kinds):
            continue
        own = dict(module.named_parameters(recurse=False))
        parameter = "weight" if "weight" in own else "weight_orig"
        if parameter not in own:
            raise ModelError(f"layer {name!r} has no parameter 'weight' (a parametrisation other than a mask?)")
        if id(own[parameter]) not in seen:
            seen.add(id(own[parameter]))
            found.append(PrunableWeight(name, module, parameter))
    if not found:
        raise ModelError("model has no Linear or convolution layer to prune")
    return found


def chain(model: Any) -> Iterator[tuple[str, Any]]:
    """The leaf modules of a model that is a plain chain (nested ``Sequential``), in order, with their names.

    Raises:
        ModelError: a module's forward pass is its own, so the order cannot be read from it.
    """
    torch = require_torch()

    def walk(prefix: str, module: Any) -> Iterator[tuple[str, Any]]:
        if type(module) is torch.nn.Sequential:
            for name, child in module.named_children():
                yield from walk(f"{prefix}.{name}" if prefix else name, child)
        elif next(module.children(), None) is None:
            yield prefix, module
        else:
            raise ModelError(
                f"module {prefix or 'model'!r} ({type(module).__name__}) is not a chain; nested torch.nn.Sequential is accepted"
            )

    return walk("", model)
