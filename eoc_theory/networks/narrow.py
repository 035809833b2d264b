"""A narrower network in place of a very wide one, whose score distributions hardly depend on the width.

All hidden widths shrink by one factor. What a width changes is of relative order 1/width, while the cost of
drawing its channels goes with its square (`eoc_theory.propagation.channel_plan`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..layers import Shape
from .graph import Graph, Node


def narrowed(graph: Graph, factor: float) -> Graph:
    """The graph with all hidden widths times `factor`, rounded to what groups of channels allow.

    Raises:
        ModelError: widths that cannot shrink together.
    """

    def width_of(position: int) -> Callable[[int, int], int]:
        # The logits stay as many as they are.
        return _same_width if position == graph.weighted[-1] else partial(_width, factor)

    nodes: list[Node] = []
    shapes: list[Shape] = []
    for position, node in enumerate(graph.nodes):
        inputs = [shapes[i] for i in node.inputs]
        whole = [graph.shapes[i] for i in node.inputs]
        layer = node.layer.narrowed(inputs, whole, graph.shapes[position], width_of(position))
        nodes.append(Node(layer, node.inputs))
        shapes.append(layer.output_shape(*inputs))
    return Graph(tuple(nodes))


def _same_width(width: int, multiple: int) -> int:
    return width


def _width(factor: float, width: int, multiple: int) -> int:
    """`width` · `factor`, a multiple of `multiple` and of 8 where `width` is one."""
    step = multiple * 8 if width % (8 * multiple) == 0 else multiple
    return max(1, round(width * factor / step)) * step
