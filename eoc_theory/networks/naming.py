"""What a network is called in texts and pictures."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..errors.text import name as shown_name
from .architecture import Architecture
from .graph import Graph
from .resolve import Network, is_model

#: Classes of torch whose name says nothing of the network.
CONTAINERS = ("Sequential", "ModuleList", "DataParallel")


def network_name(given: Any, net: Network | None = None) -> str:
    """The name of the network that was handed in as `given` and resolved to `net` (None: it was not).

    That of the architecture, of the model's class or of the factory; else what it is made of.
    """
    if isinstance(given, Architecture) and given.name:
        return given.name
    if is_model(given):
        own = type(given).__name__
        return shown_name(own) if own not in CONTAINERS else described(net)
    while isinstance(given, partial):
        given = given.func
    own = getattr(given, "__name__", "")
    if isinstance(own, str) and own.isidentifier() and not isinstance(given, Architecture):
        return shown_name(own)
    return getattr(net, "name", "") or described(net)


def described(net: Network | None) -> str:
    """A network by its activation and its layers, "" for none."""
    if net is None:
        return ""
    acts = {layer.activation for layer in net if layer.activation is not None}
    act = shown_name(next(iter(acts)).name) if len(acts) == 1 else ""
    depth = "1 layer" if net.depth == 1 else f"{net.depth} layers"
    widths = {layer.fan_out for layer in net.layers[:-1]}
    wide = f" of width {next(iter(widths))}" if len(widths) == 1 and net.is_chain else ""
    return f"{act}, {depth}{wide}" if act else f"{depth}{wide}"


def shortcut_layers(net: Network) -> tuple[str, ...]:
    """Names of the weight layers that stand on a shortcut, beside a branch with more weight layers.

    Empty where no graph is known.
    """
    if not isinstance(net, Architecture) or net.is_chain:
        return ()
    graph = net.as_graph()
    behind = _weights_behind(graph)
    found: set[int] = set()
    for node in graph.nodes:
        if not node.layer.adds or len(node.inputs) != 2:
            continue
        short, long = sorted(node.inputs, key=lambda source: behind[source])
        if behind[short] < behind[long]:
            found |= (_before(graph, short) - _before(graph, long)) & set(graph.weighted)
    return tuple(graph.weighted_layer(i).weight.name for i in sorted(found))


def _weights_behind(graph: Graph) -> list[int]:
    """Of every node the most weight layers on a path from the input, its own among them."""
    behind: list[int] = []
    for node in graph.nodes:
        own = int(node.layer.weighted is not None)
        behind.append(own + max((behind[source] for source in node.inputs), default=0))
    return behind


def _before(graph: Graph, position: int) -> set[int]:
    """The node and all that its value comes from."""
    found: set[int] = set()
    open_ = [position]
    while open_:
        here = open_.pop()
        if here not in found:
            found.add(here)
            open_.extend(graph.nodes[here].inputs)
    return found
