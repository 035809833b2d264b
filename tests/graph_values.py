"""A graph's values computed with the weights of the model that it was read from.

Written from the layers' descriptions with NumPy-like torch operations, not with the model's own modules:
where both agree the graph says what the model does.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

import eoc_theory as eoc
from eoc_theory import layers as kinds
from eoc_theory.layers.random_numbers import Draw


def graph_output(graph, model, x):
    """Logits of `model` on the batch `x` as the graph describes them, in float64 evaluation of each node."""
    modules = dict(model.named_modules())
    values = []
    for node in graph.nodes:
        inputs = [values[source] for source in node.inputs]
        value = _value(node.layer, inputs, modules, x)
        values.append(value)
    for value, shape in zip(values, graph.shapes, strict=True):
        assert tuple(value.shape[1:]) == (shape.channels, *shape.space)
    return values[-1]


def token_output(graph, model, x, tables):
    """As `graph_output` of models over tokens; `tables` has what "positions" and "class" tokens hold."""
    modules = dict(model.named_modules())
    values = []
    for node in graph.nodes:
        inputs = [values[i] for i in node.inputs]
        layer = node.layer
        if isinstance(layer, kinds.Embedding):
            value = modules[layer.name].weight[inputs[0].long()].movedim(-1, 1)
        elif isinstance(layer, (kinds.PositionEmbedding, kinds.PositionTable, kinds.Sinusoids)):
            value = inputs[0] + tables["positions"].T.reshape(1, -1, *inputs[0].shape[2:])
        elif isinstance(layer, kinds.ClassToken):
            value = torch.cat([tables["class"].T.expand(len(x), -1, -1), inputs[0].flatten(2)], 2)
        elif isinstance(layer, kinds.ChannelNorm):
            value = _by_numbers(layer, inputs)
        else:
            value = _value(layer, inputs, modules, x)
        values.append(value)
    return values[-1]


#: Layers that `tests/layers` holds against torch by their numbers.
_NUMBERS = (
    kinds.Attention, kinds.ChannelMean, kinds.FixedValue, kinds.Gather, kinds.HeadProduct,
    kinds.JoinPositions, kinds.Length, kinds.Pick, kinds.Reciprocal, kinds.Rotary, kinds.Scatter,
    kinds.Softmax, kinds.UnitLength,
)  # fmt: skip
#: Layers that are one matrix along each axis of positions.
_SEPARABLE = (
    kinds.AveragePool, kinds.AdaptiveAveragePool, kinds.FixedFilter, kinds.Resize, kinds.Pad
)  # fmt: skip


def _by_numbers(layer, inputs):
    arrays = [np.moveaxis(h.detach().numpy(), 0, -1) for h in inputs]
    found = layer.forward_values(arrays, Draw(np.random.default_rng(0), np.float64))[0]
    return torch.from_numpy(np.moveaxis(found, -1, 0).copy())


def _value(layer, inputs, modules, x):
    if isinstance(layer, kinds.Input):
        return x.reshape(len(x), layer.shape.channels, *layer.shape.space)
    if isinstance(layer, _NUMBERS):
        return _by_numbers(layer, inputs)
    if isinstance(layer, kinds.Sum):
        return sum(c * h for c, h in zip(layer.coefficients, inputs, strict=True))
    if isinstance(layer, kinds.Concatenate):
        return torch.cat(inputs, 1)
    if isinstance(layer, kinds.Product):
        value, gate = inputs
        return value * gate.reshape(*gate.shape, *(1,) * (value.dim() - gate.dim()))
    (h,) = inputs
    return _of_one(layer, h, modules)


def _of_one(layer, h, modules):
    """The value of a layer with one input."""
    axes = range(2, h.dim())
    if isinstance(layer, kinds.Dense):
        weight, bias = _parameters(layer.weight.name, modules)
        return h @ weight.T + (0 if bias is None else bias)
    if isinstance(layer, kinds.PositionwiseDense):
        weight, bias = _parameters(layer.weight.name, modules)
        h = torch.einsum("oc,bc...->bo...", weight, h)
        return h + (0 if bias is None else bias.view(1, -1, *[1] * len(axes)))
    if isinstance(layer, kinds.Transpose):
        return h.unsqueeze(-1).flatten(2).transpose(1, 2).unflatten(2, layer.space)
    if isinstance(layer, kinds.ChannelSlice):
        return h[:, layer.start : layer.stop : layer.step]
    if isinstance(layer, kinds.ChannelShuffle):
        cut = np.arange(h.shape[1]).reshape(layer.extents)
        return h[:, torch.from_numpy(cut.transpose(layer.order).reshape(-1).copy())]
    if isinstance(layer, kinds.ChannelNorm):
        h = h - h.mean(1, keepdim=True) if layer.centred else h
        return h / torch.sqrt(h.square().mean(1, keepdim=True) + layer.eps)
    if isinstance(layer, kinds.ChannelScale):
        assert layer.shift == 0
        return layer.gain * h
    if isinstance(layer, kinds.Convolution):
        return _convolution(layer, _parameters(layer.weight.name, modules), h)
    if isinstance(layer, kinds.Nonlinearity):
        return torch.from_numpy(layer.activation(h.detach().numpy()))
    if isinstance(layer, kinds.BatchNorm):
        module = modules[layer.name.partition("#")[0]]
        shape = [1, -1] + [1] * (h.dim() - 2)
        mean, variance = module.running_mean, module.running_var
        if layer.training:
            over = [0, *axes]
            mean, variance = h.mean(over), h.var(over, unbiased=False)
        h = (h - mean.view(shape)) / torch.sqrt(variance.view(shape) + layer.eps)
        return h * module.weight.view(shape) + module.bias.view(shape)
    if isinstance(layer, (kinds.LayerNorm, kinds.GroupNorm)):
        groups = layer.groups if isinstance(layer, kinds.GroupNorm) else 1
        parts = h.reshape(len(h), groups, -1)
        parts = parts - parts.mean(-1, keepdim=True)
        parts = parts / torch.sqrt(parts.square().mean(-1, keepdim=True) + layer.eps)
        return parts.reshape(h.shape)  # gains are 1 and shifts 0 at initialisation
    if isinstance(
        layer, (kinds.AveragePool, kinds.AdaptiveAveragePool, kinds.FixedFilter, kinds.Resize, kinds.Pad)
    ):
        for axis, matrix in zip(axes, layer.matrices(tuple(h.shape[2:])), strict=True):
            h = torch.movedim(torch.movedim(h, axis, -1) @ torch.from_numpy(matrix).T, -1, axis)
        return h
    if isinstance(layer, kinds.MaxPool):
        return _max(layer, h)
    if isinstance(layer, kinds.Flatten):
        return h.reshape(len(h), -1)
    if isinstance(layer, kinds.Subsample):
        return h[(slice(None), slice(None), *(slice(None, None, s) for s in layer.stride))]
    if isinstance(layer, kinds.PadChannels):
        return F.pad(h, (0, 0) * len(axes) + (layer.before, layer.after))
    if isinstance(layer, kinds.Identity):
        return h
    raise AssertionError(layer)


def _parameters(name, modules):
    """Weights and biases of the layer of a name, which may be that of the parameter itself."""
    module = modules.get("" if name == "weight" else name)
    if module is not None and hasattr(module, "weight"):
        return module.weight, module.bias
    path, _, own = name.rpartition(".")
    return getattr(modules[path], own), None


def _convolution(layer, parameters, h):
    weights, bias = parameters
    space, kernel = tuple(h.shape[2:]), layer.weight.kernel
    taps = [layer.taps(axis, extent) for axis, extent in enumerate(space)]
    weight = weights.reshape(layer.groups, -1, layer.weight.channels_in, *kernel)
    parts = h.reshape(len(h), layer.groups, -1, *space)
    out = 0.0
    for tap in itertools.product(*(range(k) for k in kernel)):
        seen = _gather(parts, [t[:, k] for t, k in zip(taps, tap, strict=True)], 0.0)
        out = out + torch.einsum("goc,bgc...->bgo...", weight[(..., *tap)], seen)
    out = out.reshape(len(h), -1, *out.shape[3:])
    bias = 0.0 if bias is None else bias.view(1, -1, *[1] * len(space))
    return out + bias


def _max(layer, h):
    taps = [layer.taps(axis, extent) for axis, extent in enumerate(h.shape[2:])]
    found = [
        _gather(h, [t[:, k] for t, k in zip(taps, tap, strict=True)], -math.inf)
        for tap in itertools.product(*(range(k) for k in layer.kernel))
    ]
    return torch.stack(found).amax(0)


def _gather(h, at, outside):
    """Entries at the positions `at` along the last axes, `outside` where a position is −1."""
    first = h.dim() - len(at)
    for axis, where in enumerate(at, first):
        where = torch.from_numpy(np.asarray(where))
        h = h.index_select(axis, where.clamp(min=0))
        shape = [-1] + [1] * (h.dim() - axis - 1)
        h = torch.where((where < 0).view(shape), torch.tensor(outside, dtype=h.dtype), h)
    return h


def checked(model, x, **tables):
    """The graph of a model, of the same logits; what is built of it returns as many."""
    model = model.double().eval()
    x = x.double() if x.is_floating_point() else x
    net = eoc.Architecture.from_torch(model, x)
    graph = net.as_graph()
    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(token_output(graph, model, x, tables), expected, rtol=1e-6, atol=1e-9)
        given = x.float() if x.is_floating_point() else x
        assert net.to_torch(0)(given).shape == expected.shape
    return graph
