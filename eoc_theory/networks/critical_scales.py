"""The edge of chaos layer by layer: the critical scale of the weights of each layer of a network."""

from __future__ import annotations

import math

from ..activations import Activation
from ..errors import ModelError
from ..layers import Convolution, Dense, Dropout, Nonlinearity
from ..mean_field.edge_of_chaos import edge_of_chaos
from .graph import Graph


def critical_scales(graph: Graph, sigma_b: float) -> dict[str, tuple[float, float]]:
    """(σ_w, σ_b) of each weight layer on the edge of chaos of its activation, by name; see `initialize_`.

    Raises:
        ModelError: no activation at all. NoCriticalPointError: none has an edge of chaos at `sigma_b`.
    """
    points: dict[Activation, tuple[float, float]] = {}
    found = {}
    for position in graph.weighted:
        layer = graph.nodes[position].layer
        assert isinstance(layer, (Dense, Convolution))
        act = layer.weight.activation
        if (act is None or act.name == "identity") and _feeds_weights(graph, position):
            sigma_w, spread = 1.0, 0.0
        else:
            act = act or _activation_before(graph, position)
            if act not in points:
                points[act] = (float(edge_of_chaos(act, sigma_b=sigma_b).sigma_w), sigma_b)
            sigma_w, spread = points[act]
        found[layer.name] = (sigma_w * math.sqrt(let_through(graph, position)), spread)
    return found


def let_through(graph: Graph, position: int) -> float:
    """Part of a layer's inputs that dropout leaves: 1 without any between it and what it takes them from."""
    part, inputs = 1.0, graph.nodes[position].inputs
    while len(inputs) == 1:
        node = graph.nodes[inputs[0]]
        if isinstance(node.layer, (Dense, Convolution, Nonlinearity)):
            break
        if isinstance(node.layer, Dropout) and node.layer.training and node.layer.p < 1:
            part *= 1.0 - node.layer.p
        inputs = node.inputs
    return part


def _feeds_weights(graph: Graph, position: int) -> bool:
    """Whether weights come after a node."""
    open_ = list(graph.consumers[position])
    while open_:
        here = open_.pop()
        if here in graph.weighted:
            return True
        open_.extend(graph.consumers[here])
    return False


def _activation_before(graph: Graph, position: int) -> Activation:
    """The nearest activation on the way from the input to a node; identities are none."""
    here = set(graph.nodes[position].inputs)
    while here:
        last = max(here)
        here.discard(last)
        layer = graph.nodes[last].layer
        if isinstance(layer, Nonlinearity) and layer.activation.name != "identity":
            return layer.activation
        here.update(graph.nodes[last].inputs)
    raise ModelError("model has no activation between its layers, so no edge of chaos")
