"""From the recorded nodes to the graph: what is used, in a form the theory describes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...activations import Activation, activation
from ...errors import ModelError
from ...layers import (
    AdaptiveAveragePool,
    AveragePool,
    ChannelScale,
    ChannelShuffle,
    ChannelSlice,
    Concatenate,
    Dense,
    Dropout,
    Flatten,
    Identity,
    Input,
    Layer,
    MaxPool,
    Nonlinearity,
    Pad,
    PadChannels,
    PartOfInput,
    Product,
    Resize,
    Shape,
    Softmax,
    Subsample,
    Sum,
)  # fmt: skip
from ...networks.graph import Graph, Node
from .recorder import Recorder
from .weights import laws

#: Layers after which the entries of an activation's values are still no Gaussian ones of mean 0.
_KEEPING = (
    Identity, Flatten, Dropout, Subsample, PadChannels, MaxPool, AveragePool, AdaptiveAveragePool, Resize,
    Pad, ChannelSlice, ChannelShuffle,
)  # fmt: skip


def finish(recorder: Recorder, output: int, prunable: list[str]) -> Graph:
    """The graph of all that the output depends on.

    Raises:
        ModelError: weights without influence, activations where the theory has no Gaussian values, no logits.
    """
    recorder.nodes[0] = Node(_with_what_is_taken(recorder))
    nodes = _used(*_without_idle_activations(recorder.nodes, output))
    names = [node.layer.name for node in nodes if node.layer.weighted is not None]
    if not names:
        raise ModelError("model has no Linear or convolution layer between its input and its output")
    unused = [name for name in prunable if name not in names]
    if unused:
        raise ModelError(
            f"the output does not depend on the weights of layer {unused[0]!r}"
            + (f" and {len(unused) - 1} more" if len(unused) > 1 else "")
        )
    _check_activations(nodes)
    _check_logits(nodes)
    nodes = _activation_before_pooling(nodes)
    nodes = _separate_linear_layers(nodes)
    return Graph(tuple(_with_unit_scales(_with_laws(nodes, recorder), recorder)))


def _with_what_is_taken(recorder: Recorder) -> Layer:
    """The input, with the token numbers that it may hold, or its parts with theirs."""
    first = recorder.nodes[0].layer
    assert isinstance(first, Input)
    if not first.parts:
        return replace(first, absent=tuple(sorted(recorder.absent.get(0, ()))))
    starts = {
        node.layer.start: at for at, node in enumerate(recorder.nodes) if isinstance(node.layer, PartOfInput)
    }
    parts, start = [], 0
    for part in first.parts:
        at = starts.get(start, 0)
        sizes = [node.layer.vocabulary for node in recorder.nodes if node.inputs == (at,)]
        absent = tuple(sorted(recorder.absent.get(at, ())))
        parts.append(replace(part, vocabulary=min((n for n in sizes if n), default=0), absent=absent))
        start += part.size
    return replace(first, parts=tuple(parts))


def used_weights(nodes: list[Node], output: int) -> set[str]:
    """Names of the layers with weights that a node depends on."""
    return {node.layer.name for node in _used(nodes, output) if node.layer.weighted is not None}


def _used(nodes: list[Node], output: int) -> list[Node]:
    wanted = {0, output}
    for position in range(output, -1, -1):
        if position in wanted:
            wanted.update(nodes[position].inputs)
    new = {old: number for number, old in enumerate(sorted(wanted))}
    return [Node(nodes[old].layer, tuple(new[i] for i in nodes[old].inputs)) for old in sorted(wanted)]


def _without_idle_activations(nodes: list[Node], output: int) -> tuple[list[Node], int]:
    """The nodes without those that leave values ≥ 0 as they are: a ReLU after ReLUs, pooled or added up."""
    sources: list[int] = []
    positive: list[bool] = []
    made: list[Node] = []
    for position, node in enumerate(nodes):
        layer, inputs = node.layer, tuple(sources[source] for source in node.inputs)
        act, given = layer.nonlinearity, bool(inputs) and all(positive[i] for i in inputs)
        idle = act is not None and given and _keeps_positive(act)
        sources.append(inputs[0] if idle else position)
        positive.append(given and _stays_positive(layer) if act is None else _is_positive(act))
        made.append(Node(layer, inputs))
    return made, sources[output]


def _stays_positive(layer: Layer) -> bool:
    """Whether it makes values ≥ 0 of such."""
    joins = isinstance(layer, (*_KEEPING, Concatenate, Product))
    return joins or (layer.adds and isinstance(layer, Sum) and min(layer.coefficients) >= 0)


def _keeps_positive(act: Activation) -> bool:
    positive = np.concatenate([[0.0], np.logspace(-6, 6, 200)])
    return bool(np.array_equal(act(positive), positive))


def _is_positive(act: Activation) -> bool:
    half = np.logspace(-6, 3, 400)
    with np.errstate(all="ignore"):
        return bool(np.all(act(np.concatenate([-half, [0.0], half])) >= 0))


def _consumers(nodes: list[Node]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in nodes]
    for position, node in enumerate(nodes):
        for source in node.inputs:
            found[source].append(position)
    return found


def _check_activations(nodes: list[Node]) -> None:
    """Activations act on sums of many weights' terms, not on data."""
    weighted: list[bool] = []
    for node in nodes:
        layer = node.layer
        before = any(weighted[source] for source in node.inputs)
        weighted.append(before or layer.weighted is not None)
        if layer.nonlinearity is None and not isinstance(layer, MaxPool):
            continue
        if not before:
            raise ModelError(f"{_describe(layer)} stands before the first weight layer")


