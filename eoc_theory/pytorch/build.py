"""The torch model of a graph: modules at the layers' names, run by a forward pass written with torch.fx.

torch is imported at module level, so this module is imported only where a model is asked for.
"""

from __future__ import annotations

import operator
from functools import singledispatch
from typing import Any

import torch
from torch import fx, nn

from ..base import checks
from ..errors import ModelError
from ..layers import (
    AdaptiveAveragePool,
    Attention,
    AveragePool,
    BatchNorm,
    ByCount,
    ChannelMean,
    ChannelNorm,
    ChannelScale,
    ChannelShuffle,
    ChannelSlice,
    ClassToken,
    Concatenate,
    Convolution,
    CountEmbedding,
    Dense,
    Dropout,
    Embedding,
    FixedFilter,
    FixedValue,
    Flatten,
    Gather,
    GroupNorm,
    HeadProduct,
    Identity,
    JoinPositions,
    KnownTokens,
    Layer,
    LayerNorm,
    Length,
    MaxPool,
    Nonlinearity,
    OnlyKnown,
    Pad,
    PadChannels,
    PartOfInput,
    Pick,
    PickKnown,
    PositionEmbedding,
    PositionTable,
    PositionwiseDense,
    Product,
    Reciprocal,
    Resize,
    Rotary,
    Scatter,
    Shape,
    Sinusoids,
    Softmax,
    StochasticDepth,
    Subsample,
    Sum,
    Transpose,
    UnitLength,
    Weighted,
)
from ..networks.graph import Graph
from . import layer_modules as own
from .weights import fill_, unfilled


def build_graph_model(
    graph: Graph, *, seed: int = 0, dtype: torch.dtype | None = None, device: Any = None
) -> fx.GraphModule:
    """A torch model that computes `graph`, sampled from the initialisation of its layers.

    Inputs have shape (batch, channels, *extent), outputs (batch, classes) or, of every token, (batch, tokens,
    classes). Every layer that torch has a module for is that module, at
    its qualified name; sums, concatenations and shortcuts are function calls. Layers have biases, zero where
    σ_b = 0, so that training can use them; only a layer straight before a batch normalisation, which takes
    any bias away again, has none. Normalisation layers have γ = their gain and β ~ N(0, shift²).

    Args:
        seed: of a generator of its own; torch's global random state is neither used nor moved.
        dtype, device: of the parameters (default float32 on the CPU).

    Returns:
        a ``torch.fx.GraphModule``: it can be copied, pickled, traced and printed as code. It is in training
        mode, but for the layers that the graph has in evaluation mode.

    Raises:
        ModelError: names that cannot be those of modules. ActivationError: no torch form of an activation.
    """
    generator = torch.Generator().manual_seed(checks.integer("seed", seed, 0))
    modules: dict[str, nn.Module] = {}
    layers: dict[str, Layer] = {}
    program = fx.Graph()
    values = [program.placeholder("x")]
    for position, node in enumerate(graph.nodes[1:], start=1):
        layer = node.layer
        inputs = [values[i] for i in node.inputs]
        shape = graph.shapes[node.inputs[0]] if node.inputs else graph.input_shape
        if _is_call(layer):
            values.append(_call(layer, program, inputs, shape))
            continue
        name = _free_name(layer, layers)
        if name not in modules:
            module = layer.build(shape) if _builds_itself(layer) else _module(layer, shape)
            if _is_centred(graph, position):
                module.register_parameter("bias", None)
            _draw(layer, module, generator)
            modules[name], layers[name] = module.to(dtype=dtype), layer
        inputs = [_before(layer, program, value) for value in inputs]
        values.append(program.call_module(name, tuple(inputs)))
    logits = values[-1]
    if graph.output_shape.space:
        # Of every token, classes last, as torch models of texts have them.
        logits = program.call_method("movedim", (logits, 1, -1))
    program.output(logits)
    # Of a module, unlike of a dict, fx keeps the order: parameters come as the forward pass meets them.
    model = fx.GraphModule(_nested(modules), program, class_name="Network")
    _set_modes(model, layers)
    return model if device is None else model.to(device)


