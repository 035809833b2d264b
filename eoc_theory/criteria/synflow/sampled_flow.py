"""Which channels of a graph are sampled for SynFlow, and the plan of a pass through them.

Of each level's N channels M are sampled, each with all its N weights as parallel weights to the M sampled
channels of the next level: degrees, and so the fluctuations that make strong channels stronger from round to
round, are the network's own. Channels that meet in a sum are sampled alike; where that cannot be (channels
padded with zeros, groups), all are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...layers import Layer
from ...layers.sampled_channels import Channels, Segment
from ...networks.architecture import Architecture
from ...networks.graph import Graph
from ..distributions.magnitudes import MagnitudeLaw, magnitude_law
from .mean_flow import refuse_attention

Array = np.ndarray


@dataclass(frozen=True)
class SampledWeights:
    """How one weight layer is sampled.

    Attributes:
        node: its position in the graph.
        law, log_std: of its weights, in what units |W| is drawn.
        rows, columns: sampled channels; `copies_in` (columns,) and `copies_out` what each stands for.
        groups: of channels.
        windows: what each tap sees of the input, (taps, positions); `inside` where that is a position at all.
        space, out_space: extents of input and output.
        sampled: sampled weights.
        count: weights of the network that one of them stands for.
    """

    node: int
    law: MagnitudeLaw
    log_std: float
    rows: int
    copies_in: Array
    copies_out: int
    groups: int
    windows: Array
    inside: Array
    space: tuple[int, ...]
    out_space: tuple[int, ...]
    sampled: int
    count: float

    @property
    def columns(self) -> int:
        return len(self.copies_in)


@dataclass(frozen=True)
class Plan:
    """A network's sampled counterpart: the steps of a pass, and the weight layers.

    Attributes:
        graph: the network's.
        source: for each node the one whose signal it has: itself, or what an identity takes.
        steps: positions of the nodes that are no identities, in order.
        weights: the weight layers, by node.
        channels: sampled channels of the input and of the output.
    """

    graph: Graph
    source: tuple[int, ...]
    steps: tuple[int, ...]
    weights: dict[int, SampledWeights]
    channels: tuple[int, int]

    @property
    def sampled(self) -> int:
        """Sampled weights in all."""
        return sum(w.sampled for w in self.weights.values())

    @property
    def counts(self) -> Array:
        """Weights that a sampled one stands for, (L,)."""
        return np.array([w.count for w in self.weights.values()])


def plan_of(net: Architecture, channels: int | None = None, *, core: bool = False) -> Plan:
    """The sampled counterpart with about `channels` channels a level; all of them where None.

    As a core, levels hold that many channels at most and no parallel weights, the weights scaled up so that
    signals grow as they do in the network.
    """
    graph = net.as_graph()
    refuse_attention(graph)
    source: list[int] = []
    for position, node in enumerate(graph.nodes):
        same = type(node.layer).forward_means is Layer.forward_means and node.inputs
        source.append(source[node.inputs[0]] if same else position)
    copies = _copies(graph, channels, core)
    weights = {}
    for position in graph.weighted:
        layer = graph.weighted_layer(position)
        before = graph.nodes[position].inputs[0]
        space = graph.shapes[before].space
        copies_in = copies[before]
        windows, groups = layer.windows(space), layer.groups
        copies_out = int(copies[position][0])
        missing = layer.weight.channels_in * groups / copies_in.sum() if core else 1.0
        sampled = (
            len(copies[position]) * int(np.maximum(copies_in, copies_out).sum()) // groups * len(windows)
        )
        weights[position] = SampledWeights(
            node=position,
            law=magnitude_law(layer.weight),
            log_std=float(np.log(layer.weight.weight_std * missing)),
            rows=len(copies[position]),
            copies_in=copies_in,
            copies_out=copies_out,
            groups=groups,
            windows=windows,
            inside=(windows < int(np.prod(space))).astype(float),
            space=space,
            out_space=graph.shapes[position].space,
            sampled=sampled,
            count=1.0 if core else layer.weight.n_weights / sampled,
        )
    return Plan(
        graph=graph,
        source=tuple(source),
        steps=tuple(p for p, s in enumerate(source) if p == s),
        weights=weights,
        channels=(len(copies[0]), len(copies[-1])),
    )


def _copies(graph: Graph, channels: int | None, core: bool) -> list[Array]:
    """For every node, how many of its channels each sampled one stands for, (sampled channels,)."""
    classes = Channels()
    segments: list[Segment] = []
    for node in graph.nodes:
        inputs, shapes = [segments[k] for k in node.inputs], [graph.shapes[k] for k in node.inputs]
        segments.append(node.layer.sampled_channels(classes, inputs, shapes))
    classes.keep_whole(segments[-1])
    return classes.copies(segments, channels, core)
