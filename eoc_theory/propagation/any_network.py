"""Kernels through any network; a chain of fully connected layers is faster than a graph, and a network with
attention is computed from drawn channels."""

from __future__ import annotations

from typing import Any

from ..networks.architecture import Architecture
from ..networks.queries import has_kernels
from .channel_kernels import ChannelPropagation, propagate_channels
from .graph_kernels import GraphPropagation, propagate_graph
from .infinite_width import Propagation, propagate


def propagate_network(
    net: Architecture, data: Any = None, *, seed: int = 0
) -> Propagation | GraphPropagation | ChannelPropagation:
    """`Architecture.propagate`."""
    if net.is_chain:
        return propagate(net, data, seed=seed)
    if not has_kernels(net.as_graph()):
        return propagate_channels(net, data, seed=seed)
    return propagate_graph(net, data, seed=seed)