def _free_name(layer: Layer, taken: dict[str, Layer]) -> str:
    """The layer's name, with a number where another layer has it; an equal one is the same module again."""
    if not all(layer.name.split(".")):
        raise ModelError(f"layer names must be like 'conv1' or 'stages.0.conv1', got {layer.name!r}")
    name, number = layer.name, 1
    while name in taken and taken[name] != layer:
        name, number = f"{layer.name}_{number}", number + 1
    return name


def _is_centred(graph: Graph, position: int) -> bool:
    """Whether a bias at this node would be taken away by the batch normalisation after it."""
    layer, after = graph.nodes[position].layer.weighted, graph.consumers[position]
    if layer is None or layer.weight.sigma_b > 0:
        return False
    return bool(after) and all(graph.nodes[i].layer.batch_statistics is not None for i in after)


def _nested(modules: dict[str, nn.Module]) -> nn.Module:
    """A module that holds each of `modules` at its qualified name."""
    root = nn.Module()
    for name, module in modules.items():
        parent, path = root, ""
        *above, leaf = name.split(".")
        for part in above:
            path = f"{path}.{part}" if path else part
            if not hasattr(parent, part):
                parent.add_module(part, modules.get(path, nn.Module()))
            parent = parent.get_submodule(part)
        parent.add_module(leaf, module)
    return root


def _set_modes(model: nn.Module, layers: dict[str, Layer]) -> None:
    modes = {name: layer.mode for name, layer in layers.items() if layer.mode is not None}
    # A model that only has layers in evaluation mode is in it as a whole.
    model.train(not modes or any(modes.values()))
    for name, training in modes.items():
        model.get_submodule(name).train(training)


# --- layers as modules --------------------------------------------------------------------------------------


@singledispatch
def _module(layer: Layer, shape: Shape) -> nn.Module:
    """The torch module of a layer that takes values of `shape`."""
    return layer.build(shape)


def _builds_itself(layer: Layer) -> bool:
    """Whether the layer's class has a module of its own, though it may inherit from one of the library's."""
    return type(layer).build is not Layer.build


def _by_axes(layer: Layer, axes: int, *kinds: type) -> Any:
    """The kind for 1, 2, … axes."""
    if not 1 <= axes <= len(kinds):
        raise ModelError(f"layer {layer.name!r} must act on 1 to {len(kinds)} axes, got {axes}")
    return kinds[axes - 1]


@_module.register
def _(layer: Dense, shape: Shape) -> nn.Module:
    return unfilled(nn.Linear, layer.weight.fan_in, layer.weight.fan_out)


@_module.register
def _(layer: Convolution, shape: Shape) -> nn.Module:
    kind = _by_axes(layer, len(layer.weight.kernel), nn.Conv1d, nn.Conv2d)
    padded = _torch_pads(layer)
    return unfilled(
        kind,
        shape.channels,
        layer.weight.fan_out,
        layer.weight.kernel,
        stride=layer.stride,
        padding=tuple(before for before, _ in layer.padding) if padded else 0,
        dilation=layer.dilation,
        groups=layer.groups,
        padding_mode=layer.padding_mode if padded else "zeros",
    )


@_module.register
def _(layer: PositionwiseDense, shape: Shape) -> nn.Module:
    return unfilled(own.PositionwiseLinear, layer.weight.fan_in, layer.weight.fan_out)


@_module.register
def _(layer: ChannelNorm, shape: Shape) -> nn.Module:
    if not layer.centred:
        return own.RMSNormOverChannels(shape.channels, layer.eps, bias=layer.shift > 0)
    return own.LayerNormOverChannels(shape.channels, eps=layer.eps)


@_module.register
def _(layer: Embedding, shape: Shape) -> nn.Module:
    return unfilled(own.TokenEmbedding, layer.tokens, layer.features, padding_idx=layer.padding)


@_module.register
def _(layer: CountEmbedding, shape: Shape) -> nn.Module:
    return unfilled(own.CountEmbedding, shape.positions + 1, layer.features, padding=layer.padding)


@_module.register
def _(layer: PositionEmbedding, shape: Shape) -> nn.Module:
    return own.PositionEmbedding(shape.channels, (1,) * len(shape.space) if layer.shared else shape.space)


@_module.register
def _(layer: Sinusoids, shape: Shape) -> nn.Module:
    table = torch.from_numpy(layer.table(shape)).to(torch.get_default_dtype())
    return own.Sinusoids(table.reshape(shape.channels, *shape.space))