def _describe(layer: Any) -> str:
    kind = layer.nonlinearity.name if layer.nonlinearity is not None else type(layer).__name__
    return f"layer {layer.name!r} ({kind})"


def _check_logits(nodes: list[Node]) -> None:
    """Nothing but linear layers may follow the last weights on any path, or what is meant over positions."""
    shapes = shapes_of(nodes)
    seen: set[int] = set()
    open_ = [(len(nodes) - 1, False)]
    while open_:
        position, meant = open_.pop()
        layer = nodes[position].layer
        if position in seen or layer.weighted is not None or layer.tells_padding:
            continue
        seen.add(position)
        activated = layer.nonlinearity is not None and not meant
        if activated or isinstance(layer, (MaxPool, Input, Softmax)):
            what = "the input" if isinstance(layer, Input) else _describe(layer)
            raise ModelError(
                f"model must end with a layer of logits, got {what} between the last weights and them"
            )
        pooled = isinstance(layer, (AdaptiveAveragePool, AveragePool))
        meant = meant or (pooled and shapes[position].positions < shapes[nodes[position].inputs[0]].positions)
        open_.extend((source, meant) for source in nodes[position].inputs)


def shapes_of(nodes: list[Node]) -> list[Shape]:
    """Shape of every node's value."""
    shapes: list[Shape] = []
    for node in nodes:
        shapes.append(node.layer.output_shape(*(shapes[source] for source in node.inputs)))
    return shapes


def _activation_before_pooling(nodes: list[Node]) -> list[Node]:
    """max then φ is φ then max where φ does not fall: so that φ takes Gaussian values."""
    nodes = list(nodes)
    consumers = _consumers(nodes)
    for position, node in enumerate(nodes):
        layer = node.layer
        if not isinstance(layer, Nonlinearity):
            continue
        (source,) = node.inputs
        pool = nodes[source].layer
        before = nodes[nodes[source].inputs[0]].layer if nodes[source].inputs else pool
        if (
            isinstance(pool, MaxPool)
            and len(consumers[source]) == 1
            and not isinstance(before, (Nonlinearity, MaxPool))
            and _never_falls(layer.activation)
        ):
            nodes[source] = Node(layer, nodes[source].inputs)
            nodes[position] = Node(pool, node.inputs)
    return nodes


def _never_falls(act: Activation) -> bool:
    values = act(np.concatenate([-np.logspace(3, -6, 4000), np.logspace(-6, 3, 4000)]))
    with np.errstate(invalid="ignore"):
        return bool(np.all(np.diff(values) >= -1e-13 * np.abs(values[1:])))


def _separate_linear_layers(nodes: list[Node]) -> list[Node]:
    """In a chain of fully connected layers, the identity between two without activation."""
    chain = all(node.inputs == ((i - 1,) if i else ()) for i, node in enumerate(nodes))
    if not chain or not all(
        isinstance(node.layer, (Input, Dense, Nonlinearity, Flatten, Identity)) for node in nodes
    ):
        return nodes
    made: list[Node] = []
    pending: str | None = None
    for node in nodes:
        if isinstance(node.layer, Dense):
            if pending is not None:
                between = Nonlinearity(f"{pending}.identity", activation("identity"))
                made.append(Node(between, (len(made) - 1,)))
            pending = node.layer.name
        elif isinstance(node.layer, Nonlinearity):
            pending = None
        made.append(Node(node.layer, (len(made) - 1,) if made else ()))
    return made


def _with_laws(nodes: list[Node], recorder: Recorder) -> list[Node]:
    consumers = _consumers(nodes)
    at = [i for i, node in enumerate(nodes) if node.layer.weighted is not None]
    found = dict(zip(at, laws([recorder.weights[nodes[i].layer.name] for i in at]), strict=True))
    made = []
    for position, node in enumerate(nodes):
        layer = node.layer
        if layer.weighted is not None:
            follower = _activation_after(nodes, consumers, position)
            weight = replace(layer.weighted.weight, activation=follower, law=found[position])
            layer = layer.weighted.with_weight(weight)
        made.append(Node(layer, node.inputs))
    return made


def _with_unit_scales(nodes: list[Node], recorder: Recorder) -> list[Node]:
    """Units that have scales of their own, as queries and keys in a packed matrix, are multiplied by them.

    Behind the choice of channels that tells them apart: there one number stands for all. The products of
    weights and their derivatives are those of rows that have these scales themselves.
    """
    made: list[Node] = []
    places: list[int] = []
    scales: list[Any] = []
    for node in nodes:
        layer, own = node.layer, None
        if layer.weighted is not None:
            runs = recorder.weights[layer.name].unit_scales
            own = np.repeat([scale for _, scale in runs], [n for n, _ in runs]) if runs else None
        elif len(node.inputs) == 1 and scales[node.inputs[0]] is not None:
            before = scales[node.inputs[0]]
            taken = layer.channels_taken(len(before))
            own = before[taken] if layer.moves_channels else None
        places.append(len(made))
        made.append(Node(layer, tuple(places[source] for source in node.inputs)))
        if own is not None and layer.weighted is None and np.ptp(own) < 1e-9:
            places[-1] = len(made)
            made.append(Node(ChannelScale(f"{layer.name}.scale", float(own[0])), (len(made) - 1,)))
            own = None
        scales.append(own)
    return made


def _activation_after(nodes: list[Node], consumers: list[list[int]], position: int) -> Activation | None:
    """The first activation between a layer and the next weights."""
    open_ = set(consumers[position])
    while open_:
        first = min(open_)
        open_.discard(first)
        layer = nodes[first].layer
        if layer.nonlinearity is not None:
            return layer.nonlinearity
        if layer.weighted is None:
            open_.update(consumers[first])
    return None
