"""The edge of chaos layer by layer: the critical scale of the weights of each layer of a network."""

from __future__ import annotations

import math

from ..activations import Activation
from ..errors import ModelError
from ..mean_field.edge_of_chaos import edge_of_chaos
from .graph import Graph
from .queries import feeds_weights, let_through


def critical_scales(graph: Graph, sigma_b: float) -> dict[str, tuple[float, float]]:
    """(σ_w, σ_b) of each weight layer on the edge of chaos of its activation, by name; see `initialize_`.

    Raises:
        ModelError: no activation at all. NoCriticalPointError: none has an edge of chaos at `sigma_b`.
    """
    points: dict[Activation, tuple[float, float]] = {}
    found = {}
    for position in graph.weighted:
        layer = graph.weighted_layer(position)
        act = layer.weight.activation
        if (act is None or act.name == "identity") and feeds_weights(graph, position):
            sigma_w, spread = 1.0, 0.0
        else:
            act = act or _activation_before(graph, position)
            if act not in points:
                points[act] = (float(edge_of_chaos(act, sigma_b=sigma_b).sigma_w), sigma_b)
            sigma_w, spread = points[act]
        found[layer.name] = (sigma_w * math.sqrt(let_through(graph, position)), spread)
    return found


def _activation_before(graph: Graph, position: int) -> Activation:
    """The nearest activation on the way from the input to a node; identities are none."""
    here = set(graph.nodes[position].inputs)
    while here:
        last = max(here)
        here.discard(last)
        act = graph.nodes[last].layer.nonlinearity
        if act is not None and act.name != "identity":
            return act
        here.update(graph.nodes[last].inputs)
    raise ModelError("model has no activation between its layers, so no edge of chaos")
