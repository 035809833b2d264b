"""A narrower network in place of a very wide one, whose score distributions hardly depend on the width.

All hidden widths shrink by one factor. What a width changes is of relative order 1/width, while the cost of a
sampled network goes with its square; with normalisation 16 channels give the kept fractions of 96 within
0.01, without it networks of fewer than 128 channels are left as they are.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import ModelError
from ..layers import (
    Convolution,
    Dense,
    GroupNorm,
    Layer,
    PadChannels,
    Shape,
    WeightLayer,
)
from .graph import Graph, Node

#: Fewest channels of a narrowed layer, with normalisation and without.
LEAST_NORMALISED, LEAST_PLAIN = 32, 128


def narrowed(graph: Graph, factor: float) -> Graph:
    """The graph with all hidden widths times `factor`, rounded to what groups of channels allow.

    Raises:
        ModelError: widths that cannot shrink together.
    """
    nodes: list[Node] = []
    shapes: list[Shape] = []
    for position, node in enumerate(graph.nodes):
        inputs = [shapes[i] for i in node.inputs]
        whole = [graph.shapes[i] for i in node.inputs]
        layer = _narrow(
            node.layer, inputs, whole, factor, graph.shapes[position], position == graph.weighted[-1]
        )
        nodes.append(Node(layer, node.inputs))
        shapes.append(layer.output_shape(*inputs))
    return Graph(tuple(nodes))


def _narrow(
    layer: Layer, inputs: list[Shape], whole: list[Shape], factor: float, value: Shape, last: bool
) -> Layer:
    if isinstance(layer, Dense):
        fan_out = layer.weight.fan_out if last else _width(layer.weight.fan_out, factor, 1)
        return replace(layer, weight=_weights(layer.weight, inputs[0].channels, fan_out))
    if isinstance(layer, Convolution):
        # Groups keep their number, but for depthwise convolutions, which keep their one channel.
        groups = inputs[0].channels if layer.depthwise else layer.groups
        if inputs[0].channels % groups:
            raise ModelError(f"layer {layer.name!r} has groups that cannot be narrowed")
        if layer.depthwise:
            fan_out = inputs[0].channels * (layer.weight.fan_out // layer.groups)
        else:
            fan_out = _width(layer.weight.fan_out, factor, groups)
        weight = _weights(layer.weight, inputs[0].channels // groups, fan_out)
        return replace(layer, weight=weight, groups=groups)
    if isinstance(layer, GroupNorm):
        members = whole[0].channels // layer.groups
        return replace(layer, groups=max(1, inputs[0].channels // members))
    if isinstance(layer, PadChannels):
        missing = _width(value.channels, factor, 1) - inputs[0].channels
        before = round(missing * layer.before / max(layer.before + layer.after, 1))
        return replace(layer, before=before, after=missing - before)
    return layer


def _weights(weight: WeightLayer, channels_in: int, fan_out: int) -> WeightLayer:
    fan_in = channels_in * (weight.fan_in // weight.channels_in)
    return replace(weight, fan_in=fan_in, fan_out=fan_out)


def _width(width: int, factor: float, multiple: int) -> int:
    """`width` · `factor`, a multiple of `multiple` and of 8 where `width` is one."""
    step = multiple * 8 if width % (8 * multiple) == 0 else multiple
    return max(1, round(width * factor / step)) * step
