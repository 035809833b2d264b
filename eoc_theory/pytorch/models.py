"""Real networks in torch: built from a description, and read as a chain of layers.

Nothing here imports torch when the module is imported; a missing torch is a :class:`MissingDependencyError`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from ..base import checks
from ..errors import ModelError
from ..layers.register import classes_with_weights
from .lazy import require_torch as require_torch
from .lazy import torch
from .weights import fill_, unfilled

if TYPE_CHECKING:
    from ..networks.architecture import Architecture, WeightLayer


@dataclass(frozen=True)
class PrunableWeight:
    """One weight tensor that pruning ranks.

    Attributes:
        name: what the results call it: the layer's name where it has one weight, else with the weight's.
        module: whose weight it is.
        parameter: the parameter that holds it: of that name, or "weight_orig" where torch.nn.utils.prune
            holds it already, or "weight_v" under weight normalisation.
        attribute: what the forward pass reads, "weight" or another.
        holder: the module that has the parameter, where a parametrisation does; else `module`.
    """

    name: str
    module: Any
    parameter: str
    attribute: str = "weight"
    holder: Any = None

    @property
    def label(self) -> str:
        """The name, "weight" where the model itself is the layer."""
        return self.name or "weight"

    @property
    def size(self) -> int:
        """Number of weights, those under a mask included."""
        return self.tensor.numel()

    @property
    def left(self) -> int:
        """Number of weights that no mask of the user's has removed."""
        return self.size if self.mask is None else int(self.mask.count_nonzero())

    @property
    def tensor(self) -> torch.Tensor:
        return getattr(self.module if self.holder is None else self.holder, self.parameter)

    @property
    def bias(self) -> torch.Tensor | None:
        """The module's biases; modules that users registered may have no such attribute."""
        return getattr(self.module, "bias", None) if self.attribute == "weight" else None

    @property
    def mask(self) -> torch.Tensor | None:
        """The mask that torch.nn.utils.prune put there, or None."""
        return self.module._buffers.get(f"{self.attribute}_mask") if self.is_plain else None

    @property
    def unit_axes(self) -> tuple[int, int]:
        """Groups of a convolution, 1 of other weights; and the axis of the output units (of a group)."""
        module = self.module
        if isinstance(module, torch.nn.modules.conv._ConvNd):
            return module.groups, int(module.transposed)
        return 1, int(_is_transposed_linear(module))

    @property
    def is_plain(self) -> bool:
        """Whether the forward pass takes the parameter as it is, or under a mask."""
        return self.holder is None and self.parameter in (self.attribute, f"{self.attribute}_orig")


def build_model(
    layers: Iterable[WeightLayer], *, seed: int = 0, dtype: Any = None, device: Any = None
) -> Any:
    """A torch network sampled from the initialisation of `layers`.

    W^l_ij has standard deviation σ_w/√fan_in, b^l_i ~ N(0, σ_b²). Where σ_b = 0 biases are there, and zero,
    so that training can use them. For an architecture with a graph see `build_graph_model`.

    Args:
        layers: an `Architecture`, or weight layers of a fully connected network from input to output, named
            "layers.0", "layers.1", … (any common prefix, or none).
        seed: of a generator of its own; torch's global random state is neither used nor moved.
        dtype, device: of the parameters (default float32 on the CPU).

    Returns:
        ``torch.nn.Sequential`` (of a graph: ``torch.fx.GraphModule``) whose parameters are named
        "<layer name>.weight" and "<layer name>.bias".

    Raises:
        ModelError: names that cannot be those of one Sequential. ActivationError: no torch form of an
            activation.
    """
    if not getattr(layers, "is_chain", True):
        from .build import build_graph_model

        return build_graph_model(
            cast("Architecture", layers).as_graph(), seed=seed, dtype=dtype, device=device
        )
    generator = torch.Generator().manual_seed(checks.integer("seed", seed, 0))
    stack: OrderedDict[str, Any] = OrderedDict()
    prefixes = set()
    for index, layer in enumerate(layers):
        prefix, _, leaf = layer.name.rpartition(".")
        prefixes.add(prefix)
        if len(prefixes) > 1 or not leaf or "." in prefix or leaf in stack:
            raise ModelError(f"layer names must be like 'layers.0', 'layers.1', …, got {layer.name!r}")
        linear = unfilled(torch.nn.Linear, layer.fan_in, layer.fan_out, dtype=dtype)
        fill_(linear.weight, linear.bias, layer.sigma_w, layer.sigma_b, layer.law, generator)
        stack[leaf] = linear
        if layer.activation is not None:
            stack[f"activation{index}"] = layer.activation.to_torch()
    model = torch.nn.Sequential(stack)
    (prefix,) = prefixes
    if prefix:
        model = torch.nn.Sequential(OrderedDict([(prefix, model)]))
    return model if device is None else model.to(device)


def weight_classes() -> tuple[type, ...]:
    """The module classes whose parameter `weight` pruning ranks: torch's, and those that users registered."""
    nn = torch.nn
    return (nn.Linear, nn.modules.conv._ConvNd, *classes_with_weights())