@_module.register
def _(layer: ClassToken, shape: Shape) -> nn.Module:
    return own.ClassToken(shape.channels, layer.count)


@_module.register
def _(layer: PositionTable, shape: Shape) -> nn.Module:
    if layer.table.shape[0] != shape.channels:
        raise layer.refuse(f"{layer.table.shape[0]} channels", shape)
    table = torch.tensor(layer.table.array).to(torch.get_default_dtype())
    return own.Sinusoids(table.reshape(shape.channels, *shape.space))


@_module.register
def _(layer: FixedValue, shape: Shape) -> nn.Module:
    table = torch.tensor(layer.table.array).to(torch.get_default_dtype())
    return own.FixedValue(table.reshape(-1, *layer.space))


@_module.register
def _(layer: UnitLength, shape: Shape) -> nn.Module:
    return own.UnitLength(layer.heads, layer.over_positions, layer.eps, layer.centred, layer.added)


@_module.register
def _(layer: Softmax, shape: Shape) -> nn.Module:
    return own.Softmax(layer.extents, layer.over_positions)


@_module.register
def _(layer: FixedFilter, shape: Shape) -> nn.Module:
    taps = [torch.tensor(one, dtype=torch.get_default_dtype()) for one in layer.taps]
    whole = taps[0] if len(taps) == 1 else torch.outer(*taps)
    return own.FixedFilter(whole, layer.stride, layer.padding, layer.dilation)


@_module.register
def _(layer: Rotary, shape: Shape) -> nn.Module:
    return own.Rotary(layer.head, torch.tensor(layer.turns(shape.positions)), layer.interleaved)


@_module.register
def _(layer: ChannelScale, shape: Shape) -> nn.Module:
    return own.ChannelScale(shape.channels, len(shape.space), bias=layer.shift > 0)


@_module.register
def _(layer: StochasticDepth, shape: Shape) -> nn.Module:
    return own.StochasticDepth(layer.p)


@_module.register
def _(layer: Resize, shape: Shape) -> nn.Module:
    linear = {1: "linear", 2: "bilinear"}[len(layer.output)]
    kind, _, rest = layer.interpolation.partition(" ")
    mode = {"nearest": "nearest", "cubic": "bicubic"}.get(kind, linear)
    aligned = None if mode == "nearest" else "aligned" in (kind, rest)
    return nn.Upsample(layer.output, mode=mode, align_corners=aligned)


@_module.register
def _(layer: Nonlinearity, shape: Shape) -> nn.Module:
    return layer.activation.to_torch()


@_module.register
def _(layer: Dropout, shape: Shape) -> nn.Module:
    if layer.channelwise and shape.space:
        return _by_axes(layer, len(shape.space), nn.Dropout1d, nn.Dropout2d)(layer.p)
    return nn.Dropout(layer.p)


@_module.register
def _(layer: BatchNorm, shape: Shape) -> nn.Module:
    kind = _by_axes(layer, max(len(shape.space), 1), nn.BatchNorm1d, nn.BatchNorm2d)
    return kind(shape.channels, eps=layer.eps)


@_module.register
def _(layer: LayerNorm, shape: Shape) -> nn.Module:
    return nn.LayerNorm([shape.channels, *shape.space], eps=layer.eps)


@_module.register
def _(layer: GroupNorm, shape: Shape) -> nn.Module:
    return nn.GroupNorm(layer.groups, shape.channels, eps=layer.eps)


@_module.register
def _(layer: AveragePool, shape: Shape) -> nn.Module:
    kind = _by_axes(layer, len(layer.kernel), nn.AvgPool1d, nn.AvgPool2d)
    return kind(layer.kernel, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad)


