"""SynFlow's network as a graph of positive means: what each weight layer receives and what it sends on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ModelError
from ...layers import Layer, WeightLayer
from ...networks.architecture import Architecture
from ...networks.graph import Graph
from ...networks.queries import attends
from ...signals.means import Means
from ..distributions.magnitudes import magnitude_law

Array = np.ndarray


@dataclass(frozen=True)
class LayerFlow:
    """One weight layer between the signals of its mean network.

    A weight at (row i, column j, tap β) has the mean score E|W| e^log_scale row_i column_j tap_β: `tap` holds
    Σ_p R(p) F(p + β) over the layer's output positions.

    Attributes:
        row: what each output channel sends on to the outputs, (rows,), mean 1.
        column: what each input channel carries, (columns,), mean 1; of all groups of a convolution.
        tap: shape (taps,), mean 1.
        log_scale: −∞ where no signal passes.
        row_variance, column_variance: relative variance of row and column in networks of this one's width.
        groups: of channels, each column meeting the rows of its own group.
    """

    row: Array
    column: Array
    tap: Array
    log_scale: float
    row_variance: float
    column_variance: float
    groups: int = 1


def mean_magnitude(layer: WeightLayer) -> tuple[float, float]:
    """Mean and relative variance of a layer's |W|."""
    law = magnitude_law(layer)
    return law.mean * layer.weight_std, 1.0 / law.mean**2 - 1.0


def mean_flow(net: Architecture) -> tuple[LayerFlow, ...]:
    """Every weight layer of a graph in its network of mean absolute weights, L of them."""
    graph = net.as_graph()
    forward, memories = forward_pass(graph)
    backward = backward_pass(graph, forward, memories)
    found = []
    for position in graph.weighted:
        layer = graph.weighted_layer(position)
        x, r = forward[graph.nodes[position].inputs[0]], backward[position]
        assert r is not None
        taps = layer.tap_shares(x, r)
        size = taps.mean()
        alive = size > 0 and x.log_scale > -np.inf and r.log_scale > -np.inf
        found.append(
            LayerFlow(
                row=r.amplitude,
                column=x.amplitude,
                tap=taps / size if size > 0 else taps,
                log_scale=float(x.log_scale + r.log_scale + np.log(size)) if alive else -np.inf,
                row_variance=r.variance,
                column_variance=x.variance,
                groups=layer.groups,
            )
        )
    return tuple(found)


def refuse_attention(graph: Graph) -> None:
    """Raises ModelError where attention says which values are passed on, which no positive network does.

    So too where a layer moves values, and does not say how it moves their means.
    """
    for node, shape in zip(graph.nodes, graph.shapes, strict=True):
        same = type(node.layer).forward_means is Layer.forward_means
        if same and node.inputs and graph.shapes[node.inputs[0]] != shape:
            kind = type(node.layer).__name__
            raise ModelError(f"layer {node.layer.name!r} ({kind}): there is no SynFlow of what it moves")
        if not node.layer.has_kernels:
            kind = type(node.layer).__name__
            what = "attention" if attends(graph) else "such layers"
            raise ModelError(
                f"layer {node.layer.name!r} ({kind}): there is no SynFlow of networks with {what}"
            )


def forward_pass(graph: Graph) -> tuple[list[Means], list[object]]:
    """The signal of every node for an input of ones, and what the nodes remember of it."""
    refuse_attention(graph)
    signals: list[Means] = []
    memories: list[object] = []
    for node in graph.nodes:
        if not node.inputs:
            signals.append(Means.ones(graph.input_shape.channels, graph.input_shape.space))
            memories.append(None)
            continue
        signal, memory = node.layer.forward_means([signals[k] for k in node.inputs], mean_magnitude)
        signals.append(signal)
        memories.append(memory)
    return signals, memories


def backward_pass(graph: Graph, forward: list[Means], memories: list[object]) -> list[Means | None]:
    """What an entry of every node sends on to the sum of the outputs; None for nodes that lead nowhere."""
    arriving: list[list[Means]] = [[] for _ in graph.nodes]
    arriving[-1].append(Means.ones(len(forward[-1].amplitude), ()))
    signals: list[Means | None] = [None] * len(graph.nodes)
    for position in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[position]
        if not arriving[position]:
            if node.layer.weighted is not None:
                own = forward[position]
                signals[position] = Means.of(0.0 * own.amplitude, own.profile)
            continue
        signal = Means.total(arriving[position])
        signals[position] = signal
        if node.inputs:
            parts = node.layer.backward_means(memories[position], signal, mean_magnitude)
            for source, part in zip(node.inputs, parts, strict=True):
                arriving[source].append(part)
    return signals