def taken(module: Any) -> tuple[int, int]:
    """Features or channels that a module with weights takes, and the axes over which it does.

    Raises ModelError for a module that has no weight of that name.
    """
    nn = torch.nn
    if isinstance(module, nn.Linear):
        return module.in_features, 0
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels, len(module.kernel_size)
    if not hasattr(module, "weight"):
        raise ModelError(f"{type(module).__name__} is no Linear or convolution layer")
    return module.weight.shape[1] * getattr(module, "groups", 1), module.weight.ndim - 2


def prunable_weights(
    model: Any, products: Container[int] = (), *, required: bool = True
) -> list[PrunableWeight]:
    """The weight tensors that pruning ranks, in the order of the model's modules, once each.

    These are the weights of Linear, convolution (transposed ones too), bilinear, recurrent and
    `MultiheadAttention` layers, of the `Conv1D` of Hugging Face's transformers, of registered layers, and
    parameters of any module that are among `products`. A parametrised weight (weight or spectral
    normalisation, …) counts at the parameter that it is made from.

    Args:
        products: ids of the parameters that enter matrix products and convolutions
            (`eoc_theory.pytorch.products`), of which those are ranked that have two or more dimensions.
        required: whether there must be one.

    Raises:
        ModelError: the object is not a torch module or has no such weight, or it holds what has no values yet
            (lazy, or on the meta device) or weights that are not plain real numbers.
    """
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found: list[PrunableWeight] = []
    modules = list(model.named_modules())
    for name, module in modules:
        check_values(name, module)
    layers = {name: list(_of_layer(name, module)) for name, module in modules}
    # A tied weight goes by the name of the layer, not by that of the table which it is, too.
    named = {id(weight.tensor) for weights in layers.values() for weight in weights}
    seen: set[int] = set()
    for name, module in modules:
        own = [w for w in _of_products(name, module, products) if id(w.tensor) not in named]
        for weight in (*layers[name], *own):
            if id(weight.tensor) not in seen:
                check_numbers(weight)
                seen.add(id(weight.tensor))
                found.append(weight)
    if required and not found:
        raise ModelError("model has no Linear or convolution layer to prune")
    check_apart(found)
    return found


def _of_layer(name: str, module: Any) -> Iterator[PrunableWeight]:
    """The weights of a layer whose class says what they are."""
    attributes = weight_attributes(module)
    for attribute in attributes:
        held = _held(module, attribute)
        if held is None:
            if attribute == "weight":
                raise ModelError(f"layer {name!r} ({type(module).__name__}) has no parameter 'weight'")
            continue
        label = name if attribute == "weight" else f"{name}.{attribute}" if name else attribute
        yield PrunableWeight(label, module, held[1], attribute, held[0])


def _held(module: Any, attribute: str) -> tuple[Any, str] | None:
    """The module that has the parameter of a weight, if that is another, and the parameter's name."""
    own = module._parameters
    # Weight normalisation keeps directions in "weight_v"; pruning, spectral normalisation "weight_orig".
    for name in (attribute, f"{attribute}_orig", f"{attribute}_v"):
        if own.get(name) is not None:
            return None, name
    lists = module._modules.get("parametrizations")
    if lists is not None and attribute in lists:
        # Of several originals (a norm and a direction) the largest has the weight's entries.
        originals = lists[attribute]._parameters
        if originals:
            return lists[attribute], max(originals, key=lambda key: originals[key].numel())
    return None


def weight_attributes(module: Any) -> tuple[str, ...]:
    """Names of the weights that a layer has by its class, in matrix products and convolutions."""
    nn = torch.nn
    if isinstance(module, (*weight_classes(), nn.Bilinear)) or _is_transposed_linear(module):
        return ("weight",)
    if isinstance(module, nn.MultiheadAttention):
        return ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    if isinstance(module, nn.RNNBase):
        return tuple(name for names in module._all_weights for name in names if name.startswith("weight"))
    if isinstance(module, nn.RNNCellBase):
        return ("weight_ih", "weight_hh")
    return ()


def _is_transposed_linear(module: Any) -> bool:
    """Whether it is the `Conv1D` of transformers: a Linear layer whose weight is (inputs, outputs)."""
    return any(
        base.__name__ == "Conv1D" and base.__module__.startswith("transformers.")
        for base in type(module).__mro__
    )


def _of_products(name: str, module: Any, products: Container[int]) -> Iterator[PrunableWeight]:
    """A module's own parameters that enter products."""
    for key, parameter in module._parameters.items():
        if parameter is None or id(parameter) not in products or not _is_matrix(parameter):
            continue
        attribute = (
            key.removesuffix("_orig") if f"{key.removesuffix('_orig')}_mask" in module._buffers else key
        )
        label = name if attribute == "weight" and name else f"{name}.{attribute}" if name else attribute
        yield PrunableWeight(label, module, key, attribute)


def _is_matrix(parameter: Any) -> bool:
    return sum(extent > 1 for extent in parameter.shape) > 1