@_module.register
def _(layer: AdaptiveAveragePool, shape: Shape) -> nn.Module:
    kind = _by_axes(layer, len(layer.output), nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
    return kind(layer.output)


@_module.register
def _(layer: MaxPool, shape: Shape) -> nn.Module:
    kind = _by_axes(layer, len(layer.kernel), nn.MaxPool1d, nn.MaxPool2d)
    # MaxPool1d takes numbers alone.
    sizes = (layer.kernel, layer.stride, layer.padding, layer.dilation)
    kernel, stride, padding, dilation = (n[0] if len(n) == 1 else n for n in sizes)
    return kind(kernel, stride, padding, dilation, ceil_mode=layer.ceil_mode)


@_module.register
def _(layer: Flatten, shape: Shape) -> nn.Module:
    return nn.Flatten()


@_module.register
def _(layer: Identity, shape: Shape) -> nn.Module:
    return nn.Identity()


# --- what their parameters are ------------------------------------------------------------------------------


@singledispatch
def _draw(layer: Layer, module: nn.Module, generator: torch.Generator) -> None:
    """Parameters and statistics of a new module by the layer's law."""


@_draw.register
def _(layer: Weighted, module: nn.Module, generator: torch.Generator) -> None:
    law, bias = layer.weight, getattr(module, "bias", None)
    fill_(module.weight, bias, law.sigma_w, law.sigma_b, law.law, generator, layer.groups)


@_draw.register(LayerNorm)
@_draw.register(ChannelNorm)
@_draw.register(ChannelScale)
@_draw.register(GroupNorm)
def _draw_normalisation(
    layer: LayerNorm | ChannelNorm | ChannelScale | GroupNorm, module: nn.Module, generator: torch.Generator
) -> None:
    _scale_and_shift(layer.gain, layer.shift, module, generator)


@_draw.register
def _(layer: BatchNorm, module: nn.Module, generator: torch.Generator) -> None:
    _scale_and_shift(layer.gain, layer.shift, module, generator)
    with torch.no_grad():
        module.running_var.fill_(layer.variance)  # type: ignore[operator, union-attr]


@_draw.register
def _(layer: Embedding, module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        module.weight.normal_(0.0, layer.std, generator=generator)  # type: ignore[operator, union-attr]
        if layer.padding is not None:
            module.weight[layer.padding] = 0.0  # type: ignore[index]


@_draw.register
def _(layer: CountEmbedding, module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        module.weight.normal_(0.0, layer.std, generator=generator)  # type: ignore[operator, union-attr]
        module.weight[0] *= not layer.blank  # type: ignore[index]


@_draw.register(PositionEmbedding)
@_draw.register(ClassToken)
def _draw_tokens(
    layer: PositionEmbedding | ClassToken, module: nn.Module, generator: torch.Generator
) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, layer.std, generator=generator)


def _scale_and_shift(gain: float, shift: float, module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        module.weight.fill_(gain)  # type: ignore[operator, union-attr]
        if shift > 0:
            module.bias.normal_(0.0, shift, generator=generator)  # type: ignore[operator, union-attr]


# --- what stands before them --------------------------------------------------------------------------------


@singledispatch
def _before(layer: Layer, program: fx.Graph, value: fx.Node) -> fx.Node:
    """An input of the module, after what the layer does and the module cannot."""
    return value


@_before.register
def _(layer: Convolution, program: fx.Graph, value: fx.Node) -> fx.Node:
    if _torch_pads(layer):
        return value
    return program.call_function(
        nn.functional.pad, (value, _pad_argument(layer)), {"mode": _PAD_MODES[layer.padding_mode]}
    )


_PAD_MODES = {"zeros": "constant", "circular": "circular", "reflect": "reflect"}


def _torch_pads(layer: Convolution) -> bool:
    """Whether the module can pad by itself: the same before and after."""
    return all(before == after for before, after in layer.padding)


def _pad_argument(layer: Convolution) -> tuple[int, ...]:
    """As ``torch.nn.functional.pad`` takes it, the last axis first."""
    return tuple(n for pair in reversed(layer.padding) for n in pair)


# --- layers as function calls -------------------------------------------------------------------------------


@singledispatch
def _call(layer: Layer, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    """The function call of a layer without a module, on values of `shape`."""
    raise TypeError(type(layer).__name__)


def _is_call(layer: Layer) -> bool:
    """Whether a function call stands for the layer, and no module."""
    return not _builds_itself(layer) and _call.dispatch(type(layer)) is not _call.dispatch(object)


@_call.register
def _(layer: Sum, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    first, *rest = zip(inputs, layer.coefficients, strict=True)
    total, coefficient = first
    if coefficient != 1 or not rest:
        total = program.call_function(operator.mul, (total, coefficient))
    for value, coefficient in rest:
        if coefficient == 1:
            total = program.call_function(operator.add, (total, value))
        else:
            total = program.call_function(torch.add, (total, value), {"alpha": coefficient})
    return total


@_call.register
def _(layer: Concatenate, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(torch.cat, (inputs, 1))


@_call.register
def _(layer: Subsample, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    every = slice(None)
    return program.call_function(
        operator.getitem, (inputs[0], (every, every, *(slice(None, None, step) for step in layer.stride)))
    )


@_call.register
def _(layer: PadChannels, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    pads = (0, 0) * len(shape.space) + (layer.before, layer.after)
    return program.call_function(nn.functional.pad, (inputs[0], pads))


@_call.register
def _(layer: ChannelSlice, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    part = slice(layer.start, layer.stop, layer.step)
    return program.call_function(operator.getitem, (inputs[0], (slice(None), part)))


@_call.register
def _(layer: ChannelShuffle, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    rank = len(layer.extents)
    order = (0, *(axis + 1 for axis in layer.order), *range(rank + 1, rank + 1 + len(shape.space)))
    cut = program.call_method("unflatten", (inputs[0], 1, layer.extents))
    moved = program.call_method("permute", (cut, order))
    return program.call_function(torch.flatten, (moved, 1, rank))


@_call.register
def _(layer: Product, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(own.multiplied, tuple(inputs))


@_call.register
def _(layer: Pad, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    pads = tuple(n for pair in reversed(layer.pads) for n in pair)
    return program.call_function(
        nn.functional.pad, (inputs[0], pads), {"mode": _PAD_MODES[layer.padding_mode]}
    )


@_call.register
def _(layer: Transpose, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    flat = program.call_function(torch.flatten, (program.call_method("unsqueeze", (inputs[0], -1)), 2))
    turned = program.call_function(torch.transpose, (flat, 1, 2))
    return turned if len(layer.space) == 1 else program.call_method("unflatten", (turned, 2, layer.space))


@_call.register
def _(layer: Attention, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    mask = None if layer.mask is None else _tuples(layer.mask.array.tolist())
    options = (layer.heads, layer.kv_heads, layer.scale, layer.causal, layer.drop, mask)
    bias = inputs[3] if layer.biased else None
    more = (layer.windows, layer.channelwise, inputs[-1] if layer.padded else None)
    return program.call_function(own.attended, (*inputs[:3], bias, *options, *more))


@_call.register
def _(layer: KnownTokens, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(own.known_tokens, (inputs[0], layer.padding))


@_call.register
def _(layer: PartOfInput, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    part = program.call_method("narrow", (inputs[0], 1, layer.start, layer.shape.size))
    return program.call_method("unflatten", (part, 1, (layer.shape.channels, *layer.shape.space)))


@_call.register
def _(layer: OnlyKnown, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(own.only_known, tuple(inputs))


@_call.register
def _(layer: ByCount, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(own.by_count, tuple(inputs))


@_call.register
def _(layer: PickKnown, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(own.pick_known, (*inputs, layer.which))


@_call.register
def _(layer: Pick, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    flat = program.call_function(torch.flatten, (inputs[0], 2))
    every = slice(None)
    return program.call_function(operator.getitem, (flat, (every, every, layer.index)))


@_call.register
def _(layer: Gather, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(own.gathered, (inputs[0], layer.space, layer.chosen))


@_call.register
def _(layer: HeadProduct, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    kinds = layer.left, layer.right
    return program.call_function(own.head_product, (*inputs, kinds, layer.size, layer.heads, layer.windows))


@_call.register
def _(layer: Length, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    axes = tuple(range(2, 2 + len(shape.space)))
    return program.call_function(torch.linalg.vector_norm, (inputs[0], 2, axes, True))


@_call.register
def _(layer: ChannelMean, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(torch.mean, (inputs[0], 1, True))


@_call.register
def _(layer: Reciprocal, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(torch.reciprocal, (inputs[0],))


@_call.register
def _(layer: Scatter, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    return program.call_function(own.scattered, (inputs[0], layer.space, layer.targets))


@_call.register
def _(layer: JoinPositions, program: fx.Graph, inputs: list[fx.Node], shape: Shape) -> fx.Node:
    flat = [program.call_function(torch.flatten, (one, 2)) for one in inputs]
    return program.call_function(torch.cat, (flat, 2))


def _tuples(values: Any) -> Any:
    """Lists in lists as tuples in tuples."""
    return tuple(map(_tuples, values)) if isinstance(values, list) else values
