"""Which parameters of a model are weights: those that multiply the signal in products and convolutions.

The classes of torch's layers say it of their own parameters. A module of the user's own says it by what its
forward pass does, which is watched here, operation by operation.

torch is imported at module level, so this module is imported only where a model is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from .models import PrunableWeight, uncounted_weights
from .watching import Watching

#: Operations in which a parameter multiplies the signal, by the names that ATen gives them.
_PRODUCTS = frozenset(
    (
        *("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "linear", "_trilinear"),
        *("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution"),
        *("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_grouped_mm", "_scaled_grouped_mm"),
    )
)

#: Operations that look a parameter up.
_TABLES = frozenset(("embedding", "_embedding_bag", "_embedding_bag_forward_only", "index_select"))


def has_candidates(model: Any, counted: list[PrunableWeight]) -> bool:
    """Whether parameters are left that may enter products: matrices of modules that do not say it."""
    return next(candidates(model, counted), None) is not None


def candidates(model: Any, counted: list[PrunableWeight]) -> Iterator[Any]:
    """Those parameters."""
    left = uncounted_weights(model, counted)
    tables = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        if name in left and not isinstance(owner, tables):
            yield parameter


def product_parameters(model: Any, run: Callable[[], Any]) -> frozenset[int]:
    """Ids of the parameters of `model` that enter products with the signal while `run` runs it.

    A parameter counts also where the product takes a view of it, or what is computed from parameters, buffers
    and constants alone (standardised or masked weights, sums of low-rank products). A product of parameters
    alone counts where its result meets the signal in another product.

    Args:
        run: a forward pass of `model` itself, with gradients enabled, so that no fused kernel hides products.
    """
    watch = _Watch(model)
    with torch.enable_grad(), watch:
        run()
    return frozenset(watch.found)


class _Watch(Watching):
    """Follows what is made of parameters alone, by storage: views share it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.found: set[int] = set()
        self._made_of: dict[int, frozenset[int]] = {}
        # What is followed stays alive, or another tensor could take its memory and its name.
        self._alive: list[Any] = []
        for buffer in model.buffers():
            self._follow(buffer, frozenset())
        for parameter in model.parameters():
            self._follow(parameter, frozenset([id(parameter)]))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
        sources = [self._made_of.get(_storage(one)) for one in tensors]
        out = func(*args, **kwargs)
        parameters = frozenset().union(*(source for source in sources if source))
        if None not in sources:
            for one in tree_flatten(out)[0]:
                if isinstance(one, torch.Tensor):
                    self._follow(one, parameters)
            return out
        if func.overloadpacket.__name__ in _PRODUCTS:
            self.found |= parameters
        for one in _written(func, args, kwargs):
            # A table of zeros that the signal was written into is part of the signal.
            self._made_of.pop(_storage(one), None)
        return out

    def _follow(self, tensor: Any, parameters: frozenset[int]) -> None:
        key = _storage(tensor)
        self._made_of[key] = self._made_of.get(key, frozenset()) | parameters
        self._alive.append(tensor)


class ForwardWatch(Watching):
    """Notes in which order a forward pass first takes its parameters, tables of embeddings apart.

    Attributes:
        flops: floating point operations of its products, as torch counts them.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.flops = 0
        self._first: dict[int, int] = {}
        self._left: dict[int, list[int]] = {}
        for parameter in model.parameters():
            self._left.setdefault(_storage(parameter), []).append(id(parameter))

    def sorted(self, weights: list[PrunableWeight]) -> list[PrunableWeight]:
        """Weights as they are taken, those that are not at the end."""
        return sorted(weights, key=lambda weight: self._first.get(id(weight.tensor), len(self._first)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        looked_up = func.overloadpacket.__name__ in _TABLES
        for one in () if looked_up else tree_flatten((args, kwargs or {}))[0]:
            if isinstance(one, torch.Tensor):
                for name in self._left.pop(_storage(one), ()):
                    self._first[name] = len(self._first)
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


def _storage(tensor: Any) -> int:
    return tensor.untyped_storage()._cdata


def _written(func: Any, args: Any, kwargs: Any) -> Iterable[Any]:
    """The tensors that an operation writes into."""
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(argument.name)
            if isinstance(value, torch.Tensor):
                yield value
