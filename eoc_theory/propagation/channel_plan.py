"""How many channels of a network are drawn, for how many inputs, so that it takes seconds.

A network with normalisation and without attention needs few channels, for covariances are averaged over
inputs that are alike; large images are taken at a lower resolution. With attention the number of tokens
counts, which no lower resolution leaves as it is: there fewer heads and inputs are drawn, each head with all
of its channels, and the whole several times, which averages fluctuations of relative order 1/channels out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from ..networks.architecture import Architecture
from ..networks.downsample import within_reach
from ..networks.graph import Graph
from ..networks.narrow import narrowed
from ..networks.queries import LARGEST, attends, has_squeezed_gates, is_normalised, kv_heads
from ..signals.data import DataSummary
from .gaussian_graph import GaussianGraph

#: Inputs that channels are drawn for, at most.
MOST_INPUTS = 128
#: Channels of the narrowest hidden layer in all repeats together, at least, with normalisation and without.
CHANNELS = {True: 64, False: 1024}
#: Repeats at most.
MOST_REPEATS = 8
#: Positions along an axis that are tried one after the other until the work is not more than `MOST_WORK`
#: multiply-adds, and channels of the narrowest layer of a network that is narrowed.
RESOLUTIONS = (LARGEST, 48, 32, 24, 16)
MOST_WORK = 5e10
LEAST_CHANNELS = 64
#: With attention: channels of a hidden layer in one draw, at least where there are as many, and in all draws
#: together; inputs, at least; and multiply-adds, usually and at most. Inputs that are left out cost more
#: accuracy than repeats: of 32 images in a ViT of 12 blocks, 16 in four repeats put what is kept 0.011 off,
#: all of them in two repeats 0.004. So do channels: where tokens become alike, fewer of them leave tokens
#: more apart (the score moments of q and k in 12 post-norm blocks of width 512 are half as large again in 256
#: channels). One draw of all channels goes before several of fewer.
ATTENTION_CHANNELS, ALL_CHANNELS, LEAST_INPUTS = 192, 1024, 16
ATTENTION_WORK, MOST_ATTENTION_WORK = 9e10, 1.3e11
LEAST_REPEATS = 2


@dataclass(frozen=True)
class Plan:
    """What is drawn.

    Attributes:
        graph: the network, perhaps at a lower resolution.
        drawn: the same with as many channels as are drawn.
        batch: its data.
        alike: whether covariances are averaged over inputs.
        repeats: draws of the whole graph.
        notes: where a lower resolution stands for the given one, or other channels for its own.
        inputs: how many inputs are drawn, at most.
    """

    graph: Graph
    drawn: Graph
    batch: DataSummary
    alike: bool
    repeats: int
    notes: tuple[str, ...]
    inputs: int = MOST_INPUTS

    @property
    def work(self) -> float:
        """Multiply-adds of drawing all channels, about."""
        return _work(self.drawn, min(self.inputs, self.batch.size), self.alike, self.repeats)

    def process(self, seed: int, dtype: Any = np.float32) -> GaussianGraph:
        """The channels, drawn by `forwards`."""
        return GaussianGraph(
            self.graph,
            self.drawn,
            self.batch,
            inputs=self.inputs,
            alike=self.alike,
            repeats=self.repeats,
            seed=seed,
            dtype=dtype,
            apart=attends(self.graph),
        )


def planned(net: Architecture, data: Any, seed: int, *, channels: int = ALL_CHANNELS) -> Plan:
    """The network at a resolution and widths that the work allows.

    Args:
        channels: of a network with attention: channels of a hidden layer in all draws together, about.
    """
    if attends(net.as_graph()):
        return _with_attention(net.as_graph(), net.summarise(data, seed=seed), channels)
    alike, gated = is_normalised(net.as_graph()), has_squeezed_gates(net.as_graph())
    for largest in RESOLUTIONS:
        smaller, batch, notes = within_reach(net, data, seed=seed, largest=largest)
        graph = smaller.as_graph()
        hidden = [graph.shapes[at].channels for at in graph.weighted[:-1]]
        repeats = int(np.clip(-(-CHANNELS[alike] // min(hidden, default=CHANNELS[alike])), 1, MOST_REPEATS))
        once = _work(graph, min(batch.size, MOST_INPUTS), alike, 1)
        if gated:
            # At a lower resolution it would be another network.
            repeats = int(np.clip(MOST_WORK / once, min(repeats, LEAST_REPEATS), repeats))
        work = once * repeats
        if work <= MOST_WORK:
            return Plan(graph, graph, batch, alike, repeats, notes)
        if gated:
            raise ModelError(
                f"images of {graph.input_shape} are too large for the theory of gates that means over "
                "positions make, which are others at a lower resolution (method='sampled' has them)"
            )
    factor = max(math.sqrt(MOST_WORK / work), LEAST_CHANNELS / min(hidden, default=LEAST_CHANNELS))
    drawn = graph
    if factor < 0.75:
        try:
            drawn, notes = narrowed(graph, factor), (*notes, f"channels drawn: {factor:.2g} of its width")
        except ModelError:
            drawn = graph
    return Plan(graph, drawn, batch, alike, repeats, notes)


def _with_attention(graph: Graph, batch: DataSummary, channels: int) -> Plan:
    """As many inputs as the work allows: fewer repeats first, then fewer heads, then fewer inputs."""
    inputs = min(batch.size, MOST_INPUTS)
    whole = Plan(graph, graph, batch, False, 1, ())
    plans = [_narrowed(whole, factor, channels) for factor in _factors(graph)]
    while True:
        for plan in plans:
            once = _work(plan.drawn, inputs, False, 1)
            least = min(plan.repeats, 1 if plan.drawn is graph else LEAST_REPEATS)
            if least * once <= MOST_ATTENTION_WORK:
                repeats = min(plan.repeats, max(least, int(ATTENTION_WORK / once)))
                return replace(plan, inputs=inputs, repeats=repeats)
        if inputs <= LEAST_INPUTS:
            return replace(plans[-1], inputs=inputs)
        inputs = max(inputs // 2, LEAST_INPUTS)


def _factors(graph: Graph) -> list[float]:
    """Parts of its width that a network can be drawn at, the whole first: whole heads of keys are left."""
    heads = math.gcd(*kv_heads(graph))
    width = _width(graph)
    parts = [n / heads for n in range(heads, 0, -1) if heads % n == 0]
    return [1.0, *(part for part in parts[1:] if part * width >= ATTENTION_CHANNELS)]


def _width(graph: Graph) -> float:
    """The usual number of channels of a hidden layer."""
    return float(np.median([graph.shapes[at].channels for at in graph.weighted[:-1]] or [1]))


def _narrowed(plan: Plan, factor: float, channels: int) -> Plan:
    drawn, notes = plan.graph, plan.notes
    if factor < 1.0:
        try:
            drawn, notes = narrowed(plan.graph, factor), (f"channels drawn: {factor:.2g} of its width",)
        except ModelError:
            drawn = plan.graph
    repeats = int(np.clip(-(-channels // _width(drawn)), 1, MOST_REPEATS))
    return replace(plan, drawn=drawn, notes=notes, repeats=repeats)


def _work(graph: Graph, inputs: int, alike: bool, repeats: int) -> float:
    """Multiply-adds of drawing a graph's channels."""
    total = 0.0
    for at, weight in zip(graph.weighted, graph.weight_layers, strict=True):
        shape, before = graph.shapes[at], graph.shapes[graph.nodes[at].inputs[0]]
        product = float(weight.n_weights) * shape.positions
        fields = 2.0 * (shape.channels * shape.positions**2 + before.channels * before.positions**2)
        total += product + (fields if alike else 2.0 * product)
    return total * inputs * repeats
