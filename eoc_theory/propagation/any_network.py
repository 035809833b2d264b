"""Kernels through any network; a chain of fully connected layers is faster than a graph."""

from __future__ import annotations

from typing import Any

from ..networks.architecture import Architecture
from .graph_kernels import GraphPropagation, propagate_graph
from .infinite_width import Propagation, propagate


def propagate_network(
    net: Architecture, data: Any = None, *, seed: int = 0
) -> Propagation | GraphPropagation:
    """`Architecture.propagate`."""
    if net.is_chain:
        return propagate(net, data, seed=seed)
    return propagate_graph(net, data, seed=seed)