def check_apart(weights: list[PrunableWeight]) -> None:
    """Refuse weights of two layers that share memory without being one parameter."""
    stretches = []
    for weight in weights:
        tensor = weight.tensor.detach()
        last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        # data_ptr of a fake or wrapped tensor says nothing.
        first = tensor.data_ptr()
        if first:
            stretches.append((first, first + (last + 1) * tensor.element_size(), weight.name))
    for (_, end, name), (start, _, other) in pairwise(sorted(stretches)):
        if start < end:
            raise ModelError(
                f"the weights of layers {name!r} and {other!r} share memory without being one parameter: "
                "assign the parameter itself (b.weight = a.weight) to tie them, or a copy (.clone())"
            )


def check_values(name: str, module: Any) -> None:
    """Refuse a module that has no values yet, or none that can be read."""
    where = f"layer {name!r} ({type(module).__name__})"
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"module {name!r} ({type(module).__name__}): give the model before torch.jit")
    for kind, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is None:
            continue
        if torch.nn.parameter.is_lazy(tensor):
            raise ModelError(
                f"layer {name!r} is not initialised: call the model once before, on a batch of inputs"
            )
        if tensor.device.type == "meta":
            raise ModelError(f"{where} has its {kind} on the meta device: without values")
    if any(base.__module__.startswith(_QUANTISED) for base in type(module).__mro__):
        raise ModelError(f"{where} is quantised: give the model as it was before, in floating point")


_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def check_numbers(weight: PrunableWeight) -> None:
    """Refuse weights that are not real numbers, each by itself in memory."""
    tensor, where = weight.tensor, f"layer {weight.name!r} ({type(weight.module).__name__})"
    kind = str(tensor.dtype).removeprefix("torch.")
    if not tensor.is_floating_point():
        raise ModelError(f"{where} must have weights of real floating-point numbers, got {kind}")
    if tensor.layout is not torch.strided:
        raise ModelError(f"{where} must have dense weights, got layout {tensor.layout}: use .to_dense()")
    if not tensor.numel():
        raise ModelError(f"{where} must have weights, got shape {tuple(tensor.shape)}")


def uncounted_weights(model: Any, counted: list[PrunableWeight]) -> dict[str, int]:
    """Sizes, by name, of the parameters with two or more dimensions that are not among the `counted`.

    Those of normalisation layers are no weights of products and are left out.
    """
    nn = torch.nn
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)
    known = {id(weight.tensor) for weight in counted}
    found = {}
    for name, module in model.named_modules():
        for own, parameter in module._parameters.items():
            if parameter is None or id(parameter) in known or isinstance(module, norms):
                continue
            known.add(id(parameter))
            if _is_matrix(parameter):
                found[f"{name}.{own}" if name else own] = parameter.numel()
    return found


def uncounted_notes(model: Any, counted: list[PrunableWeight], left: dict[str, int]) -> tuple[str, ...]:
    """What a measurement says of weights `left` that it does not rank, or ranks once for several layers."""
    said = []
    if left:
        names = list(left)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        total = sum(left.values())
        ranked = sum(weight.size for weight in counted)
        said.append(
            f"not counted: {', '.join(names[:_NAMED])}{more} ({total} of {total + ranked} weights): "
            "only weights of matrix products and convolutions are"
        )
    known = {id(weight.tensor): weight for weight in counted}
    for name, module in model.named_modules():
        for own in module._parameters.values():
            first = known.get(id(own))
            if first is not None and module not in (first.module, first.holder):
                said.append(f"weights of {name!r} are those of {first.name!r} and counted once")
    return tuple(said)


#: Weights that a note names one by one.
_NAMED = 3


def chain(model: Any) -> Iterator[tuple[str, Any]]:
    """The leaf modules of a model that is a plain chain (nested ``Sequential``), in order, with their names.

    Raises:
        ModelError: a module's forward pass is its own, so the order cannot be read from it.
    """

    def walk(prefix: str, module: Any) -> Iterator[tuple[str, Any]]:
        if type(module) is torch.nn.Sequential:
            for name, child in module.named_children():
                yield from walk(f"{prefix}.{name}" if prefix else name, child)
        elif next(module.children(), None) is None:
            yield prefix, module
        else:
            raise ModelError(
                f"model must be nested torch.nn.Sequential, "
                f"got {type(module).__name__} at {prefix or 'the top'!r}"
            )

    return walk("", model)


def is_linear_chain(model: Any, weights: Sequence[PrunableWeight]) -> bool:
    """Whether the model is nested Sequential whose only parameters are those of Linear layers that fit."""
    try:
        modules = [m for _, m in chain(model) if next(m.parameters(recurse=False), None) is not None]
    except ModelError:
        return False
    return (
        all(weight.is_plain for weight in weights)
        and [id(m) for m in modules] == [id(w.module) for w in weights]
        and all(isinstance(m, torch.nn.Linear) for m in modules)
        and all(a.out_features == b.in_features for a, b in pairwise(modules))
    )
