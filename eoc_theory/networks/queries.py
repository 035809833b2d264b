"""What is asked of a network's graph in several places."""

from __future__ import annotations

import math

from ..signals.data import DEFAULT_BATCH
from .graph import Graph

#: Bytes that a batch of stand-ins may take in the nodes of a network that wants it whole.
_STAND_IN_BYTES = 448 << 20
#: Positions along an axis of the largest images that are sampled; see `downsample`.
LARGEST = 64


def is_normalised(graph: Graph) -> bool:
    """Whether a normalisation stands anywhere in the network."""
    return any(node.layer.normalises for node in graph.nodes)


def attends(graph: Graph) -> bool:
    """Whether attention, or another product of what depends on the input, stands anywhere in the network."""
    return any(node.layer.head_groups for node in graph.nodes)


def has_squeezed_gates(graph: Graph) -> bool:
    """Whether one number for all positions, such as a mean over them, acts at each of them again.

    How much such means vary depends on how many positions there are: squeeze-and-excite is another network at
    another resolution.
    """
    for node in graph.nodes:
        positions = [graph.shapes[source].positions for source in node.inputs]
        if not node.layer.attends and len(positions) > 1 and min(positions) == 1 < max(positions):
            return True
    return False


def kv_heads(graph: Graph) -> list[int]:
    """Heads of keys and values of each attention or other product, in order."""
    return [node.layer.head_groups for node in graph.nodes if node.layer.head_groups]


def has_kernels(graph: Graph) -> bool:
    """Whether kernels of kinds of pairs of inputs tell the whole network, and not drawn channels alone.

    They do not where an activation takes what another one made, pooled say, with no weights between: its
    inputs are not Gaussian.
    """
    return all(
        node.layer.has_kernels and not _acts_on_activations(graph, position)
        for position, node in enumerate(graph.nodes)
    )


def _acts_on_activations(graph: Graph, position: int) -> bool:
    """Whether a node is an activation of another one's values, moved or pooled in between."""
    if graph.nodes[position].layer.nonlinearity is None:
        return False
    (source,) = graph.nodes[position].inputs
    while True:
        layer, inputs = graph.nodes[source].layer, graph.nodes[source].inputs
        if layer.nonlinearity is not None:
            return True
        if layer.weighted is not None or layer.normalises or len(inputs) != 1:
            return False
        (source,) = inputs


def vocabulary_of(graph: Graph) -> int:
    """Token numbers that the network takes as inputs, from 0; 0 where inputs are no token numbers."""
    found = [graph.nodes[i].layer.vocabulary for i in graph.consumers[0]]
    return min((n for n in found if n), default=0)


def absent_tokens(graph: Graph) -> tuple[int, ...]:
    """Token numbers that no input may hold, for the network was read without what it does with them."""
    return graph.nodes[0].layer.absent_tokens


def is_residual(graph: Graph) -> bool:
    """Whether values are added anywhere in the network."""
    return any(node.layer.adds for node in graph.nodes)


def batch_norm_modes(graph: Graph) -> list[bool]:
    """Of every batch normalisation: whether it takes the batch's own statistics, not the running ones."""
    modes = (node.layer.batch_statistics for node in graph.nodes)
    return [mode for mode in modes if mode is not None]


def stand_in_size(graph: Graph) -> int:
    """Size of the batch that stands in where no data are given.

    Batch normalisation wants all of a batch at once: where its values would take more than `_STAND_IN_BYTES`
    the batch is smaller. Images are counted at the resolution at which large ones are sampled.
    """
    if not any(batch_norm_modes(graph)):
        return DEFAULT_BATCH
    most = math.inf if has_squeezed_gates(graph) else LARGEST
    values = sum(s.channels * math.prod(min(n, most) for n in s.space) for s in graph.shapes)
    fit = int(_STAND_IN_BYTES / (4.0 * values))
    # Whole tens, so that classes are balanced where there are ten.
    return min(DEFAULT_BATCH, max(fit // 10 * 10, 20))


def mode_notes(modes: set[bool]) -> tuple[str, ...]:
    """What a result says of batch normalisations in training mode (True) and in evaluation mode."""
    words = {
        True: "training mode (the batch's own statistics)",
        False: "evaluation mode (running statistics)",
    }
    if not modes:
        return ()
    return ("batch normalisation in " + " and ".join(words[mode] for mode in sorted(modes, reverse=True)),)


def forward_cost(graph: Graph) -> float:
    """Multiply-adds of one input's forward pass."""
    positions = (graph.shapes[at].positions for at in graph.weighted)
    return float(sum(p * w.n_weights for p, w in zip(positions, graph.weight_layers, strict=True)))


def feeds_weights(graph: Graph, position: int) -> bool:
    """Whether weights come after a node."""
    open_ = list(graph.consumers[position])
    while open_:
        here = open_.pop()
        if here in graph.weighted:
            return True
        open_.extend(graph.consumers[here])
    return False


def let_through(graph: Graph, position: int) -> float:
    """Part of a layer's inputs that dropout leaves: 1 without any between it and what it takes them from."""
    part, inputs = 1.0, graph.nodes[position].inputs
    while len(inputs) == 1:
        node = graph.nodes[inputs[0]]
        if node.layer.weighted is not None or node.layer.nonlinearity is not None:
            break
        if node.layer.dropout < 1:
            part *= 1.0 - node.layer.dropout
        inputs = node.inputs
    return part


def scale_is_normalised(graph: Graph, position: int) -> bool:
    """Whether a normalisation stands on every path from a node to an activation or the next weights."""
    ahead = list(graph.consumers[position])
    seen: set[int] = set()
    found = False
    while ahead:
        here = ahead.pop()
        if here in seen:
            continue
        seen.add(here)
        layer = graph.nodes[here].layer
        if layer.sets_scale:
            found = True
        elif layer.nonlinearity is not None or layer.weighted is not None or not graph.consumers[here]:
            return False
        else:
            ahead.extend(graph.consumers[here])
    return found


def is_divided_out(graph: Graph, position: int, bias_square: float) -> bool:
    """Whether the scale of a layer's weights is divided out before anything else is done with its output.

    Args:
        bias_square: mean square of its biases, which only a normalisation over the batch takes out.
    """
    open_ = list(graph.consumers[position])
    joined = False
    while open_:
        here = open_.pop()
        layer, inputs = graph.nodes[here].layer, graph.nodes[here].inputs
        if layer.batch_statistics or (layer.sets_scale and not joined and bias_square == 0):
            continue
        joined |= len(inputs) > 1
        keeps = (
            layer.weighted is None
            and layer.nonlinearity is None
            and not layer.normalises
            and not (layer.adds and len(inputs) > 1)
        )
        if not keeps or not graph.consumers[here]:
            return False
        open_.extend(graph.consumers[here])
    return bool(graph.consumers[position])
