"""The positive linear network behind SynFlow: any graph of layers run in torch on absolute weights.

R = Σ outputs for an input of ones, with every weight replaced by its absolute value, biases 0, activations
and normalisation the identity, dropout off; average pooling, max-pooling, sums (with the absolute values of
their coefficients) and concatenation as they are. For a freshly initialised network of ReLU units that is
what Tanaka et al. 2020 (algorithm 1, and their code) compute in evaluation mode: there ReLU sees positive
values alone, and BatchNorm with its first statistics divides by 1. Other activations are left out here, so
that R is linear in each layer's weights; γ of a normalisation is left out too.

Deep networks leave the range of any floating-point format: every value is carried as a tensor of entries near
1 and a power of two. The power is a constant of the whole tensor, so the scores |W| ∂R/∂|W| of all layers
have one common factor, in a network with branches too: what is scaled is R, not a layer.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from functools import singledispatch
from typing import Any, NamedTuple

from ..errors import ModelError
from ..layers import (
    AdaptiveAveragePool,
    AveragePool,
    ChannelScale,
    ChannelShuffle,
    ChannelSlice,
    Concatenate,
    Convolution,
    Dense,
    FixedFilter,
    Flatten,
    Layer,
    MaxPool,
    Pad,
    PadChannels,
    Pick,
    PositionwiseDense,
    Product,
    Resize,
    Shape,
    Subsample,
    Sum,
    Transpose,
    Weighted,
)
from ..networks.graph import Graph
from .lazy import torch


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Convolutions of float32 as such, and the same on every run; a GPU would round to 10 bits by default."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


class Scaled(NamedTuple):
    """entries · 2^exponent, the entries of the shape (1, channels, *space)."""

    entries: torch.Tensor
    exponent: int


def flow_scores(graph: Graph, weights: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """|W| ∂R/∂|W| for every weight layer of the graph, up to one common factor.

    Σ over the layers of any cut through the graph is R (Tanaka et al. 2020, theorem 1, for a chain: every
    layer's sum); the factor is such that R has an order of magnitude of 1 per class, or is 0.

    Args:
        weights: non-negative weights by the layer's name, for all weight layers of the graph, of their
            `weight_shape`, one dtype and device.

    Returns:
        tensors of the weights' shapes, in the order of `weights`.

    Raises:
        ModelError: a layer type that has no linear counterpart here.
    """
    gradients, ordered = _derivatives(graph, weights)
    with torch.no_grad():
        return [g.mul_(w) for g, w in zip(gradients, ordered, strict=True)]


def check_flow(graph: Graph, weights: Mapping[str, torch.Tensor]) -> None:
    """Raises ModelError where a layer of the graph has no linear counterpart here; weights by layer name."""
    with torch.no_grad():
        _run(graph, {name: _near_one(w) for name, w in weights.items()})


def path_counts(graph: Graph, masks: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """∂R/∂mask: 0 where an entry, kept or not, joins no path of kept ones from the input to the logits.

    Args:
        masks: boolean, by the layer's name, otherwise as in `flow_scores`.

    Returns:
        float64 tensors of the masks' shapes, in their order.
    """
    return _derivatives(graph, {name: mask.double() for name, mask in masks.items()})[0]


def paths_through(graph: Graph, masks: Mapping[str, torch.Tensor], name: str) -> list[torch.Tensor]:
    """As `path_counts`, of those paths only that go through a kept weight of the layer `name`.

    Every path uses a layer's weights once at most, so that R is linear in them: what R loses without the
    layer is Σ mask ∂R/∂mask over its entries, and no difference of large numbers is taken.
    """
    device = next(iter(masks.values())).device
    with full_precision(device), torch.enable_grad():
        leaves = {key: Scaled(mask.double().requires_grad_(), 0) for key, mask in masks.items()}
        total, own = _run(graph, leaves).entries.sum(), leaves[name].entries
        (along,) = torch.autograd.grad(total, own, create_graph=True)
        ordered = [leaf.entries for leaf in leaves.values()]
        return list(torch.autograd.grad((along * own).sum(), ordered, materialize_grads=True))


def _derivatives(
    graph: Graph, weights: Mapping[str, torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """∂R/∂w for every entry, and the entries w near 1 that it is for."""
    device = next(iter(weights.values())).device
    with full_precision(device), torch.enable_grad():
        leaves = {name: _near_one(w.detach()) for name, w in weights.items()}
        for leaf in leaves.values():
            leaf.entries.requires_grad_()
        total = _run(graph, leaves).entries.sum()
        ordered = [leaf.entries for leaf in leaves.values()]
        return list(torch.autograd.grad(total, ordered, materialize_grads=True)), ordered


def _run(graph: Graph, weights: Mapping[str, Scaled]) -> Scaled:
    some = next(iter(weights.values())).entries
    last_use = {source: i for i, node in enumerate(graph.nodes) for source in node.inputs}
    values: dict[int, Scaled] = {}
    for position, node in enumerate(graph.nodes):
        inputs = [values[source] for source in node.inputs]
        values[position] = _flow(node.layer, inputs, weights) if inputs else _ones(graph.input_shape, some)
        shape = graph.shapes[position]
        if values[position].entries.shape[1:] != (shape.channels, *shape.space):
            raise _refusal(node.layer)  # it moves values, and no rule says how
        for source in set(node.inputs):
            if last_use[source] == position:
                del values[source]
    return values[len(graph.nodes) - 1]


def _near_one(entries: torch.Tensor, exponent: int = 0) -> Scaled:
    """The same with its largest entry near 1; a power of two loses no digit."""
    top = float(entries.detach().max())
    if not math.isfinite(top):
        raise ModelError(f"weights must be finite, and sums of them within {entries.dtype}, got {top}")
    shift = math.frexp(top)[1] if top > 0 else 0
    if abs(shift) < 16:  # near enough
        return Scaled(entries, exponent)
    # In two steps: 2^-shift alone may be out of range where the product is not.
    half = shift // 2
    return Scaled((entries * 2.0**-half) * 2.0 ** (half - shift), exponent + shift)


def _aligned(values: list[Scaled]) -> tuple[list[torch.Tensor], int]:
    """Entries with one common exponent: that of the largest value which is not all 0."""
    alive = [v.exponent for v in values if bool((v.entries.detach() > 0).any())]
    exponent = max(alive, default=0)
    return [
        # Far below the largest, a value vanishes; its own gradient would be below any other's too.
        v.entries if v.exponent == exponent else v.entries * 2.0 ** min(v.exponent - exponent, 0)
        for v in values
    ], exponent


def _ones(shape: Shape, like: torch.Tensor) -> Scaled:
    """The input."""
    size = (1, shape.channels, *shape.space)
    return Scaled(torch.ones(size, dtype=like.dtype, device=like.device), 0)


# --- what a layer makes of its inputs -----------------------------------------------------------------------


@singledispatch
def _flow(layer: Layer, inputs: list[Scaled], weights: Mapping[str, Scaled]) -> Scaled:
    """The layer's value, of its inputs' and the weights by layer name."""
    if len(inputs) > 1 or layer.attends:
        raise _refusal(layer)
    return Scaled(_moved(layer, inputs[0].entries), inputs[0].exponent)


@_flow.register
def _(layer: Weighted, inputs: list[Scaled], weights: Mapping[str, Scaled]) -> Scaled:
    weight = weights[layer.weight.name]
    entries = _product(layer, inputs[0].entries, weight.entries)
    return _near_one(entries, inputs[0].exponent + weight.exponent)


@_flow.register
def _(layer: Sum, inputs: list[Scaled], weights: Mapping[str, Scaled]) -> Scaled:
    parts, exponent = _aligned(inputs)
    terms = [abs(c) * p for c, p in zip(layer.coefficients, parts, strict=True)]
    return _near_one(sum(terms[1:], terms[0]), exponent)


@_flow.register
def _(layer: Concatenate, inputs: list[Scaled], weights: Mapping[str, Scaled]) -> Scaled:
    parts, exponent = _aligned(inputs)
    return Scaled(torch.cat(parts, dim=1), exponent)


@_flow.register
def _(layer: Product, inputs: list[Scaled], weights: Mapping[str, Scaled]) -> Scaled:
    value, gate = (part.entries for part in inputs)
    wide = gate.reshape(*gate.shape, *(1,) * (value.ndim - gate.ndim))
    return _near_one(value * wide, inputs[0].exponent + inputs[1].exponent)


def _refusal(layer: Layer) -> ModelError:
    return ModelError(f"layer {layer.name!r} ({type(layer).__name__}) has no linear counterpart for synflow")


# --- layers with weights ---


@singledispatch
def _product(layer: Weighted, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What non-negative weights make of x, without biases."""
    raise _refusal(layer)


@_product.register
def _(layer: Dense, x: Any, weight: Any) -> Any:
    return x @ weight.T


@_product.register
def _(layer: PositionwiseDense, x: Any, weight: Any) -> Any:
    return (x.movedim(1, -1) @ weight.T).movedim(-1, 1)


@_product.register
def _(layer: Convolution, x: Any, weight: Any) -> Any:
    functional = torch.nn.functional
    convolve = (functional.conv1d, functional.conv2d)[len(layer.stride) - 1]
    padding: Any = tuple(before for before, _ in layer.padding)
    if layer.padding_mode != "zeros" or any(before != after for before, after in layer.padding):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        # torch names the last axis first.
        x = functional.pad(x, [side for pair in reversed(layer.padding) for side in pair], mode=mode)
        padding = 0
    return convolve(x, weight, None, layer.stride, padding, layer.dilation, layer.groups)


# --- layers without weights ---


@singledispatch
def _moved(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """What a layer without weights makes of one value; nothing where it leaves SynFlow's means alone."""
    if type(layer).forward_means is not Layer.forward_means:
        raise _refusal(layer)
    return x


@_moved.register
def _(layer: AveragePool, x: Any) -> Any:
    functional = torch.nn.functional
    pool = (functional.avg_pool1d, functional.avg_pool2d)[len(layer.kernel) - 1]
    return pool(x, layer.kernel, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad)


@_moved.register
def _(layer: AdaptiveAveragePool, x: Any) -> Any:
    functional: Any = torch.nn.functional
    pool = (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d)[len(layer.output) - 1]
    return pool(x, layer.output)


@_moved.register
def _(layer: MaxPool, x: Any) -> Any:
    functional = torch.nn.functional
    pool = (functional.max_pool1d, functional.max_pool2d)[len(layer.kernel) - 1]
    return pool(x, layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)


@_moved.register
def _(layer: Pick, x: Any) -> Any:
    return x.flatten(2)[:, :, layer.index]


@_moved.register
def _(layer: Subsample, x: Any) -> Any:
    return x[(slice(None), slice(None), *(slice(None, None, step) for step in layer.stride))]


@_moved.register(Resize)
@_moved.register(Pad)
@_moved.register(FixedFilter)
def _mapped(layer: Resize | Pad | FixedFilter, x: Any) -> Any:
    for axis, matrix in enumerate(layer.matrices(tuple(x.shape[2:])), start=2):
        along = torch.as_tensor(matrix, dtype=x.dtype, device=x.device)
        x = (x.movedim(axis, -1) @ along.T).movedim(-1, axis)
    return x


@_moved.register
def _(layer: ChannelScale, x: Any) -> Any:
    return abs(layer.gain) * x


@_moved.register
def _(layer: ChannelSlice, x: Any) -> Any:
    return x[:, layer.start : layer.stop : layer.step]


@_moved.register
def _(layer: ChannelShuffle, x: Any) -> Any:
    return x[:, torch.as_tensor(layer.permutation, device=x.device)]


@_moved.register
def _(layer: Transpose, x: Any) -> Any:
    return x.flatten(2).transpose(1, 2).unflatten(2, layer.space)


@_moved.register
def _(layer: PadChannels, x: Any) -> Any:
    sides = [0] * (2 * (x.ndim - 2)) + [layer.before, layer.after]
    return torch.nn.functional.pad(x, sides)


@_moved.register
def _(layer: Flatten, x: Any) -> Any:
    return x.reshape(1, -1)
